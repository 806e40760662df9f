"""What decides a start, read in one statement: the key, the chain, the connections that win, the process before."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import models

from environments.connections.levels import Sections, sections, winning_id
from environments.database.joint_statements import VERSION, AnyField, Joined, Part, Source, Table, Together
from environments.database.statements import Parameter, Select
from environments.models import (
    DataKey,
    Environment,
    LiteLLMConnection,
    Organization,
    TelemetrySettings,
    TemporalConnection,
)
from workers.api_keys.access import UnknownObjectError, permit
from workers.api_keys.presented import PresentedKey
from workers.configuration.effective import LEVELS
from workers.models import LIVE, ApiKey, Worker, WorkerInstance, WorkerQueue
from workers.models.liveness import Outage, Pulse, may_be_excused, recovery_of, was_heard_of

#: The columns that a start needs of each table.
_API_KEY = Table(
    ApiKey,
    (
        *("id", "organization_id", "name", "scope", "worker_id", "queue_id", "environment_id"),
        *("token_hash", "created_at", "expires_at", "revoked_at"),
    ),
)
_STATE = ("is_disabled", "is_draining", "state_reason", "state_ends_at")
_WORKER = Table(Worker, ("id", "organization_id", "queue_id", "name", *_STATE))
_QUEUE = Table(
    WorkerQueue,
    (
        *("id", "organization_id", "environment_id", "name", "heartbeat_interval", "max_workers"),
        *("duplicate_policy", *_STATE, "settings_hash"),
    ),
)
_CREDENTIAL = ("id", "organization_id", "requires_api_key", "sealed_api_key", "api_key_fingerprint", "api_key_version")
_TELEMETRY = (
    *("id", "otel_enabled", "otel_exporter_otlp_endpoint", "otel_service_name"),
    *("otel_traces_sampler", "otel_traces_sampler_arg"),
)
_PROCESS = (
    *("id", "hostname", "pid", "client_address", "started_at", "last_heartbeat_at"),
    *("stopped_at", "stop_reason", "is_contested", "container_digest", "boot_digest", "birth_digest"),
)
_CONNECTIONS = {
    "temporal_connection": Table(TemporalConnection, (*_CREDENTIAL, "host", "namespace")),
    "litellm_connection": Table(LiteLLMConnection, (*_CREDENTIAL, "api_url")),
    "telemetry_settings": Table(TelemetrySettings, _TELEMETRY),
}
_CHAIN = {
    "queue": _QUEUE,
    "environment": Table(Environment, ("id", "organization_id", "name", "settings_hash")),
    "organization": Table(Organization, ("id",)),
    "api_key": _API_KEY,
    **_CONNECTIONS,
}
#: It opens what the organization has sealed, whatever becomes of it.
_DATA_KEY = {"data_key": Table(DataKey, ("id", "organization_id", "wrapped_key", "wrapped_by"))}
_PARAMETERS: dict[str, AnyField] = {
    "api_key_id": models.UUIDField(),
    "organization_id": models.TextField(),
    "id": models.UUIDField(),
}


def _source(levels: tuple[str, ...], first: str, *others: str) -> Source:
    """The tables of a chain, of which `first` names the narrowest ones, beside the key that asks."""
    won = (
        f"LEFT JOIN {table.model._meta.db_table} {pointer} ON {pointer}.id = {winning_id(pointer, levels)}"
        for pointer, table in _CONNECTIONS.items()
    )
    guarded = (
        f"FROM {first}",
        "JOIN environments_environment environment ON environment.id = queue.environment_id",
        "JOIN environments_organization organization ON organization.id = queue.organization_id",
        "LEFT JOIN workers_apikey api_key",
        "ON api_key.id = %(api_key_id)s AND api_key.organization_id = organization.id",
        *won,
    )
    data_key = "LEFT JOIN environments_datakey data_key ON data_key.active_for_id = organization.id"
    where = f"WHERE {levels[0]}.id = %(id)s AND {levels[0]}.organization_id = %(organization_id)s"
    return Source(" ".join(guarded), " ".join((data_key, *others)), where)


#: Of a worker: with its current process, and with our own latest outage, which may excuse that one's silence.
_OF_WORKER = Joined(
    _source(
        ("worker", "queue", "environment", "organization"),
        "workers_worker worker JOIN workers_workerqueue queue ON queue.id = worker.queue_id",
        "LEFT JOIN workers_workerinstance process ON process.worker_id = worker.id AND process.is_current",
        "LEFT JOIN workers_pulse pulse ON pulse.id = 1",
        "LEFT JOIN workers_outage outage",
        "ON outage.id = (SELECT id FROM workers_outage ORDER BY lost_at DESC LIMIT 1)",
    ),
    {"worker": _WORKER, **_CHAIN},
    {
        **_DATA_KEY,
        "process": Table(WorkerInstance, _PROCESS),
        "pulse": Table(Pulse, ("id", "beat_at")),
        "outage": Table(Outage, ("id", "recovered_at")),
    },
    _PARAMETERS,
)
_OF_QUEUE = Joined(
    _source(("queue", "environment", "organization"), "workers_workerqueue queue"), _CHAIN, _DATA_KEY, _PARAMETERS
)
_LIVENESS = Select(
    lambda: (
        WorkerInstance.objects.filter(pk=Parameter("id", models.UUIDField()))
        .with_liveness(Parameter("now", models.DateTimeField()))
        .order_by()
    )
)


@dataclass(frozen=True)
class Circumstances:
    """What was read, at one moment; of a queue there is no worker and no process yet."""

    queue: WorkerQueue
    sections: Sections
    data_key: DataKey | None
    worker: Worker | None
    process: WorkerInstance | None
    #: The parameters under which all this was read, with what tells whether it is still so.
    guard: dict[str, Any]
    #: When our own latest outage ended, which excuses a silence before; None without one.
    recovered_at: datetime | None

    def is_live(self, now: datetime) -> bool:
        """Whether the current process is live; the database is asked only where an outage of ours may excuse it."""
        process, interval = self.process, self.queue.heartbeat_interval
        if process is None or process.stopped_at is not None:
            return False
        if was_heard_of(process.last_heartbeat_at, interval, now):
            return True
        if not may_be_excused(process.last_heartbeat_at, interval, now, self.recovered_at):
            return False
        excused = _LIVENESS.first(id=process.pk, now=now)
        return excused is not None and excused.liveness in LIVE


def circumstances_of_worker(worker_id: UUID, key: PresentedKey, now: datetime) -> Circumstances:
    """Those of a start of the worker.

    Raises what `PresentedKey.row` raises when there is no usable key, then what `permit` does.
    """
    return _read(_OF_WORKER, worker_id, key, now)


def circumstances_of_queue(queue_id: UUID, key: PresentedKey, now: datetime) -> Circumstances:
    """The same of a start in the queue."""
    return _read(_OF_QUEUE, queue_id, key, now)


def writing_for_worker(*parts: Part) -> Together:
    """A statement that writes what a worker's start leaves, if its circumstances are still as they were read."""
    return Together(_OF_WORKER, *parts)


def writing_for_queue(*parts: Part) -> Together:
    """The same for a start in a queue."""
    return Together(_OF_QUEUE, *parts)


def _read(statement: Joined, identifier: UUID, key: PresentedKey, now: datetime) -> Circumstances:
    asked = {"id": identifier, "api_key_id": key.id, "organization_id": key.organization_id}
    found = statement.first(**asked)
    if found is None:
        _ = key.row  # nobody without a usable key learns what is there
        raise UnknownObjectError
    api_key = key.settle(found["api_key"])
    queue, worker = found["queue"], found.get("worker")
    _relate(queue, environment=found["environment"])
    if worker is not None:
        _relate(worker, queue=queue)
    permit(worker or queue, api_key)
    levels = LEVELS if worker is not None else LEVELS[1:]
    return Circumstances(
        queue=queue,
        sections=sections(levels, found),
        data_key=found["data_key"],
        worker=worker,
        process=found.get("process"),
        guard={**asked, VERSION: found[VERSION]},
        recovered_at=recovery_of(found.get("pulse"), found.get("outage"), now),
    )


def _relate(row: models.Model, **others: models.Model) -> None:
    """What a foreign key leads to is at hand; setting the attribute would check what the database has checked."""
    row._state.fields_cache.update(others)
