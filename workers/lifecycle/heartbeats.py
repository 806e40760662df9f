"""What a running worker tells: that it lives and what it does."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import Q

from environments.statements import Insert, Parameter, Select, Update
from workers.access import UnknownObjectError, name_within, reach
from workers.authentication import PresentedKey
from workers.lifecycle.process import MAY_BE, Client, Process, newest
from workers.models import Activity, ApiKey, InstanceReport, Worker, WorkerInstance
from workers.models.instances import LOG_LINES, TASK_ID_LENGTH

#: Seconds after which a heartbeat has waited for somebody who changes its worker, so that all is looked at anew: what
#: its statement has read of other rows is as old as its wait.
LONGEST_WAIT = 0.5
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
    key: PresentedKey,
    client: Client,
    now: datetime,
    environment_name: str = "",
) -> None:
    """Notes that the worker's process lives: one statement, on its instance, unless something is unusual.

    A worker that names its environment is known only there. The statement itself asks whether the key is usable and
    covers the worker; when it finds nothing to note, each is looked at for its own refusal.

    HeartbeatRefusedError when a person disabled the worker or its queue, or when another process took over; the
    heartbeat of a disabled worker is noted all the same, since its process does run.
    """
    process = Process.of(heartbeat.system_info, client)
    noted = {
        "last_heartbeat_at": now,
        "activity": heartbeat.activity,
        "tasks_processed": heartbeat.tasks_processed,
        "current_task_id": heartbeat.current_task_id[:TASK_ID_LENGTH],
        "api_key_id": key.id,
    }
    asked: dict[str, Any] = {
        "worker_id": worker_id,
        "organization_id": key.organization_id,
        "token_hash": key.token_hash,
        "now": now,
    }
    beat = _BEAT
    if environment_name:
        beat, asked["environment_name"] = _BEAT_IN_ENVIRONMENT, name_within(environment_name, key.organization_id)
    instance_id = None
    began = time.monotonic()
    if beat(**noted, **asked, **process.as_parameters()):
        key.was_found()
        has_waited = time.monotonic() - began > LONGEST_WAIT
    else:
        has_waited = True
    if has_waited:
        instance_id = _note_unusual(worker_id, process, noted, key.row, asked.get("environment_name"))
    if heartbeat.system_info or heartbeat.logs or heartbeat.worker_metadata:
        _keep_report(worker_id, instance_id, heartbeat, now)


def _beat(**where: Any) -> Update:
    """Notes a heartbeat of the worker's current process, when all of it is as usual.

    That is: the key is usable and covers the worker, neither the worker nor its queue is disabled, and no other process
    of the worker can have sent it.
    """
    usable = ApiKey.objects.usable(Parameter("now", models.DateTimeField()))
    key = usable.filter(
        pk=Parameter("api_key_id", models.UUIDField()),
        token_hash=Parameter("token_hash", models.CharField()),
        organization=Parameter("organization_id", models.CharField()),
    )
    worker_id = Parameter("worker_id", models.UUIDField())
    workers = Worker.objects.filter(pk=worker_id, is_disabled=False, queue__is_disabled=False, **where)
    instances = WorkerInstance.objects.filter(worker=worker_id, is_current=True, stopped_at=None)
    names = ("last_heartbeat_at", "activity", "tasks_processed", "current_task_id", "api_key_id")
    return Update(
        lambda: instances.filter(Q(is_contested=False) | MAY_BE, worker__in=workers.covered_by(key)),
        values={name: Parameter(name, WorkerInstance._meta.get_field(name)) for name in names},
    )


_BEAT = _beat()
_BEAT_IN_ENVIRONMENT = _beat(queue__environment__name=Parameter("environment_name", models.CharField()))
_REPORTER = Select(
    lambda: (
        WorkerInstance.objects.filter(worker=Parameter("worker_id", models.UUIDField()), is_current=True)
        .select_related("report")
        .order_by()
    )
)
_REPORT = Insert(InstanceReport, replaces=("reported_at", "system_info", "worker_metadata", "logs"))


def _note_unusual(
    worker_id: UUID, process: Process, noted: dict[str, Any], api_key: ApiKey, environment_name: str | None
) -> UUID:
    """Notes the heartbeat of the instance that it comes from, whose id is returned, or says why it is refused."""
    worker = reach(Worker.objects.select_related("queue__environment"), worker_id, api_key)
    if environment_name is not None and worker.queue.environment.name != environment_name:
        raise UnknownObjectError
    instance = _speaker(worker, process)
    WorkerInstance.objects.filter(pk=instance.pk, stopped_at=None).update(**noted)
    _require_enabled(worker)
    return instance.pk


def _speaker(worker: Worker, process: Process) -> WorkerInstance:
    """The instance that a heartbeat comes from; it may have said goodbye, which no heartbeat takes back."""
    instances = worker.instances.filter(Q(stopped_at=None) | Q(is_current=True) | Q(is_superseded=True))
    candidates = list(newest(instances))
    if not candidates:
        msg = "This worker has not started: POST to its start first."
        raise HeartbeatRefusedError(msg)
    instance = next((instance for instance in candidates if process.may_be(instance)), candidates[0])
    if instance.is_superseded:
        msg = "superseded: another process of this worker has taken over."
        raise HeartbeatRefusedError(msg)
    return instance


def _require_enabled(worker: Worker) -> None:
    if worker.is_disabled or worker.queue.is_disabled:
        msg = "This worker is disabled." if worker.is_disabled else "This worker's queue is disabled."
        raise HeartbeatRefusedError(msg)


def _keep_report(worker_id: UUID, instance_id: UUID | None, heartbeat: Heartbeat, now: datetime) -> None:
    """Keeps what the process reports, if there is anything new: a light heartbeat's gaps keep what is there.

    Without an id it is the worker's current instance.
    """
    if instance_id is None:
        instance = _REPORTER.first(worker_id=worker_id)
    else:
        instance = WorkerInstance.objects.filter(pk=instance_id, stopped_at=None).select_related("report").first()
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
        owner = {"id": instance.pk, "organization_id": instance.organization_id, "instance_id": instance.pk}
        _REPORT(**owner, reported_at=now, **after)
