"""What a change does to the fleet: which workers would be given another configuration, told before it is made."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from workers.models import Worker, WorkerInstance, WorkerQueue
from workers.revisions import Given, given_to


@dataclass(frozen=True)
class QueueImpact:
    """Workers of one queue that go from one configuration revision to another."""

    queue: str
    queue_id: UUID
    old_revision: str
    new_revision: str
    workers: int
    online: int

    def as_json(self) -> dict[str, Any]:
        """The impact as JSON shows it."""
        return asdict(self) | {"queue_id": str(self.queue_id)}

    def __str__(self) -> str:
        """One line for a person."""
        workers = f"{self.workers} worker{'' if self.workers == 1 else 's'}"
        revisions = f"{self.old_revision} -> {self.new_revision}"
        return f"queue {self.queue}: {workers}, {self.online} online, would get another configuration ({revisions})"


def look(organizations: Collection[str]) -> dict[UUID, Given]:
    """What every worker of the organizations is given at this moment."""
    return given_to(Worker.objects.filter(organization__in=organizations))


def compare(before: Mapping[UUID, Given], after: Mapping[UUID, Given], *, now: datetime) -> list[QueueImpact]:
    """How two looks differ, by queue; workers that came or went between them are not affected."""
    changed = {
        worker_id: (given.queue_id, before[worker_id].revision, given.revision)
        for worker_id, given in after.items()
        if worker_id in before and before[worker_id].revision != given.revision
    }
    if not changed:
        return []
    workers = Counter(changed.values())
    online = Counter(changed[worker_id] for worker_id in _live(changed, now) if worker_id in changed)
    queues = WorkerQueue.objects.select_related("environment").in_bulk({queue_id for queue_id, _, _ in workers})
    found = [
        QueueImpact(queues[queue_id].task_queue_name, queue_id, old, new, count, online[queue_id, old, new])
        for (queue_id, old, new), count in workers.items()
    ]
    return sorted(found, key=lambda impact: (impact.queue, impact.old_revision, impact.new_revision))


def _live(changed: Mapping[UUID, tuple[UUID, str, str]], now: datetime) -> Collection[UUID]:
    queues = {queue_id for queue_id, _, _ in changed.values()}
    live = WorkerInstance.objects.live(now).filter(worker__queue__in=queues).order_by()
    return set(live.values_list("worker_id", flat=True))
