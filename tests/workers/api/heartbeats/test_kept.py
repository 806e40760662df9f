"""What heartbeats leave, and what they cost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support import factories
from tests.support.calls import counted_round_trips, fresh_fleet, shared_client, start
from tests.support.documents import everything
from tests.support.factories import Fleet
from tests.support.heartbeats import (
    FULL,
    LIGHT,
    SYSTEM_INFO,
    assert_accepted,
    current,
    disconnect,
    heartbeat,
    post,
    silence,
    simple,
)
from workers.models import InstanceReport, Liveness, WorkerInstance

pytestmark = pytest.mark.sqlite


def test_the_protocols_system_info_has_21_keys() -> None:
    assert len(SYSTEM_INFO) == 21


def test_a_full_heartbeat_keeps_all_that_it_tells(running: Fleet) -> None:
    before = timezone.now()
    assert_accepted(heartbeat(running, FULL))
    row = current()
    assert before <= row.last_heartbeat_at <= timezone.now()
    assert (row.activity, row.tasks_processed, row.current_task_id) == ("active", 3, "task-1")
    assert row.report.system_info == SYSTEM_INFO
    assert row.report.logs == ["10:00:00 connected", "10:00:01 polling"]
    assert row.report.worker_metadata == {}
    assert before <= row.report.reported_at <= timezone.now()


def test_a_light_heartbeat_tells_that_the_worker_lives(running: Fleet) -> None:
    assert current().liveness == Liveness.LATE
    before = timezone.now()
    assert_accepted(heartbeat(running))
    row = current()
    assert before <= row.last_heartbeat_at <= timezone.now()
    assert (row.liveness, row.tasks_processed, row.current_task_id) == (Liveness.ONLINE, 3, "")


def test_a_light_heartbeat_keeps_the_last_system_info_logs_and_metadata(running: Fleet) -> None:
    heartbeat(running, {"system_info": SYSTEM_INFO, "logs": ["a"], "worker_metadata": {"team": "x"}})
    before = InstanceReport.objects.values().get()
    assert_accepted(heartbeat(running))
    assert InstanceReport.objects.values().get() == before


@pytest.mark.parametrize(
    "gaps", [{"system_info": None, "logs": None, "worker_metadata": None}, {"system_info": {}, "logs": []}]
)
def test_null_and_empty_members_are_a_light_heartbeat(running: Fleet, gaps: dict[str, Any]) -> None:
    heartbeat(running, FULL)
    before = InstanceReport.objects.values().get()
    assert_accepted(heartbeat(running, {"status": "active", "tasks_processed": 4, **gaps}))
    assert InstanceReport.objects.values().get() == before
    assert current().tasks_processed == 4


@pytest.mark.parametrize("name", ["environment", "organization.environment"])
def test_the_simple_form_names_the_environment_with_and_without_its_organization(running: Fleet, name: str) -> None:
    names = {"environment": "production", "organization.environment": f"{running.organization.id}.production"}
    assert_accepted(post(running, "heartbeat", simple(running, names[name])))
    row = current()
    assert (row.liveness, row.tasks_processed) == (Liveness.ONLINE, 5)


def test_every_member_has_a_default(running: Fleet) -> None:
    heartbeat(running, {"status": "busy", "tasks_processed": 9, "current_task_id": "task-9"})
    assert_accepted(heartbeat(running, b"{}"))
    row = current()
    assert (row.activity, row.tasks_processed, row.current_task_id) == ("active", 0, "")


@pytest.mark.parametrize("status", ["active", "idle", "busy"])
def test_keeps_the_activity(running: Fleet, status: str) -> None:
    assert_accepted(heartbeat(running, {"status": status}))
    assert current().activity == status


def test_members_that_nobody_knows_are_passed_over(running: Fleet) -> None:
    assert_accepted(heartbeat(running, {"status": "active", "novelty": [1, {"a": None}]}))
    assert_accepted(heartbeat(running, {"system_info": {**SYSTEM_INFO, "gpu": ["a", {"vram": 1}]}}))
    assert current().report.system_info["gpu"] == ["a", {"vram": 1}]


def test_keeps_the_last_500_log_lines(running: Fleet) -> None:
    for first in (0, 300, 600):
        assert_accepted(heartbeat(running, {"logs": [f"line {n}" for n in range(first, first + 300)]}))
    assert current().report.logs == [f"line {n}" for n in range(400, 900)]


@pytest.mark.parametrize("count", [500, 501, 1_025, 20_000])
def test_keeps_the_last_500_lines_of_one_heartbeat(running: Fleet, count: int) -> None:
    assert_accepted(heartbeat(running, {"logs": [f"line {n}" for n in range(count)]}))
    assert current().report.logs == [f"line {n}" for n in range(count - 500, count)]


def test_notes_the_key_that_the_worker_used_last(running: Fleet) -> None:
    other = factories.issue_key(running.queue)
    heartbeat(running, token=other.token.reveal())
    assert current().api_key_id == other.row.pk


def test_a_base_url_that_ends_in_a_slash_works(running: Fleet) -> None:
    response = shared_client().generic(
        "POST",
        f"http://127.0.0.1//api/v1/workers/{running.worker.pk}/heartbeat",
        LIGHT,
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {running.token}",
    )
    assert_accepted(response)


def test_one_workers_heartbeat_leaves_the_others_alone(running: Fleet) -> None:
    sibling = factories.create_worker(running.queue, "sibling")
    token = factories.issue_token(running.queue)
    start(running, worker_id=sibling.pk, token=token)
    silence(minutes=2)
    before = WorkerInstance.objects.filter(worker=sibling).values().get()
    heartbeat(running, FULL, token=token)
    assert WorkerInstance.objects.filter(worker=sibling).values().get() == before


@pytest.fixture
def costs(transactional_db: None) -> Callable[..., list[str]]:
    fleet = fresh_fleet()
    assert start(fleet, {"system_info": SYSTEM_INFO}).status_code == 200

    def run(body: bytes, path: str = "") -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert_accepted(post(fleet, path or f"{fleet.worker.pk}/heartbeat", body or simple(fleet)))
        return [query["sql"] for query in captured.captured_queries]

    return run


def verbs(statements: list[str]) -> list[str]:
    return [statement.split()[0] for statement in statements]


def test_a_light_heartbeat_costs_one_statement(costs: Callable[..., list[str]]) -> None:
    (update,) = costs(LIGHT)
    assert update.startswith('UPDATE "workers_workerinstance"')


def test_a_light_heartbeat_takes_one_round_trip_to_the_database(
    costs: Callable[..., list[str]], tmp_path: Path
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite is called, not sent anything")
    costs(LIGHT)
    with counted_round_trips(tmp_path / "trace") as round_trips:
        costs(LIGHT)
    assert round_trips() == 1


def test_a_simple_heartbeat_costs_one_statement(costs: Callable[..., list[str]]) -> None:
    assert verbs(costs(b"", "heartbeat")) == ["UPDATE"]


def test_a_full_heartbeat_reads_its_report_and_writes_it_only_when_it_changed(costs: Callable[..., list[str]]) -> None:
    body = json.dumps({"system_info": SYSTEM_INFO}).encode()
    assert verbs(costs(body)) == ["UPDATE", "SELECT", "INSERT"]
    assert verbs(costs(body)) == ["UPDATE", "SELECT"]


def test_no_heartbeat_writes_what_admins_edit(costs: Callable[..., list[str]]) -> None:
    written = [statement for body in (FULL, LIGHT, FULL, b"{}") for statement in costs(body)]
    for table in ("workers_worker", "workers_workerqueue", "workers_workerstart", "environments_environment"):
        assert not [text for text in written if text.startswith((f'UPDATE "{table}"', f'INSERT INTO "{table}"'))]


@pytest.mark.parametrize("form", ["light", "simple", "disconnect", "unchanged full"])
def test_inserts_nothing_and_changes_only_the_instance(running: Fleet, form: str) -> None:
    full = {"system_info": SYSTEM_INFO}
    heartbeat(running, full)
    silence(minutes=2)
    before = everything()
    send: dict[str, Callable[[], Any]] = {
        "light": lambda: heartbeat(running),
        "simple": lambda: post(running, "heartbeat", simple(running)),
        "disconnect": lambda: disconnect(running),
        "unchanged full": lambda: heartbeat(running, full),
    }
    assert_accepted(send[form]())
    after = everything()
    assert {label: len(rows) for label, rows in after.items()} == {label: len(rows) for label, rows in before.items()}
    assert [label for label in after if after[label] != before[label]] == ["workers.WorkerInstance"]


def test_an_unchanged_full_heartbeat_does_not_rewrite_the_report(running: Fleet) -> None:
    body = {"status": "idle", "system_info": SYSTEM_INFO, "worker_metadata": {"team": "x"}}
    heartbeat(running, body)
    before = InstanceReport.objects.values().get()
    silence(minutes=2)
    assert_accepted(heartbeat(running, body))
    assert InstanceReport.objects.values().get() == before
    assert current().liveness == Liveness.ONLINE


def test_a_changed_full_heartbeat_rewrites_the_report(running: Fleet) -> None:
    heartbeat(running, {"system_info": SYSTEM_INFO})
    before = InstanceReport.objects.get()
    heartbeat(running, {"system_info": {**SYSTEM_INFO, "cpu_percent": 99.5}})
    after = InstanceReport.objects.get()
    assert after.reported_at > before.reported_at
    assert after.system_info["cpu_percent"] == 99.5
