"""The floor: a bare WSGI application that does a call's inevitable work, and nothing of a framework's.

That is: the same check of the key's signature, the product's own statements on the bare driver in as few round trips,
the same two secrets opened, the same answer. It leaves out what makes a service of it: limits, validation, refusals, the
resolution of levels, logs. So it serves nobody; it says what the service's calls could cost at best.
"""

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

import django

django.setup()

from django.conf import settings
from django.db import connection, transaction
from psycopg.types.json import Jsonb

from environments.encryption import Place
from workers import authentication, tokens
from workers.lifecycle import heartbeats, starts

JSON = [("Content-Type", "application/json")]
STATEMENTS = {
    "key": authentication._KEY,
    "worker": starts._WORKER,
    "queue": starts._QUEUE,
    "current": starts._CURRENT,
    "retire": starts._RETIRE,
    "new_worker": starts._NEW_WORKER,
    "start": starts._START,
    "instance": starts._INSTANCE,
    "beat": heartbeats._BEAT,
}
#: What a worker, a start and an instance have beside what a call tells, under the names of their columns.
ROW = {
    **dict.fromkeys(("temporal_connection_id", "litellm_connection_id", "telemetry_settings_id")),
    **dict.fromkeys(("description", "labels", "current_task_id", "stop_reason", "error_message", "user_agent"), ""),
    **dict.fromkeys(("is_draining", "is_disabled", "is_contested"), False),
    **dict.fromkeys(("displaced_instance_id", "stopped_at", "exit_code")),
    "is_ephemeral": True,
    "is_current": True,
    "tasks_processed": 0,
    "activity": "active",
    "configuration_revision": "0" * 12,
}

_threads = threading.local()


class Statement:
    """A statement of the product as text, with its parameters in order and the places of its columns."""

    def __init__(self, statement: Any) -> None:
        self.text, self.parameters = statement._compile()
        if connection.vendor == "sqlite":
            self.text = self.text.replace("%s", "?").replace("%%", "%")
        self._compiler: Any = getattr(statement, "_compiler", None)

    def places(self, *path: str) -> dict[str, int]:
        """Where the columns of the row are that the path of foreign keys leads to."""
        found = self._compiler.klass_info
        for name in path:
            found = next(each for each in found["related_klass_infos"] if _leads_to(each, name))
        return {self._compiler.select[at][0].target.attname: at for at in found["select_fields"]}


class Database:
    """A thread's connection on the bare driver."""

    def __init__(self) -> None:
        with transaction.atomic():  # a statement that locks is compiled in a transaction only
            self.statements = {name: Statement(statement) for name, statement in STATEMENTS.items()}
        self.driver: Any = connection.connection
        self.is_postgresql = connection.vendor == "postgresql"
        self.current_id = self.statements["current"].places()["id"]
        self.chains = {"worker": self._chain("worker", ("queue",)), "queue": self._chain("queue", ())}

    def _chain(self, name: str, queue: tuple[str, ...]) -> dict[str, list[dict[str, int]]]:
        """The places of each part of a worker's chain; of a connection those of each level, the narrowest first."""
        levels: Any = dict.fromkeys(((), queue, (*queue, "environment"), ("organization",)))
        paths: dict[str, list[tuple[str, ...]]] = {
            "own": [()],
            "queue": [queue],
            "environment": [(*queue, "environment")],
            "data_key": [("organization", "active_data_key")],
            "temporal": [(*level, "temporal_connection") for level in levels],
            "litellm": [(*level, "litellm_connection") for level in levels],
        }
        return {key: [self.statements[name].places(*path) for path in each] for key, each in paths.items()}

    def run(self, statement_name: str, /, **given: Any) -> Any:
        """Sends a statement; its cursor."""
        statement = self.statements[statement_name]
        values = [given[part.name] if hasattr(part, "field") else part for part in statement.parameters]
        if self.is_postgresql:
            return self.driver.execute(statement.text, [_for_postgresql(value) for value in values], prepare=True)
        # With the waiting for SQLite's one lock that the product's engine has, too.
        return self.driver.patiently(self.driver.execute, statement.text, [_for_sqlite(value) for value in values])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """In a pipeline on PostgreSQL; taken back on an error, as another call comes on the same connection."""
        with self.driver.pipeline() if self.is_postgresql else nullcontext():
            if self.is_postgresql:
                self.driver.execute("BEGIN")
            else:
                self.driver.patiently(self.driver.execute, "BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.driver.execute("ROLLBACK")
                raise
            self.driver.execute("COMMIT")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The three calls."""
    database = _threads.__dict__.get("database") or _threads.__dict__.setdefault("database", Database())
    token = environ["HTTP_AUTHORIZATION"].partition(" ")[2]
    body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    *_, kind, identifier, call = environ["PATH_INFO"].split("/")
    claims, digest = tokens.verify(token), tokens.digest(token)
    now = datetime.now(UTC)
    if call == "heartbeat":
        noted = _beat(database, uuid.UUID(identifier), claims, digest, body, now)
        start_response("204 No Content" if noted else "409 Conflict", [])
        return []
    answer = _start(database, kind, uuid.UUID(identifier), claims, digest, body, now)
    text = json.dumps(answer, separators=(",", ":")).encode()
    start_response("200 OK", [*JSON, ("Content-Length", str(len(text)))])
    return [text]


def _beat(  # noqa: PLR0913, PLR0917  # it comes with these
    database: Database, worker_id: Any, claims: Any, digest: str, body: Any, now: datetime
) -> bool:
    done = database.run(
        "beat",
        worker_id=worker_id,
        now=now,
        organization_id=claims.organization_id,
        token_hash=digest,
        hostname="",
        pid=-1,
        client_address="127.0.0.1",
        last_heartbeat_at=now,
        activity=body["status"],
        tasks_processed=body["tasks_processed"],
        current_task_id="",
        api_key_id=claims.api_key_id,
    )
    return bool(done.rowcount)


def _start(  # noqa: PLR0913, PLR0917  # as above
    database: Database, kind: str, identifier: Any, claims: Any, digest: str, body: Any, now: datetime
) -> dict[str, Any]:
    name = "worker" if kind == "workers" else "queue"
    with database.transaction():
        key = database.run("key", id=claims.api_key_id, organization_id=claims.organization_id)
        found = database.run(name, id=identifier, organization_id=claims.organization_id)
        current = database.run("current", worker_id=identifier, now=now) if name == "worker" else None
        if digest not in key.fetchone():
            raise PermissionError
        row = found.fetchone()
        chain = {part: _part(row, places) for part, places in database.chains[name].items()}
        worker = chain["own"] if name == "worker" else _new_worker(database, chain, now)
        if current and (before := current.fetchone()):
            database.run("retire", id=before[database.current_id])
        answer = _answer(worker, chain)
        _record(database, worker, chain, claims, body["system_info"], now)
    return answer


def _new_worker(database: Database, chain: dict[str, Any], now: datetime) -> dict[str, Any]:
    known = {"organization_id": chain["own"]["organization_id"], "queue_id": chain["own"]["id"], "created_at": now}
    worker = {**ROW, **known, "id": uuid.uuid4(), "name": f"worker-{uuid.uuid4().hex[:12]}"}
    database.run("new_worker", **worker)
    return worker


def _record(  # noqa: PLR0913, PLR0917  # as above
    database: Database, worker: dict[str, Any], chain: dict[str, Any], claims: Any, told: Any, now: datetime
) -> None:
    temporal, litellm = chain["temporal"], chain["litellm"]
    known = {
        **ROW,
        "id": uuid.uuid4(),
        "organization_id": worker["organization_id"],
        "worker_id": worker["id"],
        "queue_id": worker["queue_id"],
        "api_key_id": claims.api_key_id,
        "started_at": now,
        "last_heartbeat_at": now,
        "worker_name": worker["name"],
        "task_queue_name": _task_queue(chain),
        "client_address": "127.0.0.1",
        "system_info": told,
        "hostname": told["hostname"],
        "pid": told["pid"],
        "temporal_connection_id": temporal["id"],
        "temporal_api_key_version": temporal["api_key_version"],
        "litellm_connection_id": litellm["id"],
        "litellm_api_key_version": litellm["api_key_version"],
    }
    database.run("start", **known)
    database.run("instance", **known)


def _task_queue(chain: dict[str, Any]) -> str:
    return f"{chain['queue']['organization_id']}.{chain['environment']['name']}.{chain['queue']['name']}"


def _answer(worker: dict[str, Any], chain: dict[str, Any]) -> dict[str, Any]:
    temporal, litellm, data_key = chain["temporal"], chain["litellm"], chain["data_key"]
    organization = str(worker["organization_id"])
    place = Place(organization, "environments_datakey", _uuid_text(data_key["id"]), "wrapped_key")
    key = settings.ENCRYPTION_KEYS.open_key(data_key["wrapped_key"], place, _uuid_text(data_key["id"]))
    secrets = [
        key.open(row["sealed_api_key"], Place(organization, table, _uuid_text(row["id"]), "sealed_api_key")).reveal()
        for table, row in (("environments_temporalconnection", temporal), ("environments_litellmconnection", litellm))
    ]
    return {
        "worker_id": _uuid_text(worker["id"]),
        "worker_queue_name": chain["queue"]["name"],
        "environment_name": chain["environment"]["name"],
        "task_queue_name": _task_queue(chain),
        "temporal_namespace": temporal["namespace"],
        "temporal_host": temporal["host"],
        "temporal_api_key": secrets[0],
        "organization_id": organization,
        "control_plane_url": settings.CONTROL_PLANE_URL,
        "heartbeat_interval": chain["queue"]["heartbeat_interval"],
        "litellm_api_url": litellm["api_url"],
        "litellm_api_key": secrets[1],
        "otel_enabled": True,
        "otel_exporter_otlp_endpoint": None,
        "otel_service_name": "agent-control-plane-worker",
        "otel_traces_sampler": "parentbased_always_on",
        "otel_traces_sampler_arg": None,
    }


def _part(row: Any, levels: list[dict[str, int]]) -> dict[str, Any]:
    places = next(each for each in levels if row[each["id"]] is not None)
    return {name: row[at] for name, at in places.items()}


def _leads_to(related: dict[str, Any], name: str) -> bool:
    field = related["field"]
    return bool(name == (field.remote_field.get_accessor_name() if related["reverse"] else field.name))


def _uuid_text(value: Any) -> str:
    return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))


def _for_postgresql(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict) else value


def _for_sqlite(value: Any) -> Any:
    match value:
        case uuid.UUID():
            return value.hex
        case datetime():
            return str(value.replace(tzinfo=None))
        case dict():
            return json.dumps(value)
    return value
