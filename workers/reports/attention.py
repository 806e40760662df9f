"""Which workers need somebody's attention, and why: rules that lists and the dashboard share."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import (
    CharField,
    Count,
    DateTimeField,
    Exists,
    F,
    OuterRef,
    Q,
    QuerySet,
    UUIDField,
    Value,
)
from django.db.models.functions import Cast, Concat

from environments.database.statements import Parameter, kept
from environments.models.connections import CONNECTION_POINTERS
from environments.roles import Staff
from workers.configuration.effective import is_outdated
from workers.configuration.revisions import GROUP, Group, queues_of, revisions_in
from workers.models import LIVE, RefusedStart, Worker, WorkerInstance, WorkerQueue, WorkerStart
from workers.models.instances import InstanceQuerySet

#: A worker that starts so often within so long is in a crash loop.
CRASH_LOOP_STARTS = 3
CRASH_LOOP_WINDOW = timedelta(minutes=10)


NOW = Parameter("now", DateTimeField())
#: What a statement calls the connections that workers point to themselves.
OWN = ("own_temporal", "own_litellm", "own_telemetry")
#: Processes of workers that point to any.
HAS_OWN = Q(*((f"worker__{name}__isnull", False) for name in CONNECTION_POINTERS), _connector=Q.OR)


class Running(NamedTuple):
    """Workers of one group whose processes are in the same state and run with the same revision."""

    group: Group
    liveness: str
    revision: str
    workers: int


def running(staff: Staff, now: datetime, *, may_be_held: bool = True) -> list[Running]:
    """The current processes within the person's organizations, counted by group, liveness and their revision.

    One statement, which joins no worker but the few that point to connections themselves: first all are counted in the
    group of their queue, then those few in their own, and taken off their queue's. `may_be_held` as for `liveness_of`.
    """
    counts = Counter[tuple[Group, str, str]]()
    for queue_id, *own, liveness, revision, count in _running(staff, may_be_held=may_be_held)(now=now):
        group = Group(queue_id, *own)
        counts[group, liveness, revision] += count
        if any(own):
            counts[Group(queue_id), liveness, revision] -= count
    return [Running(*state, count) for state, count in counts.items() if count]


@kept
def _running(staff: Staff, *, may_be_held: bool) -> QuerySet[WorkerInstance, Any]:
    instances = WorkerInstance.objects.current(NOW, may_be_held=may_be_held)
    current = staff.within(instances.order_by(), "organization")
    none = _counted(current, *(Cast(Value(None), UUIDField()) for _ in OWN))
    some = _counted(current.filter(HAS_OWN), *(F(f"worker__{name}") for name in GROUP[1:]))
    return none.union(some, all=True).order_by()


def _counted(instances: InstanceQuerySet, *own: Any) -> QuerySet[WorkerInstance, Any]:
    """Counted by queue, own connections, liveness and revision."""
    named = instances.annotate(**dict(zip(OWN, own, strict=True)))
    return named.values_list("queue_id", *OWN, "liveness", "configuration_revision").annotate(count=Count("*"))


def live_among(found: Iterable[Running]) -> list[Running]:
    """Those whose processes run as far as is known."""
    return [each for each in found if each.liveness in LIVE]


def stale(live: Iterable[Running], queues: Mapping[UUID, WorkerQueue]) -> list[Running]:
    """Those that run with another revision than a start would be given now; of older starts none is known.

    Not those that could not start again: what they run with is all that they have.
    """
    known = [each for each in live if each.revision]
    revisions = revisions_in(queues, (each.group for each in known))
    return [each for each in known if is_outdated(each.revision, revisions[each.group])]


def outdated(workers: QuerySet[Worker], staff: Staff, now: datetime, *, may_be_held: bool = True) -> QuerySet[Worker]:
    """Those of workers `with_liveness` that live with an older revision; a few statements for any number of workers.

    They are workers within the person's organizations; `may_be_held` as for `liveness_of`.
    """
    live = live_among(running(staff, now, may_be_held=may_be_held))
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
    return crash_looping_since(now - CRASH_LOOP_WINDOW)


def crash_looping_since(moment: datetime | Value) -> QuerySet[WorkerStart, Any]:
    """The same, `moment` being when the time began in which they did."""
    lately = WorkerStart.objects.filter(started_at__gt=moment).order_by()
    return lately.values("worker_id").annotate(starts=Count("pk")).filter(starts__gte=CRASH_LOOP_STARTS)


#: What tells a host from those of other organizations that have the same name.
HOST = Concat("organization_id", Value("/"), "hostname", output_field=CharField())


def on_looping_hosts(moment: datetime | Value) -> QuerySet[WorkerInstance, Any]:
    """The processes that began since on hosts where starts in queues crash, each annotated with its `host`.

    Each such start makes a worker of its own, so that no worker is in a crash loop. What tells a loop from many workers
    that begin at once is that all but the last have ended.
    """
    begun = WorkerInstance.objects.filter(started_at__gt=moment, worker__is_ephemeral=True).exclude(hostname="")
    lately = begun.order_by().annotate(host=HOST)
    hosts = lately.values("host").annotate(starts=Count("pk"), ended=Count("stopped_at"))
    looping = hosts.filter(starts__gte=CRASH_LOOP_STARTS, ended__gte=CRASH_LOOP_STARTS - 1)
    return lately.filter(host__in=looping.values("host"))


def refused_starts(moment: datetime | Value) -> QuerySet[RefusedStart, Any]:
    """Of workers and hosts whose latest start was refused after this moment; a host's key has started nothing since."""
    lately = RefusedStart.objects.filter(occurred_at__gt=moment).order_by()
    worker = Worker.objects.filter(pk=OuterRef("worker_id"), organization=OuterRef("organization"))
    newer = WorkerInstance.objects.filter(
        worker=OuterRef("worker_id"), is_current=True, started_at__gt=OuterRef("occurred_at")
    )
    answered = WorkerStart.objects.filter(api_key=OuterRef("api_key"), started_at__gt=OuterRef("occurred_at"))
    is_worker = Q(worker_id__isnull=False) & Exists(worker) & ~Exists(newer)
    return lately.filter(is_worker | Q(worker_id=None) & ~Exists(answered.order_by()))
