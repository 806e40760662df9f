"""Temporal's task queues with the processes that poll them, as far as the control plane knows."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count

from workers.models import QueueObservation, WorkerInstance, WorkerQueue
from workers.models.observations import fresh_queues

#: Of all live processes of the queues that are told of in one answer: the ones heard of last.
MOST_PROCESSES = 5_000


@dataclass(frozen=True)
class TaskQueue:
    """A queue and its live processes; of very many not all are listed, but all are counted."""

    queue: WorkerQueue
    workers: list[dict[str, Any]]
    worker_count: int
    #: How many tasks wait, if Temporal was seen to tell it lately.
    approximate_backlog_count: int | None = None

    @property
    def runner_name(self) -> str:
        """What existing clients call it by."""
        return f"{self.queue.environment.name}.{self.queue.name}"


def describe_task_queues(queues: Sequence[WorkerQueue], now: datetime) -> list[TaskQueue]:
    """The queues in their order; they have to be loaded with their environment. Three statements."""
    if not queues:
        return []
    live = WorkerInstance.objects.live(now).filter(worker__queue__in=[queue.pk for queue in queues])
    counts = Counter(dict(live.order_by().values_list("worker__queue").annotate(count=Count("pk"))))
    listed: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    columns = ("worker__queue", "worker__name", "hostname", "pid", "last_heartbeat_at")
    latest = live.order_by("-last_heartbeat_at", "pk").values_list(*columns)[:MOST_PROCESSES]
    for queue_id, name, hostname, pid, heard_at in latest:
        identity = f"{'' if pid is None else pid}@{hostname or name}"
        listed[queue_id].append({"identity": identity, "last_access_time": heard_at})
    seen = QueueObservation.objects.filter(fresh_queues(now), queue__in=[queue.pk for queue in queues]).order_by()
    backlogs = dict(seen.values_list("queue", "backlog"))
    return [TaskQueue(queue, listed[queue.pk], counts[queue.pk], backlogs.get(queue.pk)) for queue in queues]
