"""What stands at this moment that somebody may want to be told: each event with its subject.

Nothing is defined here: liveness, attention, expiries and observations say what is so, and this puts it side by side.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Max, Min, Q

from environments import audit
from environments.connections.levels import winning
from environments.models import Organization, TemporalConnection
from environments.models.connections import CONNECTION_KINDS, CREDENTIAL_KINDS
from environments.roles import EVERYWHERE
from workers.lifecycle.pulse import recovery
from workers.lifecycle.refusals import REFUSED_FOR
from workers.models import (
    ApiKey,
    Event,
    Liveness,
    Outage,
    QueueObservation,
    Work,
    Worker,
    WorkerInstance,
    WorkerQueue,
)
from workers.models.instances import live_in_queue
from workers.models.liveness import OFFLINE_AFTER_AT_LEAST
from workers.models.observations import FRESH_FOR, WAITING_IN_VAIN
from workers.models.paths import PATH
from workers.reports.attention import CRASH_LOOP_WINDOW, crash_looping, on_looping_hosts, outdated, refused_starts
from workers.reports.expiries import to_be_warned_of
from workers.reports.observed import amiss

#: Days before an end at each of which it is told.
TOLD_DAYS = (1, 7, 30)
#: For so long after it an outage of ours is news.
AWAY_FOR = timedelta(minutes=10)
#: The names of a worker and of a queue, without the organization, from a row that points to it.
WORKER_PATH, QUEUE_PATH = PATH[1:], ("queue__environment__name", "queue__name")
#: The levels of an observed queue, the narrowest first.
LEVELS = ("queue__", "queue__environment__", "queue__organization__")
HOST, WORKER, QUEUE = "host", audit.kind_of(Worker()), audit.kind_of(WorkerQueue())
ORGANIZATION = audit.kind_of(Organization())


@dataclass(frozen=True)
class Standing:
    """That something is so."""

    event: Event
    organization_id: str
    #: As actions of the audit trail name its kind; "host" for what has no row.
    subject_type: str
    subject_id: str
    #: Without the organization.
    subject_name: str
    since_at: datetime
    #: What else a sentence tells of it.
    detail: str = ""
    #: When this changes, it is news again.
    mark: str = ""
    #: False where nothing new is known: if it stood it goes on, else it does not begin.
    is_certain: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others of its organization."""
        return str(self.event), self.subject_type, self.subject_id


def standing(now: datetime) -> Iterator[Standing]:
    """All that stands in all organizations: about twenty statements, whatever the number of rows."""
    may_be_held = recovery(now) is not None
    parts: tuple[Callable[[], Iterable[Standing]], ...] = (
        lambda: _offline(now, may_be_held=may_be_held),
        _failed,
        lambda: _looping(now),
        lambda: _duplicates(now, may_be_held=may_be_held),
        lambda: _waiting(now),
        lambda: _full(now, may_be_held=may_be_held),
        lambda: _failing(now),
        lambda: _expiring(now),
        lambda: _refused(now),
        lambda: _outdated(now, may_be_held=may_be_held),
        lambda: _away(now),
    )
    yield from chain.from_iterable(part() for part in parts)


def _of_worker(event: Event, row: Any, since_at: datetime, detail: str = "") -> Standing:
    """`row` begins with the organization, the worker's id and its names."""
    organization_id, pk, *names = row
    return Standing(event, organization_id, WORKER, str(pk), "/".join(names), since_at, detail)


def _through(pointer: str) -> list[str]:
    """The columns for `_of_worker` of rows that point to a worker."""
    return ["organization_id", f"{pointer}_id", *(f"{pointer}__{name}" for name in WORKER_PATH)]


def _offline(now: datetime, *, may_be_held: bool) -> Iterator[Standing]:
    """But for those that are cut off: these work. It says first what is quickly found out."""
    silent = Q(stopped_at=None, last_heartbeat_at__lt=now - OFFLINE_AFTER_AT_LEAST)
    current = WorkerInstance.objects.filter(silent).current(now, may_be_held=may_be_held)
    cut_off = amiss(now, Work.CUT_OFF, may_be_held=may_be_held).order_by().values("pk")
    rows: Any = current.filter(Q(liveness=Liveness.OFFLINE)).exclude(pk__in=cut_off).order_by()
    for *row, at in rows.values_list(*_through("worker"), "last_heartbeat_at"):
        yield _of_worker(Event.OFFLINE, row, at)


def _failed() -> Iterator[Standing]:
    """Without what the process says of its error: nobody knows what is in it."""
    rows = WorkerInstance.objects.filter(is_current=True).ended_badly().order_by()
    for *row, at, code in rows.values_list(*_through("worker"), "stopped_at", "exit_code"):
        yield _of_worker(Event.FAILED, row, at, f"exit code {code}" if code else "")


def _looping(now: datetime) -> Iterator[Standing]:
    found: Any = crash_looping(now)
    starts = dict(found.values_list("worker_id", "starts"))
    minutes = CRASH_LOOP_WINDOW // timedelta(minutes=1)
    for row in Worker.objects.filter(pk__in=list(starts)).order_by().values_list("organization_id", "pk", *WORKER_PATH):
        yield _of_worker(Event.CRASH_LOOP, row, now, f"{starts[row[1]]} starts in {minutes} minutes")
    hosts: Any = on_looping_hosts(now - CRASH_LOOP_WINDOW).values_list("organization_id", "hostname").order_by()
    for organization_id, host, number in hosts.annotate(number=Count("pk")):
        detail = f"{number} starts in {minutes} minutes"
        yield Standing(Event.CRASH_LOOP, organization_id, HOST, host, host, now, detail)


def _duplicates(now: datetime, *, may_be_held: bool) -> Iterator[Standing]:
    """Each worker once, whether an older process lives beside its own or two send the same one's heartbeats."""
    instances = WorkerInstance.objects.order_by()
    beside: Any = instances.duplicates(now, may_be_held=may_be_held)
    doubled: Any = instances.doubled(now, may_be_held=may_be_held)
    rows = [*beside.values_list(*_through("worker"), "started_at")]
    rows += doubled.values_list(*_through("worker"), "doubled_at")
    for *row, at in {row[1]: row for row in rows}.values():
        yield _of_worker(Event.DUPLICATE, row, at)


def _waiting(now: datetime) -> Iterator[Standing]:
    """Where Temporal does not answer any more, what it said last is all that is known."""
    rows = QueueObservation.objects.filter(WAITING_IN_VAIN).order_by()
    for organization_id, pk, *names, backlog, at in rows.values_list(
        "organization_id", "queue_id", *QUEUE_PATH, "backlog", "observed_at"
    ):
        detail, is_fresh = _number(backlog, "task waits", "tasks wait"), at > now - FRESH_FOR
        yield Standing(Event.WAITING, organization_id, QUEUE, str(pk), "/".join(names), at, detail, is_certain=is_fresh)


def _full(now: datetime, *, may_be_held: bool) -> Iterator[Standing]:
    limited = WorkerQueue.objects.filter(max_workers__isnull=False)
    live = limited.annotate(live=live_in_queue(now, may_be_held=may_be_held))
    rows: Any = live.filter(live__gte=F("max_workers")).order_by()
    for organization_id, pk, *names, number, limit in rows.values_list(
        "organization_id", "pk", "environment__name", "name", "live", "max_workers"
    ):
        detail = f"{number:,} of {limit:,} processes"
        yield Standing(Event.FULL, organization_id, QUEUE, str(pk), "/".join(names), now, detail)


def _failing(now: datetime) -> Iterator[Standing]:
    """Connections whose verification failed, and Temporal connections that the sweep has asked in vain for a while."""
    found = {}
    for kind in CONNECTION_KINDS:
        rows = kind._default_manager.exclude(verification_problem="").order_by()
        for row in rows.only("organization", "name", "verification_problem", "verified_at"):
            found[row.pk] = _of_connection(row, row.verified_at or now, row.verification_problem)
    silent = Q(observed_at=None) | Q(observed_at__lt=now - FRESH_FOR)
    asked = (
        QueueObservation.objects.exclude(problem="")
        .filter(silent)
        .annotate(asked=winning("temporal_connection", LEVELS))
    )
    told = asked.filter(asked__isnull=False).order_by().values_list("asked")
    problems = {pk: rest for pk, *rest in told.annotate(problem=Max("problem"), at=Min("observed_at"))}
    for pk, row in TemporalConnection.objects.only("organization", "name").in_bulk(list(problems)).items():
        problem, at = problems[pk]
        found.setdefault(pk, _of_connection(row, at or now, problem))
    yield from found.values()


def _of_connection(row: Any, since_at: datetime, detail: str) -> Standing:
    kind = audit.kind_of(row)
    return Standing(Event.FAILING, row.organization_id, kind, str(row.pk), row.name, since_at, detail)


def _expiring(now: datetime) -> Iterator[Standing]:
    """What has expired stays as it was told last."""
    soon = now + timedelta(days=max(TOLD_DAYS))
    keys = to_be_warned_of(ApiKey.objects.filter(expires_at__lte=soon), now).order_by()
    for key in keys.only("organization", "name", "expires_at"):
        at: Any = key.expires_at  # which the filter has seen to
        left = min(days for days in TOLD_DAYS if at <= now + timedelta(days=days))
        yield _of_secret(key, at.astimezone(UTC).date(), left, now)
    for kind in CREDENTIAL_KINDS:
        for row in kind._default_manager.filter(api_key_expires_on__lte=soon.date()).order_by():
            day = row.api_key_expires_on
            left = min(days for days in TOLD_DAYS if day <= now.date() + timedelta(days=days))
            yield _of_secret(row, day, left, now)


def _of_secret(row: Any, day: date, left: int, now: datetime) -> Standing:
    kind = audit.kind_of(row)
    return Standing(
        Event.EXPIRING, row.organization_id, kind, str(row.pk), row.name, now, f"on {day.isoformat()}", mark=str(left)
    )


def _refused(now: datetime) -> Iterator[Standing]:
    rows = list(refused_starts(now - REFUSED_FOR))
    workers = _names_of({row.worker_id for row in rows if row.worker_id})
    for row in rows:
        if row.worker_id is None:
            host = row.hostname or row.client_address or "unknown"
            yield Standing(Event.REFUSED, row.organization_id, HOST, str(row.pk), host, row.first_at, row.reason)
        elif row.worker_id in workers:
            yield _of_worker(Event.REFUSED, workers[row.worker_id], row.first_at, row.reason)


def _names_of(ids: Iterable[UUID]) -> dict[UUID, Any]:
    rows = Worker.objects.filter(pk__in=list(ids)).order_by().values_list("organization_id", "pk", *WORKER_PATH)
    return {row[1]: row for row in rows}


def _outdated(now: datetime, *, may_be_held: bool) -> Iterator[Standing]:
    workers = Worker.objects.with_liveness(now, may_be_held=may_be_held).order_by()
    found = outdated(workers, EVERYWHERE, now, may_be_held=may_be_held)
    for row in found.values_list("organization_id", "pk", *WORKER_PATH):
        yield _of_worker(Event.OUTDATED, row, now)


def _away(now: datetime) -> Iterator[Standing]:
    """Every organization is told; one outage after the other is news again."""
    latest = Outage.objects.filter(recovered_at__gt=now - AWAY_FOR).first()
    if latest is None:
        return
    lost_at, recovered_at = (at.astimezone(UTC) for at in (latest.lost_at, latest.recovered_at))
    detail = f"from {lost_at:%Y-%m-%d %H:%M:%S} to {recovered_at:%Y-%m-%d %H:%M:%S} UTC"
    for pk in Organization.objects.order_by().values_list("pk", flat=True):
        yield Standing(Event.AWAY, pk, ORGANIZATION, pk, pk, lost_at, detail, mark=f"{lost_at:%Y-%m-%dT%H:%M:%S}")


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
