"""What readers are answered has the members and types of the protocol page."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from environments import audit
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import ACTOR, Fleet
from tests.support.reading import LISTS, POINTERS, READINGS, SHAPES, ask, assert_shape, call, change, read, silence
from workers.models import WorkerInstance


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
    texts = {"display_name": "Shown", "description": "Where it counts", "tags": ["red", "green", "red", "", "a, b"]}
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
    assert {name: row[name] for name in texts if name in row}.items() <= {**texts}.items()
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
        "display_name": "",
        "description": "",
        "status": "active",
        "max_workers": None,
        "heartbeat_interval": 60,
        "tags": [],
        "settings": {},
        "created_at": row["created_at"],
        "updated_at": row["created_at"],
        "created_by": None,
        "active_workers": 0,
        "state_reason": None,
        "state_ends_at": None,
        "task_queue_name": f"{fleet.organization.pk}.production.default",
        **dict.fromkeys(POINTERS),
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
        "display_name": "",
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
        "variables": {},
        "secrets": [],
        "integrations": [],
        **dict.fromkeys(POINTERS),
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
