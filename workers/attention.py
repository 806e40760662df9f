"""Which workers need somebody's attention, and why: rules that lists and the dashboard share."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet

from workers.models import LIVE, Worker, WorkerQueue, WorkerStart
from workers.revisions import GROUP, Group, queues_of, revisions_in

#: A worker that starts so often within so long is in a crash loop.
CRASH_LOOP_STARTS = 3
CRASH_LOOP_WINDOW = timedelta(minutes=10)


class Running(NamedTuple):
    """Workers of one group whose processes are in the same state and run with the same revision."""

    group: Group
    liveness: str
    revision: str
    workers: int


def running(workers: QuerySet[Worker]) -> list[Running]:
    """All the workers, loaded `with_liveness`, counted by group, liveness and the revision they run with."""
    keys = (*GROUP, "liveness", "current__configuration_revision")
    rows = workers.order_by().values_list(*keys).annotate(count=Count("*"))
    size = len(GROUP)
    return [Running(Group(*row[:size]), row[size], row[size + 1] or "", row[size + 2]) for row in rows]


def live_among(found: Iterable[Running]) -> list[Running]:
    """Those whose processes run as far as is known."""
    return [each for each in found if each.liveness in LIVE]


def stale(live: Iterable[Running], queues: Mapping[UUID, WorkerQueue]) -> list[Running]:
    """Those that run with another revision than a start would be given now; of older starts none is known."""
    known = [each for each in live if each.revision]
    revisions = revisions_in(queues, (each.group for each in known))
    return [each for each in known if each.revision != revisions[each.group]]


def outdated(workers: QuerySet[Worker]) -> QuerySet[Worker]:
    """Those of workers `with_liveness` that live with an older revision; a few statements for any number of workers."""
    live = live_among(running(workers))
    old = stale(live, queues_of(each.group for each in live))
    up_to_date = {each.revision for each in set(live).difference(old)}
    condition = Q(runs_with__in={each.revision for each in old} - up_to_date)
    for each in old:
        if each.revision in up_to_date:  # what some others are given now
            pointers: dict[str, Any] = each.group._asdict()
            condition |= Q(runs_with=each.revision, **pointers)
    # Through the annotation the filter looks at the process that `liveness` has joined already.
    return workers.annotate(runs_with=F("current__configuration_revision")).filter(condition, Q(liveness__in=LIVE))


def crash_looping(now: datetime) -> QuerySet[WorkerStart, Any]:
    """The ids of workers that started too often lately."""
    lately = WorkerStart.objects.filter(started_at__gt=now - CRASH_LOOP_WINDOW).order_by()
    return lately.values("worker_id").annotate(starts=Count("pk")).filter(starts__gte=CRASH_LOOP_STARTS)
