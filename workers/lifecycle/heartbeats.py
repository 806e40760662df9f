"""What a running worker tells: that it lives and what it does."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import Q

from workers.access import UnknownObjectError, name_within, reach
from workers.lifecycle.process import CANDIDATES, Client, Process
from workers.models import Activity, ApiKey, InstanceReport, Worker, WorkerInstance
from workers.models.instances import LOG_LINES, SUPERSEDED, TASK_ID_LENGTH

#: A line beyond this is cut: a report stays a page that a person can load.
LOG_LINE_LENGTH = 1_000


class HeartbeatRefusedError(Exception):
    """The process is to end, or was never started here; the message says why."""


@dataclass(frozen=True)
class Heartbeat:
    """What a heartbeat tells; a light one has no `system_info` and no `logs`, which are then kept as they are."""

    activity: str = Activity.ACTIVE
    tasks_processed: int = 0
    current_task_id: str = ""
    worker_metadata: dict[str, Any] = field(default_factory=dict)
    system_info: dict[str, Any] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)


def record_heartbeat(  # noqa: PLR0913  # a heartbeat comes with these; each is named at the call
    worker_id: UUID,
    heartbeat: Heartbeat,
    *,
    api_key: ApiKey,
    client: Client,
    now: datetime,
    environment_name: str = "",
) -> None:
    """Notes that the worker's process lives: one statement on its instance, unless something is unusual.

    A worker that names its environment is known only there.

    HeartbeatRefusedError when a person disabled the worker or its queue, or when another process took over; the
    heartbeat of a disabled worker is noted all the same, since its process does run.
    """
    process = Process.of(heartbeat.system_info, client)
    values = {
        "last_heartbeat_at": now,
        "activity": heartbeat.activity,
        "tasks_processed": heartbeat.tasks_processed,
        "current_task_id": heartbeat.current_task_id[:TASK_ID_LENGTH],
        "api_key_id": api_key.pk,
    }
    enabled = Worker.objects.covered_by(api_key).filter(is_disabled=False, queue__is_disabled=False)
    if environment_name:
        enabled = enabled.filter(queue__environment__name=name_within(environment_name, api_key))
    current = WorkerInstance.objects.filter(
        Q(is_contested=False) | process.as_query, worker=worker_id, is_current=True, stopped_at=None, worker__in=enabled
    )
    speakers = WorkerInstance.objects.filter(worker=worker_id, is_current=True)
    if not current.update(**values):
        worker = reach(Worker.objects.select_related("queue__environment"), worker_id, api_key)
        if environment_name and worker.queue.environment.name != name_within(environment_name, api_key):
            raise UnknownObjectError
        speakers = WorkerInstance.objects.filter(pk=_speaker(worker, process).pk, stopped_at=None)
        speakers.update(**values)
        _require_enabled(worker)
    if heartbeat.system_info or heartbeat.logs or heartbeat.worker_metadata:
        _keep_report(speakers, heartbeat, now)


def _speaker(worker: Worker, process: Process) -> WorkerInstance:
    """The instance that a heartbeat comes from; it may have said goodbye, which no heartbeat takes back."""
    told_to_end = Q(stop_reason__startswith=SUPERSEDED)
    instances = worker.instances.filter(Q(stopped_at=None) | Q(is_current=True) | told_to_end)
    candidates = list(instances.order_by("-is_current", "-started_at")[:CANDIDATES])
    if not candidates:
        msg = "This worker has not started: POST to its start first."
        raise HeartbeatRefusedError(msg)
    instance = next((instance for instance in candidates if process.may_be(instance)), candidates[0])
    if instance.stop_reason.startswith(SUPERSEDED):
        msg = "superseded: another process of this worker has taken over."
        raise HeartbeatRefusedError(msg)
    return instance


def _require_enabled(worker: Worker) -> None:
    if worker.is_disabled or worker.queue.is_disabled:
        msg = "This worker is disabled." if worker.is_disabled else "This worker's queue is disabled."
        raise HeartbeatRefusedError(msg)


def _keep_report(speakers: models.QuerySet[WorkerInstance], heartbeat: Heartbeat, now: datetime) -> None:
    """Keeps what the speaker reports, if there is anything new: a light heartbeat's gaps keep what is there."""
    instance = speakers.select_related("report").first()
    if instance is None:
        return
    before = getattr(instance, "report", None) or InstanceReport(instance=instance)
    lines = [line[:LOG_LINE_LENGTH] for line in heartbeat.logs]
    after = {
        "system_info": heartbeat.system_info or before.system_info,
        "worker_metadata": heartbeat.worker_metadata or before.worker_metadata,
        "logs": (before.logs + lines)[-LOG_LINES:],
    }
    if any(getattr(before, name) != value for name, value in after.items()):
        InstanceReport.objects.bulk_create(
            [
                InstanceReport(
                    id=instance.pk,
                    organization_id=instance.organization_id,
                    instance=instance,
                    reported_at=now,
                    **after,
                )
            ],
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=["reported_at", *after],
        )
