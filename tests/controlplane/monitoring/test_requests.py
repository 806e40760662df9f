"""One line for each request, with ids and outcomes and nothing else."""

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.utils.log import log_response

from controlplane.monitoring.logs import JsonFormatter
from controlplane.monitoring.requests import REQUEST_ID
from environments.models import Role, TemporalConnection
from tests.support.calls import fresh_fleet, start
from tests.support.console import member, signed_in
from tests.support.factories import Fleet

pytestmark = pytest.mark.django_db

OWN_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
CANARY = "canary-that-no-log-may-hold"


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """Every line that is logged, as the formatter writes it at that moment."""
    written: list[dict[str, Any]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(json.loads(JsonFormatter().format(record)))

    handler = Handler()
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def fleet() -> Fleet:
    return fresh_fleet()


def test_a_start_is_one_line(fleet: Fleet, lines: list[dict[str, Any]]) -> None:
    response = start(fleet, {"system_info": {"a": CANARY}}, HTTP_USER_AGENT=CANARY)
    assert response.status_code == 200
    (line,) = lines
    assert 0 < line.pop("seconds") < 5
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "logger": "controlplane.requests",
        "message": "request",
        "request_id": response["X-Request-ID"],
        "method": "POST",
        "route": "api/v1/workers/<str:worker_id>/start",
        "status": 200,
        "client": "127.0.0.1",
        "api_key_id": str(fleet.api_key.pk),
        "worker_id": str(fleet.worker.pk),
    }


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (f"/api/v1/{CANARY}", "^api/"),
        (f"/api/v1/workers/{CANARY}/heartbeat", "api/v1/workers/<str:worker_id>/heartbeat"),
        (f"/{CANARY}", ""),
        (f"/livez?a={CANARY}", "livez"),
        (f"/static/{CANARY}", ""),
        (f"//api/v1/{CANARY}", "^api/"),
    ],
)
def test_of_a_path_the_route_alone_is_told(lines: list[dict[str, Any]], path: str, route: str) -> None:
    path, _, query = path.partition("?")
    Client().generic(
        "POST",
        "/",
        PATH_INFO=path,
        QUERY_STRING=query,
        HTTP_REFERER=CANARY,
        HTTP_COOKIE=CANARY,
        HTTP_AUTHORIZATION=f"Bearer {CANARY}",
    )
    (line,) = [line for line in lines if line["logger"] == "controlplane.requests"]
    assert line["route"] == route
    assert CANARY not in json.dumps(lines)


def test_an_unknown_worker_is_named(fleet: Fleet, lines: list[dict[str, Any]]) -> None:
    worker_id = str(uuid4())
    assert start(fleet, worker_id=worker_id).status_code == 404
    (line,) = lines
    assert (line["status"], line["worker_id"]) == (404, worker_id)


def test_an_answer_that_the_service_is_unavailable_is_one_line(fleet: Fleet, lines: list[dict[str, Any]]) -> None:
    TemporalConnection.objects.update(sealed_api_key="cp1.nonsense")
    assert start(fleet).status_code == 503
    assert [line["logger"] for line in lines] == ["controlplane.api.errors", "controlplane.requests"]


def test_a_refusal_by_the_console_is_one_line(fleet: Fleet, lines: list[dict[str, Any]]) -> None:
    """However it is made: a role that is too low is no mistake of ours that a traceback could tell of."""
    client = signed_in(member(fleet.organization, Role.VIEWER))
    assert client.get("/admin/workers/worker/add/").status_code == 403
    assert [(line["logger"], line["status"]) for line in lines] == [("controlplane.requests", 403)]


def test_an_unexpected_error_is_told_with_its_traceback(rf: RequestFactory, lines: list[dict[str, Any]]) -> None:
    error = ZeroDivisionError()
    response = HttpResponse(status=500)
    log_response("%s: %s", "Internal Server Error", "/", response=response, request=rf.get("/"), exception=error)
    (line,) = lines
    assert "ZeroDivisionError" in line["exception"]


def test_what_else_is_logged_of_a_request_has_its_id(fleet: Fleet, lines: list[dict[str, Any]]) -> None:
    response = start(fleet, token=f"{fleet.token[:-4]}AAAA")
    assert [line["logger"] for line in lines] == ["workers.api.authentication", "controlplane.requests"]
    assert {line["request_id"] for line in lines} == {response["X-Request-ID"]}
    assert "api_key_id" not in lines[-1]
    logging.getLogger("workers").warning("outside of a request")
    assert "request_id" not in lines[-1]


@pytest.mark.parametrize(
    ("own_id", "is_taken"),
    [
        (OWN_ID, True),
        ("0123456789abcdef", True),
        ("0123456789abcde", False),
        ("a" * 65, False),
        ("", False),
        ("0123456789abcdef\n", False),
        ("0123456789 abcdef", False),
        ("eyJhbGciOiJIUzI1NiIsImtpZCI6ImFjcC0xIn0.eyJhIjoxfQ.c2ln", False),
        ("0123456789abcde\u00e9", False),
        ("<script>alert(1)</script>", False),
    ],
)
def test_a_callers_own_id_is_taken_if_it_is_one(lines: list[dict[str, Any]], own_id: str, is_taken: bool) -> None:
    response = Client().get("/livez", HTTP_X_REQUEST_ID=own_id)
    (line,) = lines
    assert line["request_id"] == response["X-Request-ID"]
    assert (response["X-Request-ID"] == own_id) is is_taken
    assert REQUEST_ID.fullmatch(response["X-Request-ID"])
