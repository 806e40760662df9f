"""Checks of the fleet: who cannot start, whether anything runs, and workers that nobody ever started."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet

from controlplane.doctor.findings import Finding, Level, many, note
from workers.lifecycle.refusals import REFUSED_FOR
from workers.models import Liveness, RefusedStart, Worker, WorkerInstance, WorkerQueue
from workers.models.paths import PATH
from workers.models.states import enabled
from workers.reports.attention import refused_starts
from workers.reports.incomplete import first_missing, incomplete_queues, queues_of_own_connections

STARTS = "starts"
#: Time enough to bring a new worker up.
NEVER_STARTED_AFTER = timedelta(days=7)


def examine_starts(now: datetime) -> Iterator[Finding]:
    """Workers and hosts whose latest start was refused."""
    found = list(refused_starts(now - REFUSED_FOR).order_by("organization", "-occurred_at"))
    ids = [row.worker_id for row in found if row.worker_id]
    paths = {pk: "/".join(path) for pk, *path in Worker.objects.filter(pk__in=ids).values_list("pk", *PATH)}
    told: dict[bool, list[str]] = {True: [], False: []}
    for row in found:
        who = paths.get(row.worker_id, "") if row.worker_id else f"{row.organization_id}: {_host_of(row)}"
        times = f"at least {row.times} times since {row.first_at:%Y-%m-%d %H:%M} UTC"
        told[row.worker_id is not None].append(f"{who}, {times}: {row.reason}")
    advice = "Mend what the reason names; the worker's page has a checklist."
    what = "Workers whose latest start was refused"
    yield from many(Level.PROBLEM, STARTS, what=what, names=told[True], advice=advice)
    advice = "Mend what the reason names; the API key's page has its latest refused start."
    what = "Hosts whose latest start in a queue was refused"
    yield from many(Level.PROBLEM, STARTS, what=what, names=told[False], advice=advice)


def examine_incomplete(now: datetime) -> Iterator[Finding]:
    """Queues in which starts would be refused for want of a connection, and those that serve named workers only."""
    advice = "Let a level point to the connection that is missing, or disable the queue."
    what = "Worker queues whose configuration is incomplete, so that starts are refused"
    yield from many(Level.PROBLEM, STARTS, what=what, names=_lacking(incomplete_queues(now)), advice=advice)
    advice = "Let a level point to the connection that is missing, if workers are to register or start in the queue."
    what = "Worker queues in which only workers with connections of their own start"
    yield from many(Level.NOTE, STARTS, what=what, names=_lacking(queues_of_own_connections(now)), advice=advice)


def _lacking(queues: QuerySet[WorkerQueue, Any]) -> Iterator[str]:
    parts = ("organization_id", "environment__name", "name")
    rows = queues.annotate(missing=first_missing()).order_by(*parts).values_list(*parts, "missing")
    return (f"{'/'.join(path)}: {missing}" for *path, missing in rows.iterator())


def examine_running(now: datetime) -> Iterator[Finding]:
    """That nothing runs though something did."""
    current = WorkerInstance.objects.filter(is_current=True)
    if current.exists() and not WorkerInstance.objects.live(now).exists():
        yield note(STARTS, "Nothing runs: no worker is live.", "Start the workers, unless they rest on purpose.")


def _host_of(row: RefusedStart) -> str:
    return row.hostname or row.client_address or "a host that told no name"


def examine_workers(now: datetime) -> Iterator[Finding]:
    """Those that never started within a week, but for whom a person holds back."""
    missing = Worker.objects.with_liveness(now).filter(
        enabled(now, "", "queue__"), Q(liveness=Liveness.NEVER_STARTED), created_at__lt=now - NEVER_STARTED_AFTER
    )
    paths = missing.order_by(*PATH).values_list(*PATH).iterator()
    what = f"Workers that never started in {NEVER_STARTED_AFTER.days} days"
    advice = "Start them; their pages say why a first boot fails. Disable or delete those that are not needed."
    yield from many(Level.PROBLEM, "workers", what=what, names=("/".join(path) for path in paths), advice=advice)
