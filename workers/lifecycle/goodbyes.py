"""How a worker's process ends: it says goodbye, with a reason."""

from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from django.db.models import Q

from workers.api_keys.access import reach
from workers.lifecycle.process import CANDIDATES, Client, Process, instances_of, newest
from workers.models import LIVE, ApiKey, Worker, WorkerInstance
from workers.models.instances import ERROR_MESSAGE_LENGTH, STOP_REASON_LENGTH, SUPERSEDED
from workers.models.liveness import offline_after


@dataclass(frozen=True)
class Goodbye:
    """Why a process ends."""

    reason: str = "shutdown"
    exit_code: int | None = None
    error_message: str = ""
    #: Beyond what existing clients send: with `hostname` and `pid` a goodbye names its process.
    system_info: dict[str, Any] = field(default_factory=dict)

    def as_stored(self, *, is_superseded: bool) -> dict[str, Any]:
        """The fields of the instance; one that was superseded stays known as that."""
        return {
            "stop_reason": (f"{SUPERSEDED}, {self.reason}" if is_superseded else self.reason)[:STOP_REASON_LENGTH],
            "exit_code": self.exit_code,
            "error_message": self.error_message[:ERROR_MESSAGE_LENGTH],
        }


def disconnect_worker(worker_id: UUID, goodbye: Goodbye, *, api_key: ApiKey, client: Client, now: datetime) -> None:
    """Ends the worker's process at once, with its reason; nothing happens when it has ended before.

    A goodbye of existing clients names no process. While two at one address are live it is taken for the older one's: a
    mistake then mends itself by silence, where a process that runs on would be shown Stopped for good.
    """
    worker = reach(Worker.objects.select_related("queue"), worker_id, api_key)
    farewell = _Farewell(worker, goodbye, Process.of(goodbye.system_info, client), now)
    instance = farewell.named or (None if farewell.is_repeated else farewell.leaver)
    if instance is None or (instance.stopped_at and not _is_told_to_end(instance)):
        return
    WorkerInstance.objects.filter(pk=instance.pk, stop_reason=instance.stop_reason).update(
        stopped_at=instance.stopped_at or now, **goodbye.as_stored(is_superseded=instance.is_superseded)
    )


def _is_told_to_end(instance: WorkerInstance) -> bool:
    """Whether another process took over from it, and it has not said goodbye since."""
    return instance.is_superseded and instance.stop_reason == SUPERSEDED


@dataclass(frozen=True)
class _Farewell:
    """A goodbye and the processes that it may come from."""

    worker: Worker
    goodbye: Goodbye
    process: Process
    now: datetime

    @property
    def named(self) -> WorkerInstance | None:
        """The instance that the goodbye names, running or not."""
        instances = chain(newest(self.worker.instances.all()), instances_of(self.process, self.worker.pk))
        return next((instance for instance in instances if self.process.is_certainly(instance)), None)

    @property
    def is_repeated(self) -> bool:
        """Whether an older process said just this while the current one was running: its answer was lost."""
        current = self.worker.instances.filter(is_current=True, stopped_at=None).first()
        if current is None:
            return False
        said = Q(**self.goodbye.as_stored(is_superseded=False)) | Q(**self.goodbye.as_stored(is_superseded=True))
        since = max(current.started_at, self._lately)
        older = self.worker.instances.filter(said, is_current=False, stopped_at__gte=since)
        return any(self.process.may_be(instance) for instance in older[:CANDIDATES])

    @property
    def leaver(self) -> WorkerInstance | None:
        """Of those that may say goodbye the oldest that is live or was told to end, else the current one."""
        told_to_end = Q(is_superseded=True, stop_reason=SUPERSEDED, stopped_at__gt=self._lately)
        instances = self.worker.instances.filter(Q(stopped_at=None) | told_to_end).with_liveness(self.now)
        running = list(newest(instances))
        senders = [instance for instance in running if self.process.may_be(instance)]
        senders = senders or [
            instance for instance in running if instance.is_current and not self.process.is_another_than(instance)
        ]
        expected = [instance for instance in senders if instance.stopped_at or instance.liveness in LIVE]
        return next(iter(expected[-1:] or senders), None)

    @property
    def _lately(self) -> datetime:
        return self.now - offline_after(self.worker.queue.heartbeat_interval)
