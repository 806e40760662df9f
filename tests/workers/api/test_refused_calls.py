"""A refused heartbeat or goodbye of a worker that is there leaves its reason with the worker, and its page shows it."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.support import factories
from tests.support.calls import fresh_fleet, in_chunks, shared_client, start
from tests.support.console import person, signed_in
from tests.support.factories import Fleet
from workers.models import Refusal, Worker, WorkerInstance, WorkerQueue

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")  # unfold 0.110, Django 6.1

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def running(db: None) -> Fleet:
    fleet = fresh_fleet()
    assert start(fleet, {"system_info": {"hostname": "w", "pid": 1}}).status_code == 200
    return fleet


def call(
    fleet: Fleet, path: str, body: bytes, *, token: str = "", content_type: str = "application/json", **environ: Any
) -> Any:
    authorization = f"Bearer {token or fleet.token}"
    path = f"/api/v1/workers/{path}"
    return shared_client().generic("POST", path, body, content_type, HTTP_AUTHORIZATION=authorization, **environ)


def heartbeat(fleet: Fleet, body: bytes = b"{}", **options: Any) -> Any:
    return call(fleet, f"{options.pop('worker_id', fleet.worker.pk)}/heartbeat", body, **options)


def goodbye(fleet: Fleet, body: bytes = b"{}", **options: Any) -> Any:
    return call(fleet, f"{options.pop('worker_id', fleet.worker.pk)}/disconnect", body, **options)


def simple(fleet: Fleet, body: bytes = b"", **options: Any) -> Any:
    named = {"worker_id": str(options.pop("worker_id", fleet.worker.pk)), "environment_name": "production"}
    return call(fleet, "heartbeat", body or json.dumps(named).encode(), **options)


CALLS: dict[str, Callable[..., Any]] = {"heartbeat": heartbeat, "simple heartbeat": simple, "goodbye": goodbye}
calls = pytest.mark.parametrize(("name", "send"), CALLS.items(), ids=CALLS)
#: How a body is refused, and what is told of it.
BODIES: dict[str, tuple[dict[str, Any], int, str]] = {
    "media type": ({"body": b"{}", "content_type": "text/plain"}, 415, "The body must be application/json in UTF-8."),
    "compressed": ({"body": b"{}", "HTTP_CONTENT_ENCODING": "gzip"}, 415, "The body must not be compressed."),
    "size": ({"body": b" " * 1_100_000}, 413, "The body is larger than "),
    "size in chunks": ({**in_chunks(b" " * 1_100_000)}, 413, "The body is larger than "),
    "no JSON": ({"body": b"{"}, 422, "The body was refused: JSON decode error: "),
    "empty": ({"body": b" "}, 422, "The body was refused: Field required."),
    "list": ({"body": b"[]"}, 422, "The body was refused: Input should be a valid dictionary."),
}


@calls
@pytest.mark.parametrize("refused", BODIES.values(), ids=BODIES)
def test_a_refused_body_leaves_its_reason_with_the_worker(
    running: Fleet, name: str, send: Callable[..., Any], refused: tuple[dict[str, Any], int, str]
) -> None:
    sent, status, reason = refused
    before = timezone.now()
    sent = {**sent, **({"wsgi.input": type(sent["wsgi.input"])(b" " * 1_100_000)} if "wsgi.input" in sent else {})}
    assert send(running, REMOTE_ADDR="127.0.0.9", **sent).status_code == status
    row = Refusal.objects.get()
    assert (row.pk, row.worker_id, row.api_key_id) == (running.worker.pk, running.worker.pk, running.api_key.pk)
    assert (row.call, row.status, row.client_address) == (name.removeprefix("simple "), status, "127.0.0.9")
    assert row.reason.startswith(reason)
    assert before <= row.occurred_at <= timezone.now()


def disable(fleet: Fleet) -> None:
    Worker.objects.update(is_disabled=True)


def disable_queue(fleet: Fleet) -> None:
    WorkerQueue.objects.update(is_disabled=True)


def forget_the_start(fleet: Fleet) -> None:
    WorkerInstance.objects.all().delete()


def be_taken_over(fleet: Fleet) -> None:
    WorkerQueue.objects.update(duplicate_policy="take_over")
    assert start(fleet, {"system_info": {"hostname": "x", "pid": 2}}, REMOTE_ADDR="127.0.0.2").status_code == 200


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (disable, "This worker is disabled."),
        (disable_queue, "This worker's queue is disabled."),
        (forget_the_start, "This worker has not started: POST to its start first."),
        (be_taken_over, "superseded: another process of this worker has taken over."),
    ],
)
@pytest.mark.parametrize("send", [heartbeat, simple])
def test_a_heartbeat_that_is_refused_for_the_workers_state_leaves_its_reason(
    running: Fleet, send: Callable[..., Any], arrange: Callable[[Fleet], None], reason: str
) -> None:
    arrange(running)
    assert send(running).status_code == 409
    assert (Refusal.objects.get().status, Refusal.objects.get().reason) == (409, reason)


@calls
def test_a_key_that_does_not_reach_the_worker_leaves_that(running: Fleet, name: str, send: Callable[..., Any]) -> None:
    other = factories.issue_key(factories.create_worker(running.queue, "other"))
    assert send(running, token=other.token.reveal()).status_code == 403
    row = Refusal.objects.get()
    assert (row.pk, row.api_key_id, row.status) == (running.worker.pk, other.row.pk, 403)
    assert "scope" in row.reason


# --- What is not noted, and what it costs --------------------------------------------------------------------------------


@calls
def test_what_is_taken_leaves_nothing(running: Fleet, name: str, send: Callable[..., Any]) -> None:
    assert send(running).status_code == 204
    assert not Refusal.objects.exists()


@calls
def test_a_worker_that_is_not_there_and_another_tenants_leave_nothing(
    running: Fleet, name: str, send: Callable[..., Any]
) -> None:
    foreign = factories.create_fleet()
    token = factories.issue_token(running.organization)
    for worker_id in (uuid4(), foreign.worker.pk, "nonsense"):
        for sent in ({}, {"content_type": "text/plain"}):
            assert send(running, worker_id=worker_id, token=token, **sent).status_code >= 400
    assert not Refusal.objects.exists()


@calls
def test_who_has_no_key_leaves_nothing(running: Fleet, name: str, send: Callable[..., Any]) -> None:
    assert send(running, token="x.y.z", content_type="text/plain").status_code == 401
    assert not Refusal.objects.exists()


def test_nothing_that_the_caller_sent_is_noted(running: Fleet) -> None:
    for sent in ({"content_type": HOSTILE}, {"HTTP_CONTENT_ENCODING": HOSTILE}, {"body": HOSTILE.encode()}):
        cache.clear()
        assert heartbeat(running, **{"body": b"{}", **sent}).status_code >= 400
        assert "script" not in str(Refusal.objects.values())


@pytest.mark.parametrize("worker", ["there", "not there"])
def test_a_worker_is_written_of_once_a_minute_whatever_is_refused_and_however_often(
    running: Fleet, worker: str
) -> None:
    worker_id = running.worker.pk if worker == "there" else uuid4()
    costs = []
    for sent in ({"content_type": "text/plain"}, {"body": b"["}, {"content_type": "text/plain"}, {"body": b""}) * 2:
        with CaptureQueriesContext(connection) as captured:
            assert heartbeat(running, worker_id=worker_id, **sent).status_code in {415, 422}
        costs.append([query["sql"].split()[0] for query in captured.captured_queries])
    of_the_key = ["SELECT"]
    assert costs[0] == [*of_the_key, "SELECT", *(["INSERT"] if worker == "there" else [])]
    assert costs[1:] == [of_the_key] * 7


def test_it_is_one_row_for_each_worker_and_another_than_its_keys_refused_start(running: Fleet) -> None:
    assert start(running, b"{").status_code == 422
    for send in (heartbeat, goodbye, heartbeat):
        cache.clear()
        assert send(running, b"[").status_code == 422
    rows = {row.call: row.pk for row in Refusal.objects.all()}
    assert rows == {"start": running.api_key.pk, "heartbeat": running.worker.pk}


def test_a_refusal_that_cannot_be_noted_is_the_ordinary_503(running: Fleet) -> None:
    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "workers_refusal" in sql:
            raise OperationalError
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        response = heartbeat(running, b"[")
    assert (response.status_code, response.json()) == (
        503,
        {"detail": "The database took too long for this call: try again."},
    )


# --- What people see -----------------------------------------------------------------------------------------------------


@pytest.fixture
def client(running: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def shown(client: Client, fleet: Fleet, identifier: str) -> str:
    """The words of a paragraph of the worker's page."""
    content = client.get(reverse("admin:workers_worker_change", args=[fleet.worker.pk])).content.decode()
    found = re.search(rf'<p[^>]* id="{identifier}".*?</p>', content, re.DOTALL)
    return " ".join(unescape(re.sub("<[^>]*>", " ", found[0])).split()) if found else ""


@calls
def test_the_page_says_when_and_why(running: Fleet, client: Client, name: str, send: Callable[..., Any]) -> None:
    assert not shown(client, running, "refused-call")
    assert send(running, content_type="text/plain").status_code == 415
    text = shown(client, running, "refused-call")
    assert re.match(
        rf"A {name.removeprefix('simple ')} was refused \d s ago , with the API key {running.api_key}", text
    )
    assert text.endswith(": The body must be application/json in UTF-8.")
    assert not shown(client, running, "refused")


def test_the_page_says_it_as_long_as_none_is_taken(running: Fleet, client: Client) -> None:
    assert heartbeat(running, b"[").status_code == 422
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(hours=2))
    Refusal.objects.update(occurred_at=timezone.now() - timedelta(hours=1))
    assert shown(client, running, "refused-call")
    assert heartbeat(running).status_code == 204
    assert not shown(client, running, "refused-call")


def test_a_disabled_workers_page_says_it_though_its_heartbeats_are_noted(running: Fleet, client: Client) -> None:
    disable(running)
    for _ in range(3):
        assert heartbeat(running).status_code == 409
    assert shown(client, running, "refused-call").endswith("This worker is disabled.")


def test_the_page_says_what_was_cut(running: Fleet, client: Client) -> None:
    assert not shown(client, running, "cuts")
    assert heartbeat(running, b'{"system_info":{"hostname":"w","load":NaN}}').status_code == 204
    assert shown(client, running, "cuts") == (
        "Of what this process reports, this was cut: numbers that are not finite or too long."
    )
    WorkerInstance.objects.all().delete()
    assert start(running, {"system_info": {"cmdline": "x" * 8_000}}).status_code == 200
    assert shown(client, running, "cuts").endswith("this was cut: texts beyond 4,096 characters.")


def test_the_page_marks_a_line_and_a_message_that_were_cut(running: Fleet, client: Client) -> None:
    body = json.dumps({"logs": ["short", "l" * 1_001]}).encode()
    assert heartbeat(running, body).status_code == 204
    assert goodbye(running, json.dumps({"error_message": "m" * 2_001}).encode()).status_code == 204
    content = client.get(reverse("admin:workers_worker_change", args=[running.worker.pk])).content.decode()
    assert content.count("… (cut)") == 2
    assert re.search(r"<bdi>l{1000}</bdi>… \(cut\)", content)
    assert re.search(r"<bdi>m{2000}</bdi>… \(cut\)", content)
