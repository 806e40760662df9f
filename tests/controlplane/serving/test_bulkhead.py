"""People, readers and one tenant's waiting calls never hold all threads, however many there are."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from typing import Any

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client, RequestFactory
from pytest_django import Settings

from controlplane.middleware.circuit import CircuitMiddleware
from controlplane.serving import bulkhead as module
from controlplane.serving.bulkhead import Bulkhead, Kind, bulkhead, kind_of
from tests.support import factories
from tests.support.calls import assert_error_shape, fresh_fleet, heartbeat, shared_client, start
from tests.support.factories import Fleet
from tests.support.undoing import undone

THREADS = [1, 2, 3, 4, 8]
COUNTED = (Kind.PEOPLE, Kind.READERS)
SOME_ID = "d3b07384-d9a0-4c9b-8f3e-0f6b7a1f9e11"
#: Method, path, and whose it is.
REQUESTS = [
    ("POST", f"/api/v1/workers/{SOME_ID}/start", Kind.WORKERS),
    ("POST", f"/api/v1/worker-queues/{SOME_ID}/start", Kind.WORKERS),
    ("POST", "/api/v1/workers/register", Kind.WORKERS),
    ("POST", "/api/v1/workers/heartbeat", Kind.WORKERS),
    ("POST", f"/api/v1/workers/{SOME_ID}/heartbeat", Kind.WORKERS),
    ("POST", f"/api/v1/workers/{SOME_ID}/disconnect", Kind.WORKERS),
    ("GET", f"/api/v1/workers/{SOME_ID}/start", Kind.READERS),
    ("GET", "/api/v1/worker-queues", Kind.READERS),
    ("GET", "/api/v1/workers", Kind.READERS),
    ("POST", "/api/v1/environments", Kind.READERS),
    ("PATCH", f"/api/v1/environments/{SOME_ID}", Kind.READERS),
    ("DELETE", f"/api/v1/worker-queues/{SOME_ID}", Kind.READERS),
    ("POST", f"/api/v1/environments/{SOME_ID}/worker-queues", Kind.READERS),
    ("DELETE", f"/api/v1/worker-queues/{SOME_ID}/workers/build-7/update-lock", Kind.WORKERS),
    ("GET", "/api/ready", None),
    ("GET", "/api/health/detailed", None),
    ("GET", f"/api/v1/worker-queues/{SOME_ID}/workers", Kind.READERS),
    ("GET", f"/api/v1/worker-queues/{SOME_ID}/metrics", Kind.READERS),
    ("GET", f"/api/v1/worker-queues/{SOME_ID}/install-script", Kind.READERS),
    ("GET", "/api/v1/environments", Kind.READERS),
    ("GET", f"/api/v1/environments/{SOME_ID}/worker-queues", Kind.READERS),
    ("GET", f"/api/v1/environments/{SOME_ID}", Kind.WORKERS),
    ("GET", f"/api/v1/worker-queues/{SOME_ID}", Kind.WORKERS),
    ("GET", f"/api/v1/worker-queues/{SOME_ID}/config", Kind.WORKERS),
    ("POST", f"/api/v1/worker-queues/{SOME_ID}/workers/x/update-lock", Kind.WORKERS),
    ("GET", "/api/v1/of/tomorrow", Kind.READERS),
    *(
        (method, f"/api/v1/{path}", Kind.READERS)
        for path in (
            "registered-workers",
            "api-keys",
            "temporal-connections",
            "litellm-connections",
            "telemetry-settings",
        )
        for method, path in (
            ("GET", path),
            ("POST", path),
            ("PATCH", f"{path}/{SOME_ID}"),
            ("DELETE", f"{path}/{SOME_ID}"),
        )
    ),
    ("POST", f"/api/v1/telemetry-settings/{SOME_ID}/verify", Kind.READERS),
    ("POST", f"/api/v1/api-keys/{SOME_ID}/rotate", Kind.READERS),
    ("PATCH", "/api/v1/organization", Kind.READERS),
    ("GET", "/api/v1/organization", Kind.WORKERS),
    ("GET", "/api/v1/members", Kind.READERS),
    ("GET", f"/api/v1/registered-workers/{SOME_ID}", Kind.WORKERS),
    ("GET", f"/api/v1/temporal-connections/{SOME_ID}", Kind.WORKERS),
    ("GET", "/admin/", Kind.PEOPLE),
    ("POST", "/admin/workers/worker/bulk/move/", Kind.PEOPLE),
    ("GET", "/admin/login/", Kind.PEOPLE),
    ("GET", "/api/docs", Kind.PEOPLE),
    ("GET", "/api/openapi.json", Kind.PEOPLE),
    ("GET", "/admin/jsi18n/", None),
    ("GET", "/api/health", None),
    ("GET", "/livez", None),
    ("GET", "/readyz", None),
    ("GET", "/static/controlplane/icon.svg", None),
]
#: All of these, and what is nowhere.
PATHS = (
    *{path for _, path, _ in REQUESTS},
    "/",
    "/nothing",
    "/admin/nothing/",
    "/api/nothing",
    "/metrics",
    "/favicon.ico",
)


@pytest.mark.parametrize(("method", "path", "kind"), REQUESTS)
def test_each_request_is_somebodys(method: str, path: str, kind: Kind | None) -> None:
    assert kind_of(RequestFactory().generic(method, path)) is kind


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("order", [COUNTED, COUNTED[::-1]])
def test_neither_holds_more_than_half_nor_both_all_threads(threads: int, order: tuple[Kind, ...]) -> None:
    own = Bulkhead(threads)
    for kind in order:
        while own.enter(kind):
            pass
    assert all(own.held(kind) <= max(1, threads // 2) for kind in COUNTED)
    assert 0 < sum(map(own.held, COUNTED)) <= max(1, threads - 1)


@pytest.mark.parametrize("shared", THREADS)
def test_what_people_and_readers_share_grows_with_no_further_threads(shared: int) -> None:
    few, many = Bulkhead(shared), Bulkhead(shared + 8, shared)
    for own in (few, many):
        for kind in COUNTED:
            while own.enter(kind):
                pass
    assert [many.held(kind) for kind in COUNTED] == [few.held(kind) for kind in COUNTED]


def test_with_four_threads_neither_leaves_nothing_for_the_other() -> None:
    for first, other in (COUNTED, COUNTED[::-1]):
        own = Bulkhead(4)
        while own.enter(first):
            pass
        assert own.enter(other)


def test_a_place_is_left_once_however_often() -> None:
    own = Bulkhead(4)
    place, _ = own.enter(Kind.PEOPLE), own.enter(Kind.PEOPLE)
    assert place
    assert own.enter(Kind.PEOPLE) is None
    place.leave()
    place.leave()
    assert own.held(Kind.PEOPLE) == 1
    assert own.enter(Kind.PEOPLE)


@pytest.mark.parametrize("kind", COUNTED)
def test_the_last_place_is_for_another_than_who_is_held_up_in_the_one_before(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Bulkhead(4)
    assert own.enter(kind, "quick")
    assert own.enter(kind, "quick")
    own = Bulkhead(4)
    monkeypatch.setattr(module, "HELD_UP", -1.0)
    assert own.enter(kind, "slow")
    assert own.enter(kind, "slow") is None
    assert own.enter(kind, "other")


# --- What holds a place, and until when ----------------------------------------------------------------------------------


def answer_of(view: Any, path: str = "/admin/") -> Any:
    return CircuitMiddleware(view)(RequestFactory().get(path))


def lines() -> Iterator[bytes]:
    yield b"1\n"
    yield b"2\n"


def fail(_: Any) -> HttpResponse:
    raise RuntimeError


@pytest.mark.django_db  # an answer's end looks after connections
def test_a_page_leaves_with_its_answer_and_with_an_error() -> None:
    seen: list[int] = []

    def view(_: Any) -> HttpResponse:
        seen.append(bulkhead.held(Kind.PEOPLE))
        return HttpResponse()

    answer_of(view)
    with pytest.raises(RuntimeError):
        answer_of(fail)
    assert seen == [1]
    assert bulkhead.held(Kind.PEOPLE) == 0


@pytest.mark.django_db  # an answer's end looks after connections
def test_a_stream_holds_its_place_until_it_is_sent() -> None:
    response = answer_of(lambda _: StreamingHttpResponse(lines()))
    assert bulkhead.held(Kind.PEOPLE) == 1
    assert b"".join(response) == b"1\n2\n"
    assert bulkhead.held(Kind.PEOPLE) == 0
    response.close()
    assert bulkhead.held(Kind.PEOPLE) == 0


@pytest.mark.django_db  # an answer's end looks after connections
def test_a_stream_that_is_broken_off_leaves() -> None:
    response = answer_of(lambda _: StreamingHttpResponse(lines()))
    next(iter(response))
    response.close()
    assert bulkhead.held(Kind.PEOPLE) == 0


@pytest.mark.django_db  # an answer's end looks after connections
def test_a_stream_that_fails_leaves() -> None:
    def failing() -> Iterator[bytes]:
        yield b"1"
        raise RuntimeError

    response = answer_of(lambda _: StreamingHttpResponse(failing()))
    with pytest.raises(RuntimeError):
        list(response)
    assert bulkhead.held(Kind.PEOPLE) == 0
    response.close()


@pytest.mark.django_db  # an answer's end looks after connections
def test_a_stream_that_nobody_reads_or_closes_leaves_when_it_is_forgotten() -> None:
    response = answer_of(lambda _: StreamingHttpResponse(lines()))
    del response
    gc.collect()
    assert bulkhead.held(Kind.PEOPLE) == 0


# --- Over HTTP -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(db: None) -> Fleet:
    fleet = fresh_fleet()
    fleet.token = factories.issue_token(fleet.organization)
    return fleet


@pytest.fixture
def crowded() -> Iterator[None]:
    """As many people and readers are served as may be."""
    with ExitStack() as stack:
        for kind in COUNTED:
            while place := bulkhead.enter(kind, "somebody"):
                stack.callback(place.leave)
        yield


def test_workers_are_served_in_a_crowd(fleet: Fleet, crowded: None) -> None:
    assert start(fleet).status_code == 200
    heartbeat(fleet)
    path, key = f"/api/v1/worker-queues/{fleet.queue.pk}/start", f"Bearer {fleet.token}"
    assert shared_client().post(path, b"", "application/json", HTTP_AUTHORIZATION=key).status_code == 200
    for path in ("/livez", "/readyz", "/api/health"):
        assert Client().get(path).status_code == 200


def test_a_reader_too_many_is_told_to_come_again(fleet: Fleet, crowded: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        response = shared_client().get("/api/v1/worker-queues", HTTP_AUTHORIZATION=f"Bearer {fleet.token}")
    assert response.status_code == 503
    assert_error_shape(response)
    assert int(response["Retry-After"]) > 0


@pytest.mark.parametrize("path", ["/admin/login/", "/admin/", "/api/docs"])
def test_a_person_too_many_is_shown_a_page(
    fleet: Fleet, crowded: None, django_assert_num_queries: Any, path: str
) -> None:
    with django_assert_num_queries(0):
        response = Client().get(path)
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert b"Too much at once" in response.content


def test_monitoring_too_much_is_told_to_come_again(fleet: Fleet, crowded: None, settings: Settings) -> None:
    settings.METRICS_TOKEN = "a-token-of-monitoring-for-these-tests"
    response = Client().get("/metrics", HTTP_AUTHORIZATION=f"Bearer {settings.METRICS_TOKEN}")
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert Client().get("/metrics").status_code == 401  # nobody needs a place to be told that


def test_every_answer_gives_its_place_back(fleet: Fleet) -> None:
    key = f"Bearer {fleet.token}"
    for path in ("/admin/", "/admin/login/", "/api/docs", "/api/openapi.json", "/api/nothing", "/admin/nothing/"):
        Client().get(path)
    for path in ("worker-queues", "environments", f"worker-queues/{SOME_ID}", "worker-queues?limit=0"):
        shared_client().get(f"/api/v1/{path}", HTTP_AUTHORIZATION=key)
        shared_client().get(f"/api/v1/{path}")
    assert not bulkhead.places


class Watched(BytesIO):
    """A body that notes how many places people hold while it is read."""

    held: set[int]

    def read(self, size: int | None = -1) -> bytes:
        self.held.add(bulkhead.held(Kind.PEOPLE))
        return super().read(size)


@pytest.mark.parametrize(
    "sent", [{"HTTP_TRANSFER_ENCODING": "chunked"}, {"CONTENT_LENGTH": ""}, {"CONTENT_LENGTH": "3"}]
)
def test_what_anybody_may_send_slowly_is_read_within_peoples_share_or_never(
    fleet: Fleet, subtests: pytest.Subtests, sent: dict[str, str]
) -> None:
    framing = {"wsgi.input_terminated": True, "CONTENT_TYPE": "application/x-www-form-urlencoded", **sent}
    for method, path in sorted({(way, path) for way in ("POST", "PUT", "DELETE") for path in PATHS}):
        with subtests.test(f"{method} {path}"), undone():
            body = Watched(b"a=b")
            body.held = set()
            shared_client().generic(method, path, **{"wsgi.input": body, **framing})
            assert body.held <= {1}


# --- Tenants whose calls wait ---------------------------------------------------------------------------------------------
