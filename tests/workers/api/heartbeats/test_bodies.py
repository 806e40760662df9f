"""Bodies of heartbeats and goodbyes: cut, read or refused."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.support import factories
from tests.support.calls import shared_client
from tests.support.documents import everything
from tests.support.factories import Fleet
from tests.support.heartbeats import (
    FULL,
    assert_accepted,
    assert_refused,
    current,
    disconnect,
    heartbeat,
    post,
    silence,
    simple,
)
from tests.support.odd_values import odd_values
from tests.support.quick import examples
from tests.support.shared_fleet import *  # noqa: F403  # the fixtures
from workers.models import InstanceReport, Liveness, WorkerInstance
from workers.models.instances import CUT

pytestmark = pytest.mark.sqlite


CANARY = "do-not-echo-me"
LARGEST = 2**63 - 1
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
@settings(max_examples=examples(25), suppress_health_check=list(HealthCheck))
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
@settings(max_examples=examples(25), suppress_health_check=list(HealthCheck))
def test_whatever_a_goodbye_tells_it_ends_the_process(running: Fleet, told: dict[str, Any]) -> None:
    WorkerInstance.objects.update(stopped_at=None, stop_reason="", exit_code=None, error_message="")
    assume(len(body := json.dumps(told).encode()) <= 1024 * 1024)
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


def test_a_goodbye_with_the_text_of_a_long_error_ends_the_process(running: Fleet) -> None:
    assert_refused(disconnect(running, b"{}" + b" " * (MEBIBYTE - 1)), 413)
    assert_accepted(disconnect(running, {"error_message": "Traceback " * 100_000}))
    assert current().liveness == Liveness.STOPPED


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


@pytest.mark.parametrize("name", ["worker_id", "environment_name"])
@pytest.mark.parametrize("told", [5, 1.5, True, [], {}])
def test_a_name_that_is_no_text_is_a_mistake_in_the_body(running: Fleet, name: str, told: Any) -> None:
    members = json.loads(simple(running)) | {name: told}
    assert post(running, "heartbeat", members).status_code == 422
    if name == "environment_name":
        assert post(running, "register", {name: told}).status_code == 422
