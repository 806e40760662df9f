"""Worker instances: the processes of workers."""

from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q

from environments.tenancy import TenantOwned, same_organization
from workers.models.liveness import (
    LATE_AFTER_INTERVALS,
    OFFLINE_AFTER_AT_LEAST,
    OFFLINE_AFTER_INTERVALS,
    Liveness,
)
from workers.models.workers import Worker


class WorkerInstance(TenantOwned):
    """One process of a worker: narrow, and all that a heartbeat writes. Its id is that of the start it began with."""

    id = models.UUIDField("ID", primary_key=True, editable=False)
    worker = models.ForeignKey(Worker, on_delete=models.CASCADE, related_name="instances")
    is_current = models.BooleanField(default=True)
    started_at = models.DateTimeField()
    last_heartbeat_at = models.DateTimeField(help_text="The start counts as the first.")
    stopped_at = models.DateTimeField(null=True)
    stop_reason = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["-started_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["worker"], condition=Q(is_current=True), name="workers_workerinstance_one_current"
            ),
            *same_organization("worker"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    def liveness(self, *, heartbeat_interval: int, now: datetime) -> Liveness:
        """Liveness of this process; `heartbeat_interval` in seconds, the queue's."""
        if self.stopped_at is not None:
            return Liveness.STOPPED
        silence = now - self.last_heartbeat_at
        interval = timedelta(seconds=heartbeat_interval)
        if silence > max(interval * OFFLINE_AFTER_INTERVALS, OFFLINE_AFTER_AT_LEAST):
            return Liveness.OFFLINE
        return Liveness.LATE if silence > interval * LATE_AFTER_INTERVALS else Liveness.ONLINE
