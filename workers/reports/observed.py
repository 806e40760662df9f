"""What Temporal was seen to know, joined with what workers tell: for lists, the dashboard and monitoring."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import DateTimeField, Q, QuerySet, UUIDField, Value

from environments.database.statements import Parameter, Select
from workers.models import QueueObservation, Work, WorkerInstance, WorkerQueue
from workers.models.instances import InstanceQuerySet
from workers.models.observations import HAS_STRANGERS, WAITING_IN_VAIN, fresh_queues
from workers.models.work import with_work

#: What is amiss with a process.
AMISS = (Work.NOT_POLLING, Work.CUT_OFF)


def amiss(now: datetime | Value, *works: Work, may_be_held: bool = True) -> InstanceQuerySet:
    """Current processes of which polling and heartbeats do not go together, with their `work`.

    They are looked for among the few that stood out when Temporal was asked; `may_be_held` as for `liveness_of`.
    """
    current = WorkerInstance.objects.current(now, may_be_held=may_be_held).filter(observation__is_conspicuous=True)
    return with_work(current, now).filter(Q(work__in=works or AMISS))


def waiting_in_vain(now: datetime | Value) -> QuerySet[QueueObservation]:
    """What was seen of queues in which tasks wait and nobody polls."""
    return QueueObservation.objects.filter(fresh_queues(now), WAITING_IN_VAIN)


def polled_by_strangers(now: datetime | Value) -> QuerySet[QueueObservation]:
    """What was seen of queues that processes poll which are no worker's here."""
    return QueueObservation.objects.filter(fresh_queues(now), HAS_STRANGERS)


def fresh_observation_of(queue: WorkerQueue, now: datetime) -> QueueObservation | None:
    """What was seen of the queue, while it still says something."""
    return _FRESH.first(queue=queue.pk, now=now)


def works_of(workers: Collection[UUID], now: datetime, *, may_be_held: bool = True) -> dict[UUID, str]:
    """What the current processes of some workers do; one statement."""
    current = WorkerInstance.objects.current(now, may_be_held=may_be_held).filter(worker__in=workers)
    rows: Any = with_work(current, now).order_by()
    return dict(rows.values_list("worker_id", "work"))


_FRESH = Select(
    lambda: QueueObservation.objects.filter(
        fresh_queues(Parameter("now", DateTimeField())), queue=Parameter("queue", UUIDField())
    ).order_by()
)
