"""Every endpoint with every kind of caller: one table of expected statuses, held against the routes themselves."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from tests.support import factories
from tests.support.callers import (
    CALLERS,
    MATRIX,
    WITH_A_KEY,
    World,
    is_served,
    path_of,
    seen_by_the_client,
    send,
    strict_client,
)
from tests.support.calls import INVALID_TOKEN, assert_error_shape
from tests.support.documents import everything
from tests.support.undoing import undone
from workers.models import KeyRole

#: What is served beside the API and the console, which tests/workers/admin/roles has; nothing of it is anybody's.
PLAIN = {"/": 302, "/favicon.ico": 302, "/livez": 200, "/readyz": 200}


class Route(NamedTuple):
    """A route below /api/ and the methods that its view answers."""

    path: str
    methods: frozenset[str]


def routes(resolver: URLResolver, prefix: str = "") -> Iterator[Route]:
    """Every route below a resolver, its parameters as `{name}`."""
    for pattern in resolver.url_patterns:
        path = prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(pattern.pattern).removeprefix("^"))
        if isinstance(pattern, URLResolver):
            yield from routes(pattern, path)
        elif isinstance(pattern, URLPattern):
            yield Route(path, frozenset(methods_of(pattern.callback)))


def methods_of(callback: Any) -> set[str]:
    """What a view implements; a function takes every method, for which GET stands."""
    view = getattr(callback, "view_class", None) or getattr(callback, "cls", None)
    if view is None:
        return {"GET"}
    implemented = {name for name in view.http_method_names if hasattr(view, name)}
    return {name.upper() for name in implemented - {"options", "head"}}


def served() -> set[str]:
    return {
        f"{method} {route.path}"
        for route in routes(get_resolver(), "/")
        for method in route.methods
        if route.path.startswith("/api/")
    }


def test_every_endpoint_is_in_the_table() -> None:
    assert served() - set(MATRIX) == set()


def test_every_row_of_the_table_is_an_endpoint() -> None:
    assert set(MATRIX) - served() == set()


def test_whatever_else_is_served_is_the_same_for_everybody(world: World) -> None:
    """A route that is neither the API's nor the console's has to be named here."""
    paths = {route.path for route in routes(get_resolver(), "/")}
    assert {path for path in paths if not path.startswith(("/api/", "/admin/"))} == set(PLAIN)
    for path, status in PLAIN.items():
        answers = [
            seen_by_the_client(strict_client().get(path, headers={"Authorization": world.authorization(caller) or ""}))
            for caller in ("no key", "malformed", "organization", "another organization")
        ]
        assert answers[0][0] == status
        assert answers == answers[:1] * 4


def test_the_document_has_the_endpoints_of_the_table() -> None:
    document = strict_client().get("/api/openapi.json").json()
    documented = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert documented == set(MATRIX) - {"GET /api/openapi.json", "GET /api/docs", "GET /api/"}


@pytest.mark.parametrize("caller", CALLERS)
def test_answers_as_the_table_says(world: World, subtests: pytest.Subtests, caller: str) -> None:
    authorization = world.authorization(caller)
    before = everything()
    for endpoint, row in MATRIX.items():
        with subtests.test(endpoint), undone():
            response = send(endpoint, world.fleet, authorization)
            assert_answered(response, authorization, int(row.split()[CALLERS.index(caller)]))
            assert response.status_code < 400 or everything() == before


def assert_answered(response: Any, authorization: str | None, status: int) -> None:
    assert response.status_code == status, response.content[:500]
    if status >= 400:
        assert_error_shape(response)
    if status == 401:
        assert response["WWW-Authenticate"] == ("Bearer" if authorization is None else INVALID_TOKEN)
    elif status == 403:
        assert response["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
    elif status == 204:
        assert response.content == b""


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in WITH_A_KEY if endpoint.startswith("GET ")])
def test_reading_changes_nothing(world: World, endpoint: str) -> None:
    authorization = world.authorization("organization")
    before = everything()
    send(endpoint, world.fleet, authorization)
    assert everything() == before


@pytest.mark.parametrize("endpoint", WITH_A_KEY)
def test_every_endpoint_takes_the_scheme_of_existing_clients(world: World, endpoint: str) -> None:
    token = factories.issue_token(world.fleet.organization, role=KeyRole.MANAGER)
    for scheme in ("UserKey", "userkey", "bearer"):
        with undone():
            assert is_served(endpoint, send(endpoint, world.fleet, f"{scheme} {token}"))


@pytest.mark.parametrize("endpoint", WITH_A_KEY)
def test_no_endpoint_takes_the_key_from_query_cookie_or_body(world: World, endpoint: str) -> None:
    token = factories.issue_token(world.fleet.organization)
    method, path = endpoint.partition(" ")[0], path_of(endpoint, world.fleet)
    data = json.dumps({"api_key": token, "worker_token": token}).encode()
    response = strict_client().generic(
        method, f"{path}?api_key={token}&token={token}", data, "application/json", HTTP_COOKIE=f"Authorization={token}"
    )
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("caller", "names"),
    [
        ("organization", ["production/default", "staging/default", "production/other"]),
        ("environment", ["production/default", "production/other"]),
        ("queue", ["production/default"]),
        ("worker", []),
        ("another environment", ["staging/default"]),
        ("another queue", ["production/other"]),
        ("another worker", []),
        ("another organization", ["production/default"]),
    ],
)
def test_the_list_of_queues_has_those_that_the_key_covers(world: World, caller: str, names: list[str]) -> None:
    factories.create_queue(world.other_environment)
    response = send("GET /api/v1/worker-queues", world.fleet, world.authorization(caller))
    owner = world.foreign if caller == "another organization" else world.fleet
    expected = [f"{owner.organization.pk}.{name.replace('/', '.')}" for name in names]
    assert [row["task_queue_name"] for row in response.json()] == expected
    assert response["X-Total-Count"] == str(len(names))


@pytest.mark.parametrize(
    ("caller", "names"),
    [
        ("organization", ["production", "staging"]),
        ("environment", ["production"]),
        ("queue", []),
        ("worker", []),
        ("another environment", ["staging"]),
        ("another queue", []),
        ("another worker", []),
        ("another organization", ["production"]),
    ],
)
def test_the_list_of_environments_has_those_that_the_key_covers(world: World, caller: str, names: list[str]) -> None:
    response = send("GET /api/v1/environments", world.fleet, world.authorization(caller))
    owner = world.foreign if caller == "another organization" else world.fleet
    assert [row["name"] for row in response.json()] == names
    assert {row["organization_id"] for row in response.json()} <= {owner.organization.pk}
    assert response["X-Total-Count"] == str(len(names))


@pytest.mark.parametrize("caller", ["organization", "environment"])
def test_the_queues_of_an_environment_are_its_own(world: World, caller: str) -> None:
    factories.create_queue(world.other_environment)
    endpoint = "GET /api/v1/environments/{environment_id}/worker-queues"
    response = send(endpoint, world.fleet, world.authorization(caller))
    assert [row["id"] for row in response.json()] == [str(world.fleet.queue.pk), str(world.other_queue.pk)]


@pytest.mark.sqlite
@pytest.mark.parametrize("endpoint", [endpoint for endpoint in MATRIX if endpoint.startswith("GET ")])
def test_nothing_that_is_read_names_another_organization(world: World, endpoint: str) -> None:
    response = send(endpoint, world.fleet, world.authorization("organization"))
    text = response.content.decode()
    theirs = world.foreign
    for mark in (theirs.worker.pk, theirs.queue.pk, theirs.environment.pk, f"{theirs.organization.pk}."):
        assert str(mark) not in text
