"""Takes old starts off the ledger, with the processes that they began and that have ended.

What a reader still needs stays, however old it is: the start of each worker's current process, which says what that
was given, and of any other process that was heard of since. So each worker that is there keeps its last start.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from environments import audit
from environments.audit import Actor
from environments.models import Organization
from workers.models import LIVE, WorkerInstance, WorkerStart
from workers.models.instances import InstanceQuerySet

#: Starts looked at in one transaction: few enough that it takes a fraction of a second, on SQLite too, where every
#: start has to wait for it.
BATCH = 1_000


class Batch(NamedTuple):
    """How many starts of a batch were looked at, and how many of these are removed."""

    seen: int
    removed: int


@dataclass(frozen=True)
class Place:
    """A place in the ledger: its order is that of time, then of the id."""

    started_at: datetime
    id: UUID


def old_starts(before: datetime) -> QuerySet[WorkerStart]:
    """The starts before a time."""
    return WorkerStart.objects.filter(started_at__lt=before)


def count_kept(before: datetime, now: datetime) -> int:
    """How many of the starts before a time stay."""
    began = WorkerInstance.objects.filter(started_at__lt=before)
    return began.count() - _ended(began, before, now).count()


def prune_starts(*, before: datetime, actor: Actor, now: datetime) -> Iterator[Batch]:
    """Removes starts from the oldest on, batch by batch; each is committed by itself.

    A start only adds to the ledger, so it waits for nothing, and a process that it has locked is left for the next run;
    but one that takes over from processes which a batch removes waits for that one batch. After each batch there is a
    pause as long as it took, so that on SQLite whoever waits to write has its turn.
    """
    told: set[str] = set()
    place: Place | None = None
    while rows := _next_rows(before, place):
        began = time.monotonic()
        removed = _remove(rows, told, before=before, actor=actor, now=now)
        took = time.monotonic() - began
        yield Batch(len(rows), removed)
        place = Place(rows[-1].started_at, rows[-1].pk)
        time.sleep(took)


def _next_rows(before: datetime, place: Place | None) -> list[WorkerStart]:
    rows = old_starts(before).order_by("started_at", "pk").only("organization_id", "started_at")
    if place:
        same = Q(started_at=place.started_at, pk__gt=place.id)
        # Said twice, since databases find their way by the first; it also spares them what was removed before.
        rows = rows.filter(same | Q(started_at__gt=place.started_at), started_at__gte=place.started_at)
    return list(rows[:BATCH])


@transaction.atomic
def _remove(rows: list[WorkerStart], told: set[str], *, before: datetime, actor: Actor, now: datetime) -> int:
    processes = WorkerInstance.objects.filter(pk__in=[row.pk for row in rows])
    ended = _ended(processes, before, now).select_for_update(of=("self",), skip_locked=True)
    removed_processes = set(ended.values_list("pk", flat=True))
    kept = set(processes.values_list("pk", flat=True)) - removed_processes
    removed = [row for row in rows if row.pk not in kept]
    WorkerInstance.objects.filter(pk__in=removed_processes).delete()
    WorkerStart.objects.filter(pk__in=[row.pk for row in removed]).delete()
    _tell({row.organization_id for row in removed} - told, before=before, actor=actor, now=now)
    told |= {row.organization_id for row in removed}
    return len(removed)


def _ended(processes: InstanceQuerySet, before: datetime, now: datetime) -> InstanceQuerySet:
    """Those of which nothing was heard since, and which are no worker's current one."""
    silent = processes.filter(is_current=False, last_heartbeat_at__lt=before)
    return silent.with_liveness(now).exclude(Q(liveness__in=LIVE)).order_by()


def _tell(organization_ids: set[str], *, before: datetime, actor: Actor, now: datetime) -> None:
    """Once for each organization, so that its trail says since when its ledger is complete."""
    changes = {"starts_before": [None, before.isoformat()]}
    organizations = Organization.objects.filter(pk__in=organization_ids).order_by("pk")
    subjects = [(organization, changes) for organization in organizations]
    audit.record_many("organization.starts_pruned", subjects, actor=actor, now=now)
