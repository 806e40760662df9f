"""What a running worker tells: that it lives and what it does."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import Case, F, OuterRef, Q, Subquery, When

from environments.database.statements import Insert, Parameter, Select, Update, found_alone
from environments.models import AuditEvent
from workers.api_keys.access import UnknownObjectError, name_within, reach
from workers.api_keys.presented import PresentedKey
from workers.lifecycle.decisions import refusal_of
from workers.lifecycle.process import AGREES, AT_SAME_ADDRESS, MAY_BE, Client, Process, instances_of, newest
from workers.models import (
    Activity,
    ApiKey,
    DuplicatePolicy,
    InstanceReport,
    State,
    Worker,
    WorkerInstance,
    WorkerQueue,
)
from workers.models.instances import LOG_LINES, TASK_ID_LENGTH
from workers.models.liveness import intervals_before
from workers.models.states import not_disabled
from workers.models.workers import that_cover

#: Seconds after which a heartbeat has waited for somebody who changes its worker, so that all is looked at anew: what
#: its statement has read of other rows is as old as its wait.
LONGEST_WAIT = 0.5
#: A line beyond this is cut: a report stays a page that a person can load.
LOG_LINE_LENGTH = 1_000
#: Of the interval, the part within which one process does not send two heartbeats; of two that take turns, one of any
#: two neighbouring pauses is at most half of it.
CERTAINLY_SOONER = 0.75
#: The processes that a heartbeat may come from, before those that said goodbye are looked at.
CAN_SPEAK = Q(stopped_at=None) | Q(is_current=True) | Q(is_superseded=True) | Q(is_replaced=True)


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
        **process.as_parameters(),
    }
    asked: dict[str, Any] = {
        "worker_id": worker_id,
        "organization_id": key.organization_id,
        "token_hash": key.token_hash,
        "now": now,
    }
    if environment_name:
        asked["environment_name"] = name_within(environment_name, key.organization_id)
    instance_id = None
    began = time.monotonic()
    if _BEATS[process.is_told, bool(environment_name)](**noted, **asked):
        key.was_found()
        has_waited = time.monotonic() - began > LONGEST_WAIT
    else:
        has_waited = True
    if has_waited:
        instance_id = _note_unusual(worker_id, process, noted, key.row, asked.get("environment_name"))
    if heartbeat.system_info or heartbeat.logs or heartbeat.worker_metadata:
        _keep_report(worker_id, instance_id, heartbeat, process, now)


def _noted() -> dict[str, Any]:
    """What a heartbeat writes of its instance.

    One that is back at the address before the last, sooner than one process sends two, shows that two processes take
    turns: the clone of a machine beats as the original does. Where one process has several ways out, each heartbeat
    may come from another address, but they do not come more often.
    """
    address, now = (_parameter(name) for name in ("client_address", "last_heartbeat_at"))
    is_elsewhere = ~Q(heartbeat_address=address)
    queue = WorkerQueue.objects.filter(pk=OuterRef("queue")).order_by()
    soon = intervals_before(now, Subquery(queue.values("heartbeat_interval")), CERTAINLY_SOONER)
    doubled = Case(When(last_heartbeat_at__gt=soon, then=now), default=F("doubled_at"))
    names = ("last_heartbeat_at", "activity", "tasks_processed", "current_task_id", "api_key_id")
    return {
        **{name: _parameter(name) for name in names},
        "doubled_at": Case(When(is_elsewhere & Q(address_before=address), then=doubled), default=F("doubled_at")),
        "address_before": Case(When(is_elsewhere, then=F("heartbeat_address")), default=F("address_before")),
        "heartbeat_address": address,
    }


def _parameter(name: str) -> Parameter:
    return Parameter(name, WorkerInstance._meta.get_field(name))


def _beat(*, is_told: bool, **where: Any) -> Update:
    """Notes a heartbeat of the worker's current process, when all of it is as usual.

    That is: the key is usable and covers the worker, neither the worker nor its queue is disabled, nothing says that
    another process sent it, and where another one may run, something says that this one did.
    """
    now = Parameter("now", models.DateTimeField())
    worker_id, api_key_id = (Parameter(name, models.UUIDField()) for name in ("worker_id", "api_key_id"))
    token_hash, organization = (Parameter(name, models.CharField()) for name in ("token_hash", "organization_id"))
    chain = {"environment": OuterRef("environment"), "queue": OuterRef("pk"), "worker": worker_id}
    key = that_cover(ApiKey.objects.usable(now), organization, **chain).filter(pk=api_key_id, token_hash=token_hash)
    queue = WorkerQueue.objects.filter(not_disabled(now, ""), found_alone(key), pk=OuterRef("queue"), **where)
    worker = Worker.objects.filter(not_disabled(now, ""), found_alone(queue), pk=worker_id, organization=organization)
    instances = WorkerInstance.objects.filter(worker=worker_id, is_current=True, stopped_at=None)
    speaks = AGREES & (Q(is_contested=False) | MAY_BE) if is_told else Q(is_contested=False) | AT_SAME_ADDRESS
    return Update(lambda: instances.filter(speaks, found_alone(worker)), values=_noted())


_IN_ENVIRONMENT = {"environment__name": Parameter("environment_name", models.CharField())}
#: By whether the process tells anything of itself, and whether it names its environment.
_BEATS = {
    (is_told, is_within): _beat(is_told=is_told, **(_IN_ENVIRONMENT if is_within else {}))
    for is_told in (False, True)
    for is_within in (False, True)
}
_ID = Parameter("id", models.UUIDField())
_NOTE = Update(lambda: WorkerInstance.objects.filter(pk=_ID, stopped_at=None), _noted())
_REVIVED = {"is_replaced": False, "is_contested": True, "stopped_at": None, "stop_reason": ""}
_REVIVE = Update(lambda: WorkerInstance.objects.filter(pk=_ID, is_replaced=True), {**_noted(), **_REVIVED})
_REPORTER = Select(
    lambda: (
        WorkerInstance.objects.filter(AGREES, worker=Parameter("worker_id", models.UUIDField()), is_current=True)
        .select_related("report")
        .order_by()
    )
)
_REPORT = Insert(InstanceReport, replaces=("reported_at", "system_info", "worker_metadata", "logs"))


def _note_unusual(
    worker_id: UUID, process: Process, noted: dict[str, Any], api_key: ApiKey, environment_name: str | None
) -> UUID:
    """Notes the heartbeat of the instance that it comes from, whose id is returned, or says why it is refused."""
    try:
        worker = reach(Worker.objects.select_related("queue__environment"), worker_id, api_key)
    except UnknownObjectError:
        _require_never_removed(worker_id, api_key)
        raise
    if environment_name is not None and worker.queue.environment.name != environment_name:
        raise UnknownObjectError
    instance = _speaker(worker, process)
    note = _REVIVE if instance.is_replaced else _NOTE
    note(id=instance.pk, **noted)
    _require_enabled(worker, noted["last_heartbeat_at"])
    return instance.pk


def _require_never_removed(worker_id: UUID, api_key: ApiKey) -> None:
    """HeartbeatRefusedError where the worker was made by a start and removed since, as far as the key would reach."""
    removed = AuditEvent.objects.filter(
        object_id=str(worker_id), object_type="worker", action="worker.deleted", organization=api_key.organization_id
    ).first()
    changes = removed.changes if removed else {}
    queue_id, is_ephemeral = (changes.get(name, [None])[0] for name in ("queue", "is_ephemeral"))
    if is_ephemeral and WorkerQueue.objects.covered_by(api_key).filter(pk=queue_id).exists():
        msg = "removed: this worker was silent for long and is no more. Start again, as a new one."
        raise HeartbeatRefusedError(msg)


def _speaker(worker: Worker, process: Process) -> WorkerInstance:
    """The instance that a heartbeat comes from; it may have said goodbye, which no heartbeat takes back."""
    candidates = list(newest(worker.instances.filter(CAN_SPEAK)))
    if not candidates:
        msg = "This worker has not started: POST to its start first."
        raise HeartbeatRefusedError(msg)
    instance = next((instance for instance in candidates if process.may_be(instance)), None)
    instance = instance or next(iter(instances_of(process, worker.pk)), None)
    if instance is None and process.is_identified and process.is_another_than(candidates[0]):
        msg = "This process has not started, another one of this worker has: POST to its start first."
        raise HeartbeatRefusedError(msg)
    instance = instance or candidates[0]
    is_one_too_many = instance.is_replaced and not instance.is_current
    if instance.is_superseded or (is_one_too_many and worker.queue.duplicate_policy != DuplicatePolicy.ALLOW):
        msg = "superseded: another process of this worker has taken over."
        raise HeartbeatRefusedError(msg)
    return instance


def _require_enabled(worker: Worker, now: datetime) -> None:
    if told := refusal_of(worker, now, State.DISABLED) or refusal_of(worker.queue, now, State.DISABLED):
        raise HeartbeatRefusedError(told)


def _keep_report(
    worker_id: UUID, instance_id: UUID | None, heartbeat: Heartbeat, process: Process, now: datetime
) -> None:
    """Keeps what the process reports, if there is anything new: a light heartbeat's gaps keep what is there.

    Without an id it is the worker's current instance, unless that is another one's by now.
    """
    if instance_id is None:
        instance = _REPORTER.first(worker_id=worker_id, **process.as_parameters())
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
