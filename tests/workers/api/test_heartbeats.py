"""Heartbeats in both forms and the goodbye: what is answered, what is kept, what it costs, and what is refused."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.support import factories
from tests.support.calls import assert_error_shape, counted_round_trips, fresh_fleet, shared_client, start, told_by
from tests.support.documents import everything
from tests.support.factories import Fleet
from tests.support.odd_values import odd_values
from workers.models import InstanceReport, Liveness, Worker, WorkerInstance, WorkerQueue
from workers.models.instances import CUT

pytestmark = pytest.mark.sqlite

CANARY = "do-not-echo-me"
LARGEST = 2**63 - 1

SYSTEM_INFO = {
    "hostname": "build-7",
    "platform": "Linux-6.8.0-x86_64-with-glibc2.39",
    "os_name": "Linux",
    "os_version": "6.8.0",
    "python_version": "3.12.4",
    "cli_version": None,
    "sdk_version": "1.0.2",
    "pid": 4711,
    "cwd": "/srv/worker",
    "supported_runtimes": ["default", "claude_code"],
    "docker_available": True,
    "docker_version": "27.1.1",
    "cpu_count": 8,
    "cpu_percent": 12.5,
    "memory_total": 33_554_432_000,
    "memory_used": 8_123_456_789,
    "memory_percent": 24.2,
    "disk_total": 512_110_190_592,
    "disk_used": 101_234_567_890,
    "disk_percent": 19.8,
    "uptime_seconds": 86_400.25,
}
LIGHT = b'{"status":"active","tasks_processed":3,"current_task_id":null,"worker_metadata":{}}'
FULL = (
    b'{"status":"active","tasks_processed":3,"current_task_id":"task-1","worker_metadata":{},"system_info":'
    + json.dumps(SYSTEM_INFO).encode()
    + b',"logs":["10:00:00 connected","10:00:01 polling"]}'
)


def simple(fleet: Fleet, environment_name: str = "production", **members: Any) -> bytes:
    """The body of the form that names the worker and its environment itself."""
    named = {"worker_id": str(fleet.worker.pk), "environment_name": environment_name}
    return json.dumps(named | {"status": "active", "tasks_processed": 5, "worker_metadata": {}} | members).encode()


def post(fleet: Fleet, path: str, body: Any, *, token: str = "", **environ: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode(errors="backslashreplace")
    authorization = f"Bearer {token or fleet.token}"
    return shared_client().generic(
        "POST", f"/api/v1/workers/{path}", data, "application/json", HTTP_AUTHORIZATION=authorization, **environ
    )


def heartbeat(fleet: Fleet, body: Any = LIGHT, *, worker_id: Any = None, **options: Any) -> Any:
    return post(fleet, f"{worker_id or fleet.worker.pk}/heartbeat", body, **options)


def disconnect(fleet: Fleet, body: Any = b'{"reason":"shutdown"}', *, worker_id: Any = None, **options: Any) -> Any:
    return post(fleet, f"{worker_id or fleet.worker.pk}/disconnect", body, **options)


def assert_accepted(response: Any) -> None:
    assert response.status_code == 204, response.content[:500]
    assert response.content == b""


def assert_refused(response: Any, status: int) -> None:
    assert response.status_code == status, response.content[:500]
    assert_error_shape(response)


def current() -> WorkerInstance:
    return WorkerInstance.objects.with_liveness(timezone.now()).get(is_current=True)


def silence(**period: float) -> None:
    """Moves every instance's last heartbeat into the past."""
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(**period))


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    """A fleet whose worker has started as the one of SYSTEM_INFO and has been silent for a while."""
    assert start(fleet, {"system_info": SYSTEM_INFO}).status_code == 200
    silence(minutes=2)
    return fleet


# --- What is kept ------------------------------------------------------------------------------------------------------


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


# --- What it costs ------------------------------------------------------------------------------------------------------


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


# --- 422 and 413 --------------------------------------------------------------------------------------------------------

MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "no JSON": CANARY.encode(),
    "half": b'{"logs":["' + CANARY.encode(),
    "list": b"[]",
    "null": b"null",
    "text": f'"{CANARY}"'.encode(),
    "number": b"1e999",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_refuses_what_is_no_heartbeat_without_echoing_it(running: Fleet, body: bytes) -> None:
    before = everything()
    for path in (f"{running.worker.pk}/heartbeat", "heartbeat", f"{running.worker.pk}/disconnect"):
        response = post(running, path, body)
        assert_refused(response, 422)
        assert CANARY not in response.content.decode()
    assert everything() == before


#: Members of another kind than ours, as JSON, and what is kept of them.
ODD: dict[str, tuple[str, dict[str, Any]]] = {
    "unknown status": ('"status":"healthy"', {"activity": "healthy"}),
    "status in capitals": ('"status":"BUSY"', {"activity": "busy"}),
    "long status": (f'"status":"{"x" * 5_000}"', {"activity": "x" * 50}),
    "empty status": ('"status":""', {"activity": "active"}),
    "status null": ('"status":null', {"activity": "active"}),
    "status number": ('"status":1', {"activity": "1"}),
    "status list": ('"status":["active"]', {"activity": '["active"]'}),
    "status NaN": ('"status":NaN', {"activity": "active"}),
    "status twice": ('"status":"idle","status":"busy"', {"activity": "active"}),
    "tasks negative": ('"tasks_processed":-1', {"tasks_processed": 0}),
    "tasks text": ('"tasks_processed":"many"', {"tasks_processed": 0}),
    "tasks fraction": ('"tasks_processed":1.5', {"tasks_processed": 0}),
    "tasks true": ('"tasks_processed":true', {"tasks_processed": 0}),
    "tasks null": ('"tasks_processed":null', {"tasks_processed": 0}),
    "tasks list": ('"tasks_processed":[1]', {"tasks_processed": 0}),
    "tasks beyond 63 bits": ('"tasks_processed":9223372036854775808', {"tasks_processed": 0}),
    "tasks of 5,000 digits": (f'"tasks_processed":{"9" * 5_000}', {"tasks_processed": 0}),
    "tasks of 5,000 digits as text": (f'"tasks_processed":"{"9" * 5_000}"', {"tasks_processed": 0}),
    "tasks 1e30": ('"tasks_processed":1e30', {"tasks_processed": 0}),
    "tasks 1e999": ('"tasks_processed":1e999', {"tasks_processed": 0}),
    "task id list": ('"current_task_id":["a",1]', {"current_task_id": '["a", 1]'}),
    "task id true": ('"current_task_id":true', {"current_task_id": "true"}),
    "task id number": ('"current_task_id":7', {"current_task_id": "7"}),
}


@pytest.mark.parametrize(("member", "expected"), ODD.values(), ids=ODD)
def test_an_odd_member_costs_no_worker_its_liveness(running: Fleet, member: str, expected: dict[str, Any]) -> None:
    names = simple(running)[1:].partition(b', "status"')[0]
    for path, body in (
        (f"{running.worker.pk}/heartbeat", f"{{{member}}}"),
        ("heartbeat", f"{{{names.decode()},{member}}}"),
    ):
        silence(minutes=2)
        assert_accepted(post(running, path, body.encode()))
        row = current()
        assert row.liveness == Liveness.ONLINE
        assert {name: getattr(row, name) for name in expected} == expected


NO_OBJECT = {CUT: ["all of it: it is no object"]}
#: The same of what a full heartbeat reports.
ODD_REPORTS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "metadata list": (b'{"worker_metadata":["a"]}', {"worker_metadata": NO_OBJECT}),
    "metadata text": (b'{"worker_metadata":"a"}', {"worker_metadata": NO_OBJECT}),
    "metadata number": (b'{"worker_metadata":0}', {"worker_metadata": NO_OBJECT}),
    "system_info list": (b'{"system_info":["a"]}', {"system_info": NO_OBJECT}),
    "system_info text": (b'{"system_info":"a"}', {"system_info": NO_OBJECT}),
    "system_info true": (b'{"system_info":true}', {"system_info": NO_OBJECT}),
    "system_info of 2,000 values": (
        json.dumps({"system_info": {"hostname": "build-7", "env": ["x"] * 2_000}}).encode(),
        {"system_info": {"hostname": "build-7", "env": ["x"] * 1_020, CUT: ["values beyond 1,024"]}},
    ),
    "both of them, each with its note": (
        b'{"system_info":{"load":NaN},"worker_metadata":{"a":1e999}}',
        {
            name: {member: None, CUT: ["numbers that are not finite or too long"]}
            for name, member in (("system_info", "load"), ("worker_metadata", "a"))
        },
    ),
    "logs text": (b'{"logs":"a\\nb\\r\\nc"}', {"logs": ["a", "b", "c"]}),
    "logs object": (b'{"logs":{"a":1}}', {"logs": ['{"a": 1}']}),
    "logs number": (b'{"logs":7}', {"logs": ["7"]}),
    "logs of objects": (b'{"logs":["a",{"b":1},["c"]]}', {"logs": ["a", '{"b": 1}', '["c"]']}),
    "logs of numbers": (b'{"logs":[1,2.5,true,1e999]}', {"logs": ["1", "2.5", "true"]}),
    "logs of nulls": (b'{"logs":[null,"a",null]}', {"logs": ["a"]}),
    "logs in Latin-1": (b'{"logs":["caf\xe9"]}', {"logs": ["caf\ufffd"]}),
    "a log line of 4,097 characters": (b'{"logs":["' + b"x" * 4_097 + b'"]}', {"logs": ["x" * 1_000]}),
    "a log line of 100,000 characters": (b'{"logs":["a","' + b"x" * 100_000 + b'"]}', {"logs": ["a", "x" * 1_000]}),
    "400 log lines of 200 characters": (json.dumps({"logs": ["x" * 200] * 400}).encode(), {"logs": ["x" * 200] * 400}),
}


@pytest.mark.parametrize(("body", "expected"), ODD_REPORTS.values(), ids=ODD_REPORTS)
def test_an_odd_report_costs_no_worker_its_liveness(running: Fleet, body: bytes, expected: dict[str, Any]) -> None:
    assert_accepted(heartbeat(running, body))
    row = current()
    assert row.liveness == Liveness.ONLINE
    assert {name: getattr(row.report, name) for name in expected} == expected


@given(st.dictionaries(st.sampled_from(sorted(set(json.loads(FULL)) | {"novelty"})), odd_values, min_size=1))
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_whatever_a_running_worker_tells_it_stays_online(running: Fleet, told: dict[str, Any]) -> None:
    silence(minutes=2)
    assert_accepted(heartbeat(running, json.dumps(told).encode()))
    assert current().liveness == Liveness.ONLINE


def test_a_status_that_is_not_ours_is_active_for_readers(running: Fleet) -> None:
    heartbeat(running, {"status": "healthy"})
    token = factories.issue_token(running.queue)
    path = f"/api/v1/worker-queues/{running.queue.pk}"
    headers = {"Authorization": f"Bearer {token}"}
    assert [row["status"] for row in shared_client().get(f"{path}/workers", headers=headers).json()] == ["active"]
    counts = shared_client().get(f"{path}/metrics", headers=headers).json()
    assert (counts["active_workers"], counts["idle_workers"], counts["busy_workers"]) == (1, 0, 0)


@pytest.mark.parametrize("missing", ["worker_id", "environment_name"])
def test_the_simple_form_requires_both_names(running: Fleet, missing: str) -> None:
    members = json.loads(simple(running))
    for body in ({name: value for name, value in members.items() if name != missing}, members | {missing: None}):
        response = post(running, "heartbeat", body)
        assert_refused(response, 422)
        assert ["body", missing] in [error["loc"] for error in response.json()["detail"]]


#: Goodbyes of other kinds than ours, and what is kept of them.
ODD_GOODBYES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "reason list": (b'{"reason":["a"]}', {"stop_reason": '["a"]'}),
    "reason object": (b'{"reason":{}}', {"stop_reason": "{}"}),
    "reason true": (b'{"reason":true}', {"stop_reason": "true"}),
    "reason of 10,000 characters": (b'{"reason":"' + b"r" * 10_000 + b'"}', {"stop_reason": "r" * 200}),
    "exit code text": (b'{"exit_code":"SIGKILL"}', {"exit_code": None}),
    "exit code fraction": (b'{"exit_code":1.5}', {"exit_code": None}),
    "exit code true": (b'{"exit_code":true}', {"exit_code": None}),
    "exit code beyond 63 bits": (b'{"exit_code":9223372036854775808}', {"exit_code": None}),
    "exit code far below 63 bits": (b'{"exit_code":-' + b"9" * 5_000 + b"}", {"exit_code": None}),
    "error message list": (b'{"error_message":["a",1]}', {"error_message": '["a", 1]'}),
    "error message NaN": (b'{"error_message":NaN,"reason":"error"}', {"error_message": "", "stop_reason": "error"}),
    "error message of 6,600 characters": (
        b'{"error_message":"' + b"e" * 6_600 + b'","exit_code":1}',
        {"error_message": "e" * 2_000, "exit_code": 1},
    ),
    "error message in Latin-1": (b'{"error_message":"caf\xe9"}', {"error_message": "caf\ufffd"}),
    "system_info list": (b'{"reason":"error","system_info":["a"]}', {"stop_reason": "error"}),
    "system_info 500 deep": (
        b'{"reason":"error","system_info":{"a":' + b"[" * 500 + b"]" * 500 + b"}}",
        {"stop_reason": "error"},
    ),
}


@pytest.mark.parametrize(("body", "expected"), ODD_GOODBYES.values(), ids=ODD_GOODBYES)
def test_a_goodbye_never_fails_for_its_text(running: Fleet, body: bytes, expected: dict[str, Any]) -> None:
    assert_accepted(disconnect(running, body))
    row = current()
    assert row.liveness == Liveness.STOPPED
    assert {name: getattr(row, name) for name in expected} == expected


@given(st.dictionaries(st.sampled_from(["reason", "exit_code", "error_message", "system_info"]), odd_values))
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_whatever_a_goodbye_tells_it_ends_the_process(running: Fleet, told: dict[str, Any]) -> None:
    WorkerInstance.objects.update(stopped_at=None, stop_reason="", exit_code=None, error_message="")
    assume(len(body := json.dumps(told).encode()) <= 64 * 1024)
    assert_accepted(disconnect(running, body))
    assert current().liveness == Liveness.STOPPED


def test_takes_the_largest_numbers_that_are_kept(running: Fleet) -> None:
    assert_accepted(heartbeat(running, {"tasks_processed": LARGEST}))
    assert current().tasks_processed == LARGEST
    assert_accepted(disconnect(running, {"exit_code": -LARGEST}))
    assert WorkerInstance.objects.get().exit_code == -LARGEST


MEBIBYTE = 1024 * 1024


def test_takes_a_heartbeat_of_1_mib_and_not_one_byte_more(running: Fleet) -> None:
    before = everything()
    for path in (f"{running.worker.pk}/heartbeat", "heartbeat"):
        assert_refused(post(running, path, b"{}" + b" " * (MEBIBYTE - 1)), 413)
    assert everything() == before
    assert_accepted(heartbeat(running, b"{}" + b" " * (MEBIBYTE - 2)))


def test_refuses_a_goodbye_beyond_64_kib(running: Fleet) -> None:
    assert_refused(disconnect(running, b"{}" + b" " * (64 * 1024 - 1)), 413)


# --- Hostile text -------------------------------------------------------------------------------------------------------

HOSTILE = ["\0", "a\0b", "\ud800", "\udfff\ud800", "x" * 4_096, "\U0010ffff" * 4_096, "\u202e\x1b[31m", "'; DROP --"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize(
    "body",
    [
        lambda text: {"worker_metadata": {"a": text, text[:512]: [text]}},
        lambda text: {"system_info": {"hostname": text, "pid": text, "python_version": text, text[:512]: 1}},
        lambda text: {"logs": [text, text]},
        lambda text: {"current_task_id": text},
    ],
    ids=["metadata", "system_info", "logs", "task"],
)
def test_keeps_hostile_text_without_failing(running: Fleet, body: Callable[[str], Any], text: str) -> None:
    assert_accepted(heartbeat(running, body(text)))
    assert_accepted(heartbeat(running, body(text)))
    row = current()
    report = InstanceReport.objects.values_list("system_info", "worker_metadata", "logs")
    kept = f"{row.current_task_id} {list(report)}"
    assert row.liveness == Liveness.ONLINE
    assert not re.search("[\0\ud800-\udfff]", kept)
    assert ("\ufffd" in kept) == bool(re.search("[\0\ud800-\udfff]", text))


@pytest.mark.parametrize("pid", [-1, 2**63, 10**300, 1.5, True, None, "4711", [], {}])
@pytest.mark.parametrize("hostname", ["", 7, None, [], {}, True])
def test_keeps_a_host_and_process_id_that_are_none(running: Fleet, hostname: Any, pid: Any) -> None:
    info = {"hostname": hostname, "pid": pid}
    assert_accepted(heartbeat(running, {"system_info": info}))
    assert current().report.system_info == info


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_keeps_a_hostile_goodbye_without_failing(running: Fleet, text: str) -> None:
    assert_accepted(disconnect(running, {"reason": text, "exit_code": 1, "error_message": text}))
    assert WorkerInstance.objects.get().stopped_at is not None


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_environment_name_is_unknown(running: Fleet, text: str) -> None:
    assert_refused(post(running, "heartbeat", simple(running, text)), 404)
    assert_refused(post(running, "heartbeat", simple(running, worker_id=text)), 404)


# --- 404 and 403 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [heartbeat, disconnect])
def test_a_foreign_worker_cannot_be_told_from_an_unknown_one(running: Fleet, call: Callable[..., Any]) -> None:
    foreign = factories.create_fleet()
    assert start(foreign).status_code == 200
    before = everything()
    answers = [call(running, worker_id=identifier) for identifier in (uuid4(), foreign.worker.pk, "nonsense")]
    Worker.objects.filter(pk=foreign.worker.pk).update(is_disabled=True)
    answers.append(call(running, worker_id=foreign.worker.pk))
    Worker.objects.filter(pk=foreign.worker.pk).update(is_disabled=False)
    assert {response.status_code for response in answers} == {404}
    assert len({told_by(response) for response in answers}) == 1
    assert everything() == before


def test_the_simple_form_knows_a_worker_only_in_its_environment(running: Fleet) -> None:
    foreign = factories.create_fleet()
    start(foreign)
    factories.create_environment(running.organization, "staging")
    token = factories.issue_token(running.organization)
    before = everything()
    bodies = [
        simple(running, "staging"),
        simple(running, "nowhere"),
        simple(running, f"{foreign.organization.id}.production"),
        simple(running, f"{running.organization.id}."),
        simple(running, "Production"),
        simple(running, worker_id=str(uuid4())),
        simple(running, worker_id="nonsense"),
        simple(running, worker_id=str(foreign.worker.pk)),
    ]
    answers = [post(running, "heartbeat", body, token=token) for body in bodies]
    assert {response.status_code for response in answers} == {404}
    assert len({response.content for response in answers}) == 1
    assert everything() == before


CALLS: dict[str, Callable[..., Any]] = {
    "heartbeat": heartbeat,
    "simple heartbeat": lambda fleet, **options: post(fleet, "heartbeat", simple(fleet), **options),
    "disconnect": disconnect,
}


@pytest.mark.parametrize("level", ["worker", "queue", "environment", "organization"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_key_of_any_level_above_the_worker_is_enough(running: Fleet, call: Callable[..., Any], level: str) -> None:
    assert_accepted(call(running, token=factories.issue_token(getattr(running, level))))


OTHERS: dict[str, Callable[[Fleet], Any]] = {
    "another worker": lambda fleet: factories.create_worker(fleet.queue, "sibling"),
    "another queue": lambda fleet: factories.create_queue(fleet.environment, "elsewhere"),
    "another environment": lambda fleet: factories.create_environment(fleet.organization, "staging"),
}


@pytest.mark.parametrize("target", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_key_for_something_else_is_403_and_changes_nothing(
    running: Fleet, call: Callable[..., Any], target: Callable[[Fleet], Any]
) -> None:
    token = factories.issue_token(target(running))
    before = everything()
    response = call(running, token=token)
    assert_refused(response, 403)
    assert response["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
    assert everything() == before


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_key_is_401(running: Fleet, call: Callable[..., Any]) -> None:
    before = everything()
    assert_refused(call(running, token="x.y.z"), 401)
    assert everything() == before


# --- What a person decided ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Worker, WorkerQueue])
@pytest.mark.parametrize("body", [LIGHT, FULL], ids=["light", "full"])
def test_a_disabled_worker_or_queue_is_409_and_its_process_still_shows(running: Fleet, body: bytes, model: Any) -> None:
    model.objects.update(is_disabled=True)
    before = timezone.now()
    response = heartbeat(running, body)
    assert_refused(response, 409)
    assert "disabled" in response.json()["detail"]
    assert current().last_heartbeat_at >= before
    assert current().liveness == Liveness.ONLINE


@pytest.mark.parametrize("model", [Worker, WorkerQueue])
def test_a_disabled_workers_simple_heartbeat_is_409(running: Fleet, model: Any) -> None:
    model.objects.update(is_disabled=True)
    assert_refused(post(running, "heartbeat", simple(running)), 409)
    assert current().liveness == Liveness.ONLINE


def test_an_enabled_worker_is_accepted_again(running: Fleet) -> None:
    Worker.objects.update(is_disabled=True)
    heartbeat(running)
    Worker.objects.update(is_disabled=False)
    assert_accepted(heartbeat(running))


@pytest.mark.parametrize("model", [Worker, WorkerQueue])
def test_a_draining_worker_keeps_heartbeating(running: Fleet, model: Any) -> None:
    model.objects.update(is_draining=True)
    assert_accepted(heartbeat(running, FULL))
    assert_accepted(post(running, "heartbeat", simple(running)))
    assert current().liveness == Liveness.ONLINE


@pytest.mark.parametrize("body", [LIGHT, FULL], ids=["light", "full"])
def test_a_worker_that_never_started_is_409(fleet: Fleet, body: bytes) -> None:
    before = everything()
    assert_refused(heartbeat(fleet, body), 409)
    assert_refused(post(fleet, "heartbeat", simple(fleet)), 409)
    assert everything() == before


# --- The goodbye --------------------------------------------------------------------------------------------------------


def test_a_goodbye_ends_the_instance_at_once_with_its_reason(running: Fleet) -> None:
    heartbeat(running, FULL)
    report = InstanceReport.objects.values().get()
    before = timezone.now()
    assert_accepted(disconnect(running, b'{"reason":"crash","exit_code":137,"error_message":"out of memory"}'))
    row = current()
    assert row.liveness == Liveness.STOPPED
    assert before <= row.stopped_at <= timezone.now()
    assert (row.stop_reason, row.exit_code, row.error_message) == ("crash", 137, "out of memory")
    assert (row.tasks_processed, row.current_task_id) == (3, "task-1")
    assert InstanceReport.objects.values().get() == report


@pytest.mark.parametrize("body", [{}, {"reason": None, "exit_code": None, "error_message": None}, {"reason": ""}])
def test_a_goodbye_without_a_reason_is_a_shutdown(running: Fleet, body: dict[str, Any]) -> None:
    assert_accepted(disconnect(running, body))
    row = current()
    assert (row.stop_reason, row.exit_code, row.error_message) == ("shutdown", None, "")


def test_a_repeated_goodbye_changes_nothing_and_the_first_reason_stays(running: Fleet) -> None:
    disconnect(running, {"reason": "crash", "exit_code": 1, "error_message": "first"})
    before = everything()
    assert_accepted(disconnect(running, {"reason": "crash", "exit_code": 1, "error_message": "first"}))
    assert_accepted(disconnect(running, {"reason": "shutdown", "exit_code": 0, "error_message": "second"}))
    assert everything() == before


def test_keeps_2000_characters_of_the_error_message(running: Fleet) -> None:
    message = "".join(f"{number:08}" for number in range(512))
    assert_accepted(disconnect(running, {"error_message": message}))
    assert current().error_message == message[:2_000]


def test_keeps_the_beginning_of_a_long_reason(running: Fleet) -> None:
    assert_accepted(disconnect(running, {"reason": "r" * 4_096}))
    assert current().stop_reason == "r" * 200


def test_a_worker_that_never_started_may_say_goodbye(fleet: Fleet) -> None:
    before = everything()
    assert_accepted(disconnect(fleet))
    assert everything() == before


@pytest.mark.parametrize("model", [Worker, WorkerQueue])
def test_a_disabled_worker_may_say_goodbye(running: Fleet, model: Any) -> None:
    model.objects.update(is_disabled=True)
    assert_accepted(disconnect(running, {"reason": "told to end"}))
    assert (current().liveness, current().stop_reason) == (Liveness.STOPPED, "told to end")


def test_an_offline_worker_may_say_goodbye(running: Fleet) -> None:
    silence(days=2)
    assert current().liveness == Liveness.OFFLINE
    assert_accepted(disconnect(running))
    assert current().liveness == Liveness.STOPPED


@pytest.mark.parametrize("body", [LIGHT, FULL], ids=["light", "full"])
def test_a_heartbeat_after_the_goodbye_does_not_revive(running: Fleet, body: bytes) -> None:
    disconnect(running, {"reason": "crash", "exit_code": 1})
    before = everything()
    assert_accepted(heartbeat(running, body))
    assert_accepted(post(running, "heartbeat", simple(running)))
    assert everything() == before
    assert current().liveness == Liveness.STOPPED


def test_a_start_after_the_goodbye_begins_anew(running: Fleet) -> None:
    disconnect(running, {"reason": "crash"})
    assert start(running, {"system_info": SYSTEM_INFO}).status_code == 200
    assert_accepted(heartbeat(running))
    assert current().liveness == Liveness.ONLINE
    assert list(WorkerInstance.objects.filter(is_current=False).values_list("stop_reason", flat=True)) == ["crash"]
