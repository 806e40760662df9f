"""What a reader is told of queues, environments and workers, counted by the same liveness that the console shows."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, DateTimeField, F, Max, Q, Sum, UUIDField, Value

from environments import audit
from environments.audit import Provenance
from environments.database.expressions import Among, ListOf
from environments.database.statements import Parameter, Rows, kept
from environments.models import Environment
from environments.models.connections import CONNECTION_POINTERS
from workers.configuration.effective import revision_of_queue
from workers.models import (
    LIVE,
    Activity,
    InstanceReport,
    Liveness,
    QueueObservation,
    Worker,
    WorkerInstance,
    WorkerQueue,
    WorkerStart,
)
from workers.models.instances import InstanceQuerySet
from workers.reports.attention import NOW
from workers.reports.observed import fresh_observation_of

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Counts:
    """Live processes, and of these the idle and the busy ones."""

    active: int = 0
    idle: int = 0
    busy: int = 0


@dataclass(frozen=True)
class Described[Row: (WorkerQueue, Environment)]:
    """A queue or an environment with its processes and its history."""

    row: Row
    counts: Counts
    provenance: Provenance


@dataclass(frozen=True)
class QueueMetrics:
    """The figures of one queue."""

    queue: WorkerQueue
    counts: Counts
    total_workers: int
    tasks_processed_24h: int
    last_error_at: datetime | None
    last_activity_at: datetime | None
    updated_at: datetime
    #: What Temporal was seen to know, while that is fresh.
    observation: QueueObservation | None = None


@dataclass(frozen=True)
class QueueConfiguration:
    """What the workers of one queue are given, by version."""

    queue: WorkerQueue
    config_version: str
    config_updated_at: datetime


def describe_queues(queues: Iterable[WorkerQueue], now: datetime) -> list[Described[WorkerQueue]]:
    """The queues as they are now, in their order; they have to be loaded with their environment."""
    rows = list(queues)
    for row in rows:
        row.forget_ended(now)
    return _describe(rows, "worker__queue", now)


def describe_environments(environments: Iterable[Environment], now: datetime) -> list[Described[Environment]]:
    """The environments in their order."""
    return _describe(list(environments), "worker__queue__environment", now)


def instances_of(now: datetime, **within: Any) -> InstanceQuerySet:
    """The current process of each worker that ever started, and others that still live; heard of last comes first.

    `within` are lookups that choose among them, such as those of a queue or of a worker.
    """
    shown = WorkerInstance.objects.current_or_live(now, **within)
    return shown.select_related("report").order_by("-last_heartbeat_at", "id")


def live_instances_of(queue: WorkerQueue, now: datetime) -> InstanceQuerySet:
    """The processes that live; heard of last comes first."""
    live = WorkerInstance.objects.live(now).filter(worker__queue=queue)
    return live.select_related("report").order_by("-last_heartbeat_at", "id")


def with_reports(instances: list[WorkerInstance]) -> list[WorkerInstance]:
    """Each with its `report`; until one tells of its machine, what the start told of that."""
    for instance in instances:
        if not hasattr(instance, "report"):
            instance.report = InstanceReport(reported_at=instance.started_at)
    untold = [instance for instance in instances if not instance.report.system_info]
    told = dict(_TOLD_AT_START(ids=[instance.pk for instance in untold])) if untold else {}
    for instance in untold:
        if instance.pk in told:
            instance.report.system_info = told[instance.pk]
    return instances


def measure_queue(queue: WorkerQueue, now: datetime) -> QueueMetrics:
    """The queue's figures; tasks are counted for processes heard of within 24 hours, over their whole life.

    Looked at are each worker's current process and those that were heard of or ended within 24 hours, which indexes
    find: so an error of a process that another one followed is told for a day.
    """
    figures = _FIGURES(queue=queue.pk, since=now - DAY)
    tasks, last_error_at, last_activity_at = zip(*figures, strict=True)
    ((total_workers,),) = _WORKERS(queue=queue.pk)
    return QueueMetrics(
        queue=queue,
        counts=_counts("worker__queue", [queue.pk], now).get(queue.pk, Counts()),
        total_workers=total_workers,
        tasks_processed_24h=sum(filter(None, tasks)),
        last_error_at=max(filter(None, last_error_at), default=None),
        last_activity_at=max(filter(None, last_activity_at), default=None),
        updated_at=now,
        observation=fresh_observation_of(queue, now),
    )


def configuration_of(queue: WorkerQueue) -> QueueConfiguration:
    """The version of what a worker of the queue would be given; the queue has to be loaded with its chain."""
    levels = (queue, queue.environment, queue.organization)
    pointers = [f"{pointer}_id" for pointer in CONNECTION_POINTERS]
    ids = {level.pk for level in levels} | {getattr(level, name) for level in levels for name in pointers}
    history = audit.provenance_of({identifier for identifier in ids if identifier}, queue.organization_id)
    changed_at = [found.updated_at for found in history.values()]
    return QueueConfiguration(queue, revision_of_queue(queue), max([queue.created_at, *changed_at]))


def status_of(instance: WorkerInstance) -> str:
    """An instance's state in the words of existing clients; it has to be loaded with its liveness."""
    if instance.liveness == Liveness.STOPPED:
        return "disconnected"
    if instance.liveness not in LIVE:
        return "offline"
    return str(instance.activity if instance.activity in Activity.values else Activity.ACTIVE)


def _describe[Row: (WorkerQueue, Environment)](rows: list[Row], path: str, now: datetime) -> list[Described[Row]]:
    """Of rows of one organization."""
    if not rows:
        return []
    ids = [row.pk for row in rows]
    counts, history = _counts(path, ids, now), audit.provenance_of(ids, rows[0].organization_id)
    return [
        Described(row, counts.get(row.pk, Counts()), history.get(str(row.pk), Provenance(None, row.created_at)))
        for row in rows
    ]


def _counts(path: str, ids: Collection[UUID], now: datetime) -> dict[UUID, Counts]:
    """Counts of the live instances, by the id that the lookup leads to; one statement."""
    return {identifier: Counts(*counts) for identifier, *counts in _counted(path)(ids=ids, now=now)}


# --- Statements, which are made once ---

_QUEUE = Parameter("queue", UUIDField())
_SINCE = Parameter("since", DateTimeField())
_IDS = Parameter("ids", ListOf(UUIDField()))


@kept
def _counted(path: str) -> Any:
    live = WorkerInstance.objects.live(NOW).filter(Among(F(path), _IDS))
    return (
        live.order_by()
        .values_list(path)
        .annotate(
            active=Count("pk"),
            idle=Count("pk", filter=Q(activity=Activity.IDLE)),
            busy=Count("pk", filter=Q(activity=Activity.BUSY)),
        )
    )


def _figures() -> Any:
    """Of the current processes, of older ones that were heard of since, and of those that have ended since."""
    instances = WorkerInstance.objects.filter(worker__queue=_QUEUE).order_by()
    older = instances.filter(is_current=False)
    parts = [
        _figures_of(instances.filter(is_current=True)),
        _figures_of(older.filter(stopped_at=None, older_heartbeat_at__gt=_SINCE)),
        _figures_of(older.filter(stopped_at__gt=_SINCE)),
    ]
    return parts[0].union(*parts[1:], all=True).order_by()


def _figures_of(instances: InstanceQuerySet) -> Any:
    failed = ~Q(error_message="") | (Q(exit_code__isnull=False) & ~Q(exit_code=0))
    figures = {
        "tasks": Sum("tasks_processed", filter=Q(last_heartbeat_at__gt=_SINCE)),
        "last_error_at": Max("stopped_at", filter=failed & Q(stopped_at__isnull=False)),
        "last_activity_at": Max("last_heartbeat_at"),
    }
    return _whole(instances).annotate(**figures).values_list(*figures)


def _whole(rows: Any) -> Any:
    """All rows as one group."""
    return rows.annotate(whole=Value(1)).values("whole")


_FIGURES = Rows(_figures)
_WORKERS = Rows(
    lambda: _whole(Worker.objects.filter(queue=_QUEUE).order_by()).annotate(count=Count("pk")).values_list("count")
)
_TOLD_AT_START = Rows(
    lambda: WorkerStart.objects.filter(Among(F("pk"), _IDS)).order_by().values_list("pk", "system_info")
)
