"""The worker API as a client sees it: sends one start or heartbeat, and tells what came of it."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
from django.test import Client

from environments.limits import counts
from tests.support import factories
from tests.support.factories import Fleet
from workers.models import WorkerInstance, WorkerStart

INVALID_TOKEN = 'Bearer error="invalid_token"'


def fresh_fleet() -> Fleet:
    """A fleet, with no request counted by any throttle yet."""
    cache.clear()
    counts.forget()
    return factories.create_fleet()


def start(  # noqa: PLR0913  # the parts of a request that hostile tests vary
    fleet: Fleet,
    body: Any = b"{}",
    *,
    token: str | None = None,
    authorization: str | None = "",
    worker_id: Any = None,
    content_type: str = "application/json",
    client: Client | None = None,
    **environ: Any,
) -> Any:
    """POSTs one start as the fleet's worker, but for what is given; `authorization` None sends no such header."""
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = authorization or f"Bearer {token or fleet.token}"
    path = f"/api/v1/workers/{fleet.worker.pk if worker_id is None else worker_id}/start"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (client or shared_client()).generic("POST", path, data, content_type, **environ)


def in_chunks(body: bytes, coding: str = "chunked") -> dict[str, Any]:
    """What the server gives of a chunked body, for `environ`; tests/running/test_framing.py sends some to a real one."""
    given = {"wsgi.input": BytesIO(body), "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    return {**given, "HTTP_TRANSFER_ENCODING": coding}


def heartbeat(fleet: Fleet, **body: Any) -> None:
    """One of the fleet's worker, which must be noted."""
    path, key = f"/api/v1/workers/{fleet.worker.pk}/heartbeat", f"Bearer {fleet.token}"
    response = Client().post(path, json.dumps(body), "application/json", HTTP_AUTHORIZATION=key)
    assert response.status_code == 204, response.content


@functools.cache
def shared_client() -> Client:
    """One for all, since making one loads every middleware, whose search for static files takes longer than a start."""
    return Client(raise_request_exception=False, enforce_csrf_checks=True)


def assert_refused(response: HttpResponse, status: int) -> None:
    """The status, the shape of an error body, its headers, and that nothing was recorded."""
    assert response.status_code == status, response.content[:500]
    assert_error_shape(response)
    assert_nothing_recorded()


def assert_error_shape(response: HttpResponse) -> None:
    """`{"detail": text}`, or the contract's HTTPValidationError for 422; JSON that no cache keeps."""
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    body = json.loads(response.content)
    assert list(body) == ["detail"]
    if response.status_code != 422:
        assert isinstance(body["detail"], str)
        assert body["detail"]
        return
    assert body["detail"]
    for error in body["detail"]:
        assert set(error) == {"loc", "msg", "type"}
        assert error["loc"][0] == "body"
        assert all(type(part) in {str, int} for part in error["loc"])
        assert error["msg"]
        assert error["type"]


def assert_nothing_recorded() -> None:
    assert not WorkerStart.objects.exists()
    assert not WorkerInstance.objects.exists()


def told_by(response: HttpResponse) -> tuple[bytes, str]:
    """All that a caller can compare of two answers: an id is new with each request."""
    return response.content, str(sorted((name, value) for name, value in response.items() if name != "X-Request-ID"))


@contextmanager
def counted_round_trips(trace: Path) -> Iterator[Callable[[], int]]:
    """How often this thread has asked PostgreSQL to answer what it had sent, as libpq's own trace tells.

    A change of direction does not tell, since a long answer may begin to arrive before all has been sent. At its end a
    pipeline may ask once more for what it has asked for already, which is no further wait.
    """
    driver = connection.connection.pgconn

    def count() -> int:
        messages = [line.split("\t") for line in trace.read_text().splitlines()]
        sent = [message[3] for message in messages if message[1] == "F"]
        return sum(
            kind == "Query" or (kind in {"Sync", "Flush"} and before not in {"Sync", "Flush"})
            for before, kind in itertools.pairwise(["Sync", *sent])
        )

    with trace.open("w") as file:
        driver.trace(file.fileno())
        try:
            yield count
        finally:
            driver.untrace()
