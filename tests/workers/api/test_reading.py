"""What readers are answered: the members and types of the protocol page, counts by liveness, versions, and pages."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from environments import audit
from environments.encryption import KeyRing, Secret, generate_key
from environments.models import DataKey, Sampler
from environments.sealing.data_keys import fingerprint_key_of, seal_api_key, unwrap
from environments.sealing.rotation import replace_data_keys, reseal_secrets, rewrap_data_keys
from tests.support import factories
from tests.support.calls import fresh_fleet, shared_client, start
from tests.support.factories import ACTOR, Fleet
from workers.models import DuplicatePolicy, WorkerInstance, WorkerQueue, WorkerStart

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

#: The answers' members and types as the protocol page gives them; `?` may be null.
QUEUE = {
    "id": "uuid",
    "organization_id": "str",
    "environment_id": "uuid",
    "name": "str",
    "display_name": "str?",
    "description": "str?",
    "status": "str",
    "max_workers": "int?",
    "heartbeat_interval": "int",
    "tags": "[str]",
    "settings": "{}",
    "created_at": "time",
    "updated_at": "time",
    "created_by": "str?",
    "active_workers": "int",
    "task_queue_name": "str",
}
ENVIRONMENT = {
    "id": "uuid",
    "organization_id": "str",
    "name": "str",
    "display_name": "str",
    "description": "str?",
    "tags": "[str]",
    "settings": "{}",
    "status": "str",
    "created_at": "time",
    "updated_at": "time",
    "created_by": "str?",
    "active_workers": "int",
    "idle_workers": "int",
    "busy_workers": "int",
    "execution_environment": "{}",
}
WORKER = {
    "id": "uuid",
    "worker_id": "uuid",
    "status": "str",
    "tasks_processed": "int",
    "current_task_id": "str?",
    "last_heartbeat": "time",
    "registered_at": "time",
    "system_info": "{}?",
    "logs": "[str]?",
    "worker_metadata": "{}",
}
CONFIG = {
    "queue_id": "uuid",
    "name": "str",
    "display_name": "str?",
    "description": "str?",
    "status": "str",
    "max_workers": "int?",
    "heartbeat_interval": "int",
    "tags": "[str]",
    "settings": "{}",
    "config_version": "str",
    "config_updated_at": "time",
    "recommended_package_version": "str?",
    "environment_id": "uuid",
    "environment_name": "str",
}
METRICS = {
    "queue_id": "uuid",
    "active_workers": "int",
    "idle_workers": "int",
    "busy_workers": "int",
    "total_workers": "int",
    "tasks_processed_24h": "int",
    "tasks_failed_24h": "int",
    "tasks_pending": "int",
    "avg_task_duration_ms": "number",
    "error_rate_percent": "number",
    "last_error_at": "time?",
    "task_queue_backlog": "int",
    "task_queue_pollers": "int",
    "last_activity_at": "time?",
    "updated_at": "time",
}
COMMAND = {
    "queue_id": "uuid",
    "command": "str",
    "command_parts": "{}",
    "can_register": "bool",
    "queue_status": "str",
    "active_workers": "int",
    "max_workers": "int?",
}
TYPES: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str) and value != "",
    "int": lambda value: type(value) is int,
    "number": lambda value: type(value) in {int, float},
    "bool": lambda value: type(value) is bool,
    "uuid": lambda value: isinstance(value, str) and str(UUID(value)) == value,
    "time": lambda value: isinstance(value, str) and RFC_3339.fullmatch(value) is not None,
    "[str]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "{}": lambda value: isinstance(value, dict),
}
#: Path, and the shape of the answer or of each of its rows.
SHAPES = {
    "worker-queues": QUEUE,
    "environments/{environment}/worker-queues": QUEUE,
    "worker-queues/{queue}": QUEUE,
    "worker-queues/{queue}/workers": WORKER,
    "worker-queues/{queue}/config": CONFIG,
    "worker-queues/{queue}/metrics": METRICS,
    "worker-queues/{queue}/worker-command": COMMAND,
    "environments": ENVIRONMENT,
    "environments/{environment}": ENVIRONMENT,
}
LISTS = {
    "worker-queues",
    "environments/{environment}/worker-queues",
    "worker-queues/{queue}/workers",
    "environments",
}
DEPLOYMENT_TYPES = ("local", "docker", "kubernetes", "openshift")
READINGS = [
    *SHAPES,
    "worker-queues/{queue}/update-lock-status",
    *(f"worker-queues/{{queue}}/install-script?deployment_type={kind}" for kind in DEPLOYMENT_TYPES),
]


@pytest.fixture
def fleet(db: None) -> Fleet:
    """A fleet whose token is a key of the organization."""
    fleet = fresh_fleet()
    fleet.token = factories.issue_token(fleet.organization)
    return fleet


def ask(fleet: Fleet, path: str) -> Any:
    filled = path.format(queue=fleet.queue.pk, environment=fleet.environment.pk)
    return shared_client().get(f"/api/v1/{filled}", HTTP_AUTHORIZATION=f"Bearer {fleet.token}")


def read(fleet: Fleet, path: str) -> Any:
    response = ask(fleet, path)
    assert response.status_code == 200, response.content[:500]
    return response.json()


def call(fleet: Fleet, what: str, **body: Any) -> None:
    response = shared_client().generic(
        "POST",
        f"/api/v1/workers/{fleet.worker.pk}/{what}",
        json.dumps(body).encode(),
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {fleet.token}",
    )
    assert response.status_code in {200, 204}, response.content[:500]


def silence(**period: float) -> datetime:
    """Moves every instance's last heartbeat into the past."""
    heard_at = timezone.now() - timedelta(**period)
    WorkerInstance.objects.update(last_heartbeat_at=heard_at)
    return heard_at


def change(row: Any, **values: Any) -> None:
    """Saves other values, whatever has become of the row since it was loaded."""
    type(row).objects.filter(pk=row.pk).update(**values)


def assert_shape(row: Any, shape: dict[str, str]) -> None:
    assert set(row) == set(shape)
    for name, kind in shape.items():
        is_null = row[name] is None
        assert (is_null and kind.endswith("?")) or (not is_null and TYPES[kind.removesuffix("?")](row[name])), (
            name,
            row[name],
        )


# --- Members and types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHAPES)
def test_answers_with_the_members_of_the_protocol_page(fleet: Fleet, path: str) -> None:
    call(fleet, "start", system_info={"hostname": "build-7"})
    call(fleet, "heartbeat", logs=["hello"])
    answer = read(fleet, path)
    assert isinstance(answer, list) == (path in LISTS)
    rows = answer if path in LISTS else [answer]
    assert len(rows) == 1
    assert_shape(rows[0], SHAPES[path])


@pytest.mark.parametrize("path", sorted(set(SHAPES) - {"worker-queues/{queue}/workers"}))
def test_answers_with_the_same_members_when_everything_is_set(fleet: Fleet, path: str) -> None:
    texts = {"display_name": "Shown", "description": "Where it counts", "tags": "red, green,,  blue sky "}
    change(fleet.queue, max_workers=3, **texts)
    change(fleet.environment, **texts)
    now = timezone.now()
    audit.record("worker_queue.created", fleet.queue, actor=ACTOR, now=now)
    audit.record("environment.created", fleet.environment, actor=ACTOR, now=now)
    call(fleet, "start")
    call(fleet, "disconnect", exit_code=1)
    answer = read(fleet, path)
    (row,) = answer if path in LISTS else [answer]
    assert_shape(row, SHAPES[path])
    assert {name: row[name] for name in ("display_name", "description") if name in row}.items() <= texts.items()
    assert row.get("tags", ["red", "green", "blue sky"]) == ["red", "green", "blue sky"]
    assert row.get("max_workers", 3) == 3
    assert row.get("created_by", ACTOR.name) == ACTOR.name
    assert "updated_at" not in row or "created_at" not in row or datetime.fromisoformat(row["updated_at"]) == now


def test_a_queue_is_shown_as_it_is(fleet: Fleet) -> None:
    row = read(fleet, "worker-queues/{queue}")
    assert row == {
        "id": str(fleet.queue.pk),
        "organization_id": fleet.organization.pk,
        "environment_id": str(fleet.environment.pk),
        "name": "default",
        "display_name": None,
        "description": None,
        "status": "active",
        "max_workers": None,
        "heartbeat_interval": 60,
        "tags": [],
        "settings": {},
        "created_at": row["created_at"],
        "updated_at": row["created_at"],
        "created_by": None,
        "active_workers": 0,
        "task_queue_name": f"{fleet.organization.pk}.production.default",
    }
    assert datetime.fromisoformat(row["created_at"]) == fleet.queue.created_at
    assert read(fleet, "worker-queues") == [row]
    assert read(fleet, "environments/{environment}/worker-queues") == [row]


def test_an_environment_is_shown_as_it_is(fleet: Fleet) -> None:
    row = read(fleet, "environments/{environment}")
    assert row == {
        "id": str(fleet.environment.pk),
        "organization_id": fleet.organization.pk,
        "name": "production",
        "display_name": "production",
        "description": None,
        "tags": [],
        "settings": {},
        "status": "active",
        "created_at": row["created_at"],
        "updated_at": row["created_at"],
        "created_by": None,
        "active_workers": 0,
        "idle_workers": 0,
        "busy_workers": 0,
        "execution_environment": {},
    }
    assert read(fleet, "environments") == [row]


@pytest.mark.sqlite
def test_a_worker_is_shown_as_it_reported_itself(fleet: Fleet) -> None:
    call(fleet, "start", system_info={"hostname": "build-7", "pid": 1})
    (started,) = read(fleet, "worker-queues/{queue}/workers")
    assert started["system_info"] == {"hostname": "build-7", "pid": 1}
    assert (started["tasks_processed"], started["current_task_id"]) == (0, None)
    assert started["registered_at"] == started["last_heartbeat"]
    call(
        fleet,
        "heartbeat",
        status="busy",
        tasks_processed=7,
        current_task_id="task-7",
        worker_metadata={"team": "x"},
        system_info={"hostname": "build-7", "pid": 1, "cpu_percent": 1.5},
        logs=["a", "b"],
    )
    (row,) = read(fleet, "worker-queues/{queue}/workers")
    instance = WorkerInstance.objects.get()
    assert row == {
        "id": str(instance.pk),
        "worker_id": str(fleet.worker.pk),
        "status": "busy",
        "tasks_processed": 7,
        "current_task_id": "task-7",
        "last_heartbeat": row["last_heartbeat"],
        "registered_at": started["registered_at"],
        "system_info": {"hostname": "build-7", "pid": 1, "cpu_percent": 1.5},
        "logs": ["a", "b"],
        "worker_metadata": {"team": "x"},
    }
    assert datetime.fromisoformat(row["last_heartbeat"]) == instance.last_heartbeat_at


@pytest.mark.parametrize(
    "told", [{"logs": ["a"]}, {"worker_metadata": {"team": "x"}}, {"system_info": {}, "logs": ["a"]}]
)
def test_a_report_without_the_machine_leaves_what_the_start_told_of_it(fleet: Fleet, told: dict[str, Any]) -> None:
    call(fleet, "start", system_info={"hostname": "build-7", "pid": 1})
    call(fleet, "heartbeat", **told)
    (row,) = read(fleet, "worker-queues/{queue}/workers")
    shown = {"logs": [], "worker_metadata": {}} | told | {"system_info": {"hostname": "build-7", "pid": 1}}
    assert {name: row[name] for name in shown} == shown


def test_the_worker_that_was_heard_of_last_comes_first(fleet: Fleet) -> None:
    workers = [fleet.worker, *(factories.create_worker(fleet.queue, f"w{number}") for number in range(4))]
    for worker in workers:
        start(fleet, worker_id=worker.pk)
    for minutes, worker in enumerate(workers):
        heard_at = timezone.now() - timedelta(minutes=minutes)
        WorkerInstance.objects.filter(worker=worker).update(last_heartbeat_at=heard_at)
    ids = [str(worker.pk) for worker in workers]
    assert [row["worker_id"] for row in read(fleet, "worker-queues/{queue}/workers")] == ids[:3]
    assert [row["worker_id"] for row in read(fleet, "worker-queues/{queue}/workers?status=live")] == ids[:3]
    assert [row["worker_id"] for row in read(fleet, "worker-queues/{queue}/workers?status=all")] == ids


def test_of_all_processes_the_ones_heard_of_last_are_told(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.api.queues.MOST_PROCESSES", 2)
    for number in range(4):
        start(fleet, worker_id=factories.create_worker(fleet.queue, f"w{number}").pk)
        silence(minutes=10)
    start(fleet)
    everyone = ask(fleet, "worker-queues/{queue}/workers?status=all")
    assert len(everyone.json()) == int(everyone["X-Total-Count"]) == 2
    assert everyone.json()[0]["worker_id"] == str(fleet.worker.pk)
    assert read(fleet, "worker-queues/{queue}/workers?status=all&offset=1") == everyone.json()[1:]
    assert read(fleet, "worker-queues/{queue}/workers?status=all&offset=2") == []


@pytest.mark.parametrize("status", ["ALL", "offline", "live,all"])
def test_another_status_of_processes_is_422(fleet: Fleet, status: str) -> None:
    response = ask(fleet, f"worker-queues/{{queue}}/workers?status={status}")
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["query", "status"]


#: What the readers' statements look at grows with none of these.
PAST = 400


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL tells what it has read")
@pytest.mark.parametrize("path", [*READINGS, "worker-queues/{queue}/workers?status=all"])
def test_what_is_read_does_not_grow_with_past_processes(fleet: Fleet, path: str) -> None:
    call(fleet, "start")
    before = rows_read_by(fleet, path)
    long_ago = timezone.now() - timedelta(days=3)
    for number in range(PAST):
        stopped_at = long_ago if number % 2 else None
        told = {
            "last_heartbeat_at": long_ago,
            "stopped_at": stopped_at,
            "exit_code": number % 3,
            "started_at": long_ago,
        }
        fields = {"organization": fleet.organization, "worker": fleet.worker, "is_current": False, **told}
        WorkerInstance.objects.create(id=uuid4(), **fields)
    assert rows_read_by(fleet, path) <= before + PAST / 20


def rows_read_by(fleet: Fleet, path: str) -> int:
    """How many rows of instances the answer takes, as PostgreSQL reads large tables: by indexes."""
    counted = (
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'workers_workerinstance'"
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE workers_workerinstance; ANALYZE workers_worker; SET LOCAL enable_seqscan = off")
        cursor.execute(counted)
        (before,) = cursor.fetchone()
        read_text(fleet, path)
        cursor.execute(counted)
        (after,) = cursor.fetchone()
    return int(after - before)


def read_text(fleet: Fleet, path: str) -> None:
    assert ask(fleet, path).status_code == 200


def test_workers_of_other_queues_are_not_listed(fleet: Fleet) -> None:
    other = factories.create_worker(factories.create_queue(fleet.environment, "other"))
    start(fleet, worker_id=other.pk)
    assert read(fleet, "worker-queues/{queue}/workers") == []
    assert read(fleet, "worker-queues/{queue}")["active_workers"] == 0
    assert read(fleet, "environments/{environment}")["active_workers"] == 1


# --- Status words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({}, "active"),
        ({"is_disabled": True}, "inactive"),
        ({"is_draining": True}, "paused"),
        ({"is_disabled": True, "is_draining": True}, "inactive"),
    ],
)
def test_the_status_of_a_queue(fleet: Fleet, state: dict[str, bool], status: str) -> None:
    change(fleet.queue, **state)
    assert read(fleet, "worker-queues/{queue}")["status"] == status
    assert read(fleet, "worker-queues/{queue}/config")["status"] == status
    command = read(fleet, "worker-queues/{queue}/worker-command")
    assert command["queue_status"] == status
    assert command["can_register"] == (status == "active")


def test_a_full_queue_takes_no_worker(fleet: Fleet) -> None:
    change(fleet.queue, max_workers=1)
    assert read(fleet, "worker-queues/{queue}/worker-command")["can_register"] is True
    call(fleet, "start")
    command = read(fleet, "worker-queues/{queue}/worker-command")
    assert (command["can_register"], command["active_workers"], command["max_workers"]) == (False, 1, 1)
    silence(minutes=5)
    assert read(fleet, "worker-queues/{queue}/worker-command")["can_register"] is True


# --- Counts and liveness ------------------------------------------------------------------------------------------------


def never_started(fleet: Fleet) -> None: ...


def online(fleet: Fleet) -> None:
    call(fleet, "start")


def idle(fleet: Fleet) -> None:
    call(fleet, "start")
    call(fleet, "heartbeat", status="idle")


def busy(fleet: Fleet) -> None:
    call(fleet, "start")
    call(fleet, "heartbeat", status="busy")


def late(fleet: Fleet) -> None:
    busy(fleet)
    silence(seconds=100)


def offline(fleet: Fleet) -> None:
    busy(fleet)
    silence(seconds=181)


def stopped(fleet: Fleet) -> None:
    busy(fleet)
    call(fleet, "disconnect", reason="shutdown")


def stopped_long_ago(fleet: Fleet) -> None:
    stopped(fleet)
    silence(days=3)


def duplicate(fleet: Fleet) -> None:
    for pid in (1, 2):
        call(fleet, "start", system_info={"hostname": "build-7", "pid": pid})


def duplicate_of_an_offline_one(fleet: Fleet) -> None:
    offline(fleet)
    call(fleet, "start", system_info={"hostname": "build-8", "pid": 2})


def taken_over(fleet: Fleet) -> None:
    change(fleet.queue, duplicate_policy=DuplicatePolicy.TAKE_OVER)
    duplicate(fleet)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("arrange", "counts", "statuses"),
    [
        (never_started, (0, 0, 0), []),
        (online, (1, 0, 0), ["active"]),
        (idle, (1, 1, 0), ["idle"]),
        (busy, (1, 0, 1), ["busy"]),
        (late, (1, 0, 1), ["busy"]),
        (offline, (0, 0, 0), ["offline"]),
        (stopped, (0, 0, 0), ["disconnected"]),
        (stopped_long_ago, (0, 0, 0), ["disconnected"]),
        (duplicate, (2, 0, 0), ["active", "active"]),
        (duplicate_of_an_offline_one, (1, 0, 0), ["active"]),
        (taken_over, (1, 0, 0), ["active"]),
    ],
)
def test_counts_follow_liveness_everywhere(
    fleet: Fleet, arrange: Callable[[Fleet], None], counts: tuple[int, int, int], statuses: list[str]
) -> None:
    arrange(fleet)
    active = counts[0]
    metrics, environment = read(fleet, "worker-queues/{queue}/metrics"), read(fleet, "environments/{environment}")
    for row in (metrics, environment, *read(fleet, "environments")):
        assert (row["active_workers"], row["idle_workers"], row["busy_workers"]) == counts
    for path in ("worker-queues/{queue}", "worker-queues/{queue}/worker-command"):
        assert read(fleet, path)["active_workers"] == active
    for path in ("worker-queues", "environments/{environment}/worker-queues"):
        assert [row["active_workers"] for row in read(fleet, path)] == [active]
    told = {which: read(fleet, f"worker-queues/{{queue}}/workers?status={which}") for which in ("live", "all")}
    assert [row["status"] for row in told["all"]] == statuses
    assert told["live"] == [row for row in told["all"] if row["status"] not in {"offline", "disconnected"}]
    assert len(told["live"]) == active
    assert metrics["total_workers"] == 1


def test_an_interval_of_the_queue_decides_what_is_offline(fleet: Fleet) -> None:
    call(fleet, "start")
    silence(seconds=181)
    assert read(fleet, "worker-queues/{queue}")["active_workers"] == 0
    change(fleet.queue, heartbeat_interval=600)
    assert read(fleet, "worker-queues/{queue}")["active_workers"] == 1


# --- Metrics ------------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_queue_where_nothing_ever_happened(fleet: Fleet) -> None:
    metrics = read(fleet, "worker-queues/{queue}/metrics")
    assert (metrics["last_activity_at"], metrics["last_error_at"], metrics["tasks_processed_24h"]) == (None, None, 0)


@pytest.mark.sqlite
def test_the_figures_tell_the_last_activity_and_the_tasks_of_a_day(fleet: Fleet) -> None:
    call(fleet, "start")
    call(fleet, "heartbeat", tasks_processed=5)
    heard_at = silence(hours=23)
    metrics = read(fleet, "worker-queues/{queue}/metrics")
    assert metrics["tasks_processed_24h"] == 5
    assert datetime.fromisoformat(metrics["last_activity_at"]) == heard_at
    silence(hours=25)
    assert read(fleet, "worker-queues/{queue}/metrics")["tasks_processed_24h"] == 0


@pytest.mark.parametrize(
    ("goodbye", "is_error"),
    [
        ({"reason": "shutdown"}, False),
        ({"exit_code": 0}, False),
        ({"exit_code": 1}, True),
        ({"exit_code": -9}, True),
        ({"error_message": "out of memory"}, True),
    ],
)
def test_the_figures_tell_the_last_error(fleet: Fleet, goodbye: dict[str, Any], is_error: bool) -> None:
    call(fleet, "start")
    call(fleet, "disconnect", **goodbye)
    last_error_at = read(fleet, "worker-queues/{queue}/metrics")["last_error_at"]
    stopped_at = WorkerInstance.objects.get().stopped_at
    assert last_error_at is None if not is_error else datetime.fromisoformat(last_error_at) == stopped_at


def test_the_figures_tell_for_a_day_of_a_process_that_another_one_followed(fleet: Fleet) -> None:
    call(fleet, "start")
    call(fleet, "heartbeat", tasks_processed=5)
    call(fleet, "disconnect", exit_code=1)
    stopped_at = WorkerInstance.objects.get().stopped_at
    call(fleet, "start", system_info={"hostname": "another"})
    call(fleet, "heartbeat", tasks_processed=2)
    metrics = read(fleet, "worker-queues/{queue}/metrics")
    assert metrics["tasks_processed_24h"] == 7
    assert datetime.fromisoformat(metrics["last_error_at"]) == stopped_at
    long_ago = timezone.now() - timedelta(hours=25)
    WorkerInstance.objects.filter(is_current=False).update(stopped_at=long_ago, last_heartbeat_at=long_ago)
    metrics = read(fleet, "worker-queues/{queue}/metrics")
    assert (metrics["tasks_processed_24h"], metrics["last_error_at"]) == (2, None)


# --- config_version -----------------------------------------------------------------------------------------------------


@pytest.fixture
def configured(fleet: Fleet) -> Fleet:
    """A fleet with all three connections at the organization."""
    factories.point(fleet.organization, telemetry_settings=factories.create_telemetry(fleet.organization))
    return fleet


def version(fleet: Fleet) -> str:
    found = read(fleet, "worker-queues/{queue}/config")["config_version"]
    assert isinstance(found, str)
    assert len(found) >= 8
    return found


def set_secret(row: Any, secret: str) -> None:
    seal_api_key(row, Secret(secret), now=timezone.now())
    row.save()


def telemetry_of(fleet: Fleet) -> Any:
    fleet.organization.refresh_from_db()
    return fleet.organization.telemetry_settings


def elsewhere(fleet: Fleet, level: str, kind: str) -> None:
    """Points a level to a connection of its own."""
    made = {
        "temporal_connection": lambda: factories.create_temporal(fleet.organization, "elsewhere"),
        "litellm_connection": lambda: factories.create_litellm(fleet.organization, "elsewhere"),
        "telemetry_settings": lambda: factories.create_telemetry(
            fleet.organization, "elsewhere", otel_service_name="elsewhere"
        ),
    }
    change(getattr(fleet, level), **{kind: made[kind]()})


GIVEN: dict[str, Callable[[Fleet], None]] = {
    "Temporal host": lambda fleet: change(fleet.temporal, host="other.example.com:7233"),
    "Temporal namespace": lambda fleet: change(fleet.temporal, namespace="other"),
    "Temporal key rotated": lambda fleet: set_secret(fleet.temporal, "rotated"),
    "Temporal key no longer given": lambda fleet: change(fleet.temporal, requires_api_key=False),
    "LiteLLM URL": lambda fleet: change(fleet.litellm, api_url="https://other.example.com"),
    "LiteLLM key rotated": lambda fleet: set_secret(fleet.litellm, "rotated"),
    "LiteLLM key no longer given": lambda fleet: change(fleet.litellm, requires_api_key=False),
    "telemetry off": lambda fleet: change(telemetry_of(fleet), otel_enabled=False),
    "OTLP endpoint": lambda fleet: change(telemetry_of(fleet), otel_exporter_otlp_endpoint="https://o.example.com"),
    "service name": lambda fleet: change(telemetry_of(fleet), otel_service_name="other"),
    "sampler": lambda fleet: change(telemetry_of(fleet), otel_traces_sampler=Sampler.ALWAYS_OFF),
    "sampler argument": lambda fleet: change(telemetry_of(fleet), otel_traces_sampler_arg=0.5),
    "sampler argument zero": lambda fleet: change(telemetry_of(fleet), otel_traces_sampler_arg=0.0),
    "heartbeat interval": lambda fleet: change(fleet.queue, heartbeat_interval=30),
    "queue renamed": lambda fleet: change(fleet.queue, name="renamed"),
    "environment renamed": lambda fleet: change(fleet.environment, name="renamed"),
    "no Temporal connection any more": lambda fleet: change(fleet.organization, temporal_connection=None),
    "no LiteLLM connection any more": lambda fleet: change(fleet.organization, litellm_connection=None),
    **{
        f"another {kind} at the {level}": lambda fleet, level=level, kind=kind: elsewhere(fleet, level, kind)  # type: ignore[misc]
        for level in ("queue", "environment", "organization")
        for kind in ("temporal_connection", "litellm_connection", "telemetry_settings")
    },
}


@pytest.mark.parametrize("step", GIVEN.values(), ids=GIVEN)
def test_the_version_changes_when_what_a_worker_is_given_changes(
    configured: Fleet, step: Callable[[Fleet], None]
) -> None:
    before = version(configured)
    step(configured)
    after = version(configured)
    assert after != before
    assert version(configured) == after


def test_the_version_changes_with_the_control_planes_url(configured: Fleet, settings: Settings) -> None:
    before = version(configured)
    settings.CONTROL_PLANE_URL = "https://moved.example.com"
    assert version(configured) != before


def test_every_change_has_a_version_of_its_own(configured: Fleet) -> None:
    versions = [version(configured)]
    for name in ("heartbeat interval", "Temporal host", "Temporal key rotated", "LiteLLM key rotated", "sampler"):
        GIVEN[name](configured)
        versions.append(version(configured))
    assert len(set(versions)) == len(versions)


def shadowed(fleet: Fleet, edit: Callable[[Fleet], None]) -> Callable[[], None]:
    """Lets the queue have its own connections, and returns an edit of the organization's."""
    for kind in ("temporal_connection", "litellm_connection", "telemetry_settings"):
        elsewhere(fleet, "queue", kind)
    return lambda: edit(fleet)


SHADOWED = (
    "Temporal host",
    "Temporal key rotated",
    "LiteLLM URL",
    "LiteLLM key rotated",
    "sampler",
    "no Temporal connection any more",
    "another litellm_connection at the environment",
)


def lone(name: str) -> Callable[[Fleet], None]:
    """Gives the organization another connection's rows that nothing of this queue points to."""

    def step(fleet: Fleet) -> None:
        factories.create_temporal(fleet.organization, "unrelated")
        sibling = factories.create_queue(fleet.environment, "sibling")
        change(sibling, litellm_connection=factories.create_litellm(fleet.organization, "of-the-sibling"))

    step.__name__ = name
    return step


def equal_connection(fleet: Fleet) -> None:
    """Another connection with the same content wins."""
    same = {"host": fleet.temporal.host, "namespace": fleet.temporal.namespace}
    twin = factories.create_temporal(fleet.organization, "twin", secret=fleet.temporal_secret, **same)
    change(fleet.queue, temporal_connection=twin)


def telemetry_at_its_defaults(fleet: Fleet) -> None:
    change(fleet.organization, telemetry_settings=None)


def own_connection_of_a_worker(fleet: Fleet) -> None:
    change(fleet.worker, temporal_connection=factories.create_temporal(fleet.organization, "own"))


def other_organization(fleet: Fleet) -> None:
    other = factories.create_fleet()
    set_secret(other.temporal, "rotated")


NOT_GIVEN: dict[str, Callable[[Fleet], None]] = {
    "queue described": lambda fleet: change(fleet.queue, description="x", display_name="y", tags="a,b"),
    "environment described": lambda fleet: change(fleet.environment, description="x", display_name="y", tags="a,b"),
    "organization's name": lambda fleet: change(fleet.organization, name="Other"),
    "limit": lambda fleet: change(fleet.queue, max_workers=7),
    "policy": lambda fleet: change(fleet.queue, duplicate_policy=DuplicatePolicy.REJECT),
    "draining": lambda fleet: change(fleet.queue, is_draining=True),
    "disabled": lambda fleet: change(fleet.queue, is_disabled=True),
    "connection renamed": lambda fleet: change(fleet.temporal, name="renamed"),
    "TLS": lambda fleet: change(fleet.temporal, is_tls_enabled=False),
    "the same secret again": lambda fleet: set_secret(fleet.temporal, fleet.temporal_secret),
    "unrelated connections": lone("unrelated"),
    "a connection of the same content": equal_connection,
    "telemetry back to its defaults": telemetry_at_its_defaults,
    "a worker's own connection": own_connection_of_a_worker,
    "another organization": other_organization,
    "a start": online,
    "a new key": lambda fleet: factories.issue_token(fleet.queue) and None,
}


@pytest.mark.parametrize("step", NOT_GIVEN.values(), ids=NOT_GIVEN)
def test_the_version_stays_when_what_a_worker_is_given_stays(configured: Fleet, step: Callable[[Fleet], None]) -> None:
    before = version(configured)
    step(configured)
    assert version(configured) == before


@pytest.mark.parametrize("name", SHADOWED)
def test_the_version_stays_when_a_shadowed_connection_changes(configured: Fleet, name: str) -> None:
    edit = shadowed(configured, GIVEN[name]) if "another" not in name else shadowed(configured, environments_own)
    before = version(configured)
    edit()
    assert version(configured) == before


def environments_own(fleet: Fleet) -> None:
    row = factories.create_litellm(fleet.organization, "of-the-environment")
    change(fleet.environment, litellm_connection=row)


def test_the_version_comes_back_with_the_secret(configured: Fleet) -> None:
    before = version(configured)
    set_secret(configured.temporal, "rotated")
    set_secret(configured.temporal, configured.temporal_secret)
    assert version(configured) == before


def test_the_version_stays_through_rotation_of_encryption_and_data_keys(configured: Fleet, settings: Settings) -> None:
    before = version(configured)
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-new"), settings.ENCRYPTION_KEYS.active])
    list(rewrap_data_keys(actor=ACTOR, now=timezone.now()))
    assert version(configured) == before
    list(replace_data_keys(made_before=timezone.now(), actor=ACTOR, now=timezone.now()))
    assert version(configured) == before
    list(reseal_secrets())
    assert version(configured) == before
    set_secret(configured.temporal, "rotated")
    assert version(configured) != before
    set_secret(configured.temporal, configured.temporal_secret)
    assert version(configured) == before


def test_an_incomplete_configuration_has_a_version_that_changes_when_it_is_complete(configured: Fleet) -> None:
    complete = version(configured)
    change(configured.organization, temporal_connection=None, litellm_connection=None)
    versions = {complete, version(configured)}
    change(configured.organization, temporal_connection=configured.temporal)
    versions.add(version(configured))
    change(configured.organization, litellm_connection=configured.litellm)
    assert version(configured) == complete
    assert len(versions) == 3


def test_the_version_reveals_nothing(configured: Fleet) -> None:
    for row in (configured.temporal, configured.litellm):
        row.refresh_from_db()
    data_key = DataKey.objects.get(organization=configured.organization)
    secrets = [configured.temporal_secret, configured.litellm_secret]
    found = version(configured)
    for hashed in (hashlib.sha256, hashlib.sha1, hashlib.md5):
        assert not [secret for secret in secrets if hashed(secret.encode()).hexdigest().startswith(found)]
    fingerprint_key = fingerprint_key_of(data_key, unwrap(data_key))
    assert found not in {fingerprint_key.fingerprint(Secret(secret)) for secret in secrets}
    assert found not in {configured.temporal.api_key_fingerprint, configured.litellm.api_key_fingerprint}


# --- Secrets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", READINGS)
def test_no_answer_holds_a_secret(configured: Fleet, settings: Settings, path: str) -> None:
    call(configured, "start", system_info={"hostname": "build-7"})
    for row in (configured.temporal, configured.litellm, configured.api_key):
        row.refresh_from_db()
    response = ask(configured, path)
    assert response.status_code == 200, response.content[:500]
    text = response.content.decode() + repr(response.headers)
    for secret in (
        configured.temporal_secret,
        configured.litellm_secret,
        configured.token,
        configured.token.rpartition(".")[2],
        configured.temporal.sealed_api_key,
        configured.temporal.api_key_fingerprint,
        configured.litellm.api_key_fingerprint,
        configured.api_key.token_hash,
        settings.SECRET_KEY,
    ):
        assert secret not in text
    assert "cp1." not in text


# --- Starting a worker --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DEPLOYMENT_TYPES)
def test_the_install_script_is_text_that_names_the_queue(fleet: Fleet, settings: Settings, kind: str) -> None:
    response = ask(fleet, f"worker-queues/{{queue}}/install-script?deployment_type={kind}")
    assert response.status_code == 200, response.content[:500]
    assert response["Content-Type"].startswith("text/plain")
    text = response.content.decode()
    assert str(fleet.queue.pk) in text
    assert settings.CONTROL_PLANE_URL in text
    if kind in {"kubernetes", "openshift"}:
        assert any(isinstance(document, dict) for document in yaml.safe_load_all(text))


def test_the_install_script_is_a_local_one_by_default(fleet: Fleet) -> None:
    local = ask(fleet, "worker-queues/{queue}/install-script?deployment_type=local").content
    assert ask(fleet, "worker-queues/{queue}/install-script").content == local


@pytest.mark.parametrize("kind", ["LOCAL", "podman", "local,docker", "%00", "local%20"])
def test_an_unknown_deployment_type_is_a_validation_error(fleet: Fleet, kind: str) -> None:
    response = ask(fleet, f"worker-queues/{{queue}}/install-script?deployment_type={kind}")
    assert_query_refused(response, "deployment_type")


def test_the_command_names_the_queue(fleet: Fleet) -> None:
    row = read(fleet, "worker-queues/{queue}/worker-command")
    assert str(fleet.queue.pk) in row["command"]
    assert row["command_parts"]
    assert all(isinstance(part, str) for part in row["command_parts"].values())


# --- Pages --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(fleet: Fleet) -> Fleet:
    """Five rows for each list."""
    for number in range(4):
        environment = factories.create_environment(fleet.organization, f"e{number}")
        factories.create_queue(fleet.environment, f"q{number}")
        factories.create_queue(environment)
        factories.create_worker(fleet.queue, f"w{number}")
    for worker in fleet.queue.workers.all():
        start(fleet, worker_id=worker.pk)
    return fleet


def assert_query_refused(response: Any, name: str) -> None:
    assert response.status_code == 422, response.content[:500]
    body = response.json()
    assert list(body) == ["detail"]
    assert body["detail"]
    for error in body["detail"]:
        assert set(error) == {"loc", "msg", "type"}
        assert error["loc"] == ["query", name]
        assert error["msg"]
        assert error["type"]


@pytest.mark.sqlite
@pytest.mark.parametrize("path", sorted(LISTS))
def test_a_list_is_told_in_pages(many: Fleet, path: str) -> None:
    everything = read(many, path)
    total = 9 if path == "worker-queues" else 5
    assert len(everything) == total
    for limit, offset in ((2, 0), (2, 2), (2, 4), (1000, 1), (1, total - 1), (5, total), (5, 2**31)):
        response = ask(many, f"{path}?limit={limit}&offset={offset}")
        assert response.json() == everything[offset : offset + limit]
        assert response["X-Total-Count"] == str(total)
    assert ask(many, path)["X-Total-Count"] == str(total)


@pytest.mark.parametrize("path", sorted(LISTS))
def test_of_a_repeated_parameter_the_last_counts_and_unknown_ones_are_passed_over(many: Fleet, path: str) -> None:
    assert read(many, f"{path}?limit=4&limit=2&sort=name&page=9") == read(many, path)[:2]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "1e3", "1%200", "0x10", "nulls", "%00", "9" * 400, "%F0%9F%98%80"])
@pytest.mark.parametrize("name", ["limit", "offset"])
def test_nonsense_is_a_validation_error(many: Fleet, name: str, value: str) -> None:
    for path in sorted(LISTS):
        assert_query_refused(ask(many, f"{path}?{name}={value}"), name)


@pytest.mark.parametrize("path", sorted(LISTS))
def test_a_query_string_without_end_is_refused(many: Fleet, path: str) -> None:
    response = ask(many, f"{path}?{'&'.join(f'a{number}=1' for number in range(2_000))}")
    assert (response.status_code, response.json()) == (400, {"detail": "The query string has too many parameters."})


@pytest.mark.parametrize("nothing", ["", "null"])
def test_a_parameter_without_a_value_has_its_default(many: Fleet, nothing: str) -> None:
    for path in sorted(LISTS):
        assert read(many, f"{path}?limit={nothing}&offset={nothing}") == read(many, path)
    script = f"worker-queues/{many.queue.pk}/install-script"
    assert ask(many, f"{script}?deployment_type={nothing}").content == ask(many, script).content


@pytest.mark.parametrize(("name", "value"), [("limit", 0), ("limit", 1001), ("offset", 2**31 + 1)])
def test_what_is_out_of_range_is_a_validation_error(many: Fleet, name: str, value: int) -> None:
    for path in sorted(LISTS):
        assert_query_refused(ask(many, f"{path}?{name}={value}"), name)


def test_the_value_of_a_refused_parameter_is_not_repeated(many: Fleet) -> None:
    assert b"do-not-echo-me" not in ask(many, "worker-queues?limit=do-not-echo-me").content


# --- What lists cost ----------------------------------------------------------------------------------------------------


def statements(fleet: Fleet, path: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        read(fleet, path)
    return len(captured)


@pytest.mark.parametrize("path", sorted(SHAPES))
def test_the_statements_of_an_answer_do_not_grow_with_the_rows(many: Fleet, path: str) -> None:
    before = statements(many, path)
    for number in range(10, 30):
        environment = factories.create_environment(many.organization, f"e{number}")
        factories.create_queue(environment)
        factories.create_queue(many.environment, f"q{number}")
        start(many, worker_id=factories.create_worker(many.queue, f"w{number}").pk)
    assert statements(many, path) == before
    assert before <= 8


def test_a_worker_whose_start_is_no_longer_on_record_is_still_shown(fleet: Fleet) -> None:
    """The ledger may be pruned."""
    now = timezone.now()
    WorkerInstance.objects.create(
        id=uuid4(), organization=fleet.organization, worker=fleet.worker, started_at=now, last_heartbeat_at=now
    )
    assert not WorkerStart.objects.exists()
    (row,) = read(fleet, "worker-queues/{queue}/workers")
    assert_shape(row, WORKER)


@pytest.mark.sqlite
def test_lists_are_in_a_fixed_order(many: Fleet) -> None:
    names = [row["task_queue_name"] for row in read(many, "worker-queues")]
    assert names == sorted(names)
    names = [row["name"] for row in read(many, "environments")]
    assert names == sorted(names)
    assert WorkerQueue.objects.count() == 9
