"""Every endpoint with every kind of caller: one table of expected statuses, held against the routes themselves."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from environments.models import Environment
from tests.support import documents, factories
from tests.support.calls import INVALID_TOKEN, assert_error_shape, told_by
from tests.support.factories import ACTOR, Fleet
from tests.support.undoing import undone
from workers.api_keys.issuing import revoke_api_key, rotate_api_key
from workers.models import Refusal, Worker, WorkerQueue

UNUSABLE = ("no key", "malformed", "revoked", "expired", "rotated out")
#: Keys of the object's organization by their scope; `another` is one that does not cover the object.
OF_THE_ORGANIZATION = (
    "organization",
    "environment",
    "queue",
    "worker",
    "another environment",
    "another queue",
    "another worker",
)
CALLERS = (*UNUSABLE, "another organization", *OF_THE_ORGANIZATION)

# Columns as in CALLERS:   none mal. rev. exp. rot. | org2 | org env que wor | env2 que2 wor2
STARTING_A_WORKER = "       401 401 401 401 401   404    200 200 200 200   403  403  403"
OF_A_RUNNING_WORKER = "     401 401 401 401 401   404    204 204 204 204   403  403  403"
OF_A_QUEUE = "              401 401 401 401 401   404    200 200 200 403   403  403  403"
RELEASING = "               401 401 401 401 401   404    204 204 204 403   403  403  403"
OF_AN_ENVIRONMENT = "       401 401 401 401 401   404    200 200 403 403   403  403  403"
LIST = "                    401 401 401 401 401   200    200 200 200 200   200  200  200"
PUBLIC = "                  200 200 200 200 200   200    200 200 200 200   200  200  200"
NOWHERE = "                 404 404 404 404 404   404    404 404 404 404   404  404  404"

MATRIX = {
    "POST /api/v1/workers/register": OF_A_QUEUE,
    "POST /api/v1/workers/heartbeat": OF_A_RUNNING_WORKER,
    "POST /api/v1/workers/{worker_id}/start": STARTING_A_WORKER,
    "POST /api/v1/workers/{worker_id}/heartbeat": OF_A_RUNNING_WORKER,
    "POST /api/v1/workers/{worker_id}/disconnect": OF_A_RUNNING_WORKER,
    "GET /api/v1/worker-queues": LIST,
    "GET /api/v1/worker-queues/{queue_id}": OF_A_QUEUE,
    "POST /api/v1/worker-queues/{queue_id}/start": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/workers": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/config": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/metrics": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/worker-command": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/install-script": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/update-lock-status": OF_A_QUEUE,
    "POST /api/v1/worker-queues/{queue_id}/workers/{worker_id}/update-lock": OF_A_QUEUE,
    "DELETE /api/v1/worker-queues/{queue_id}/workers/{worker_id}/update-lock": RELEASING,
    "GET /api/v1/environments": LIST,
    "GET /api/v1/environments/{environment_id}": OF_AN_ENVIRONMENT,
    "GET /api/v1/environments/{environment_id}/worker-queues": OF_AN_ENVIRONMENT,
    "GET /api/health": PUBLIC,
    "GET /api/openapi.json": PUBLIC,
    "GET /api/docs": PUBLIC,
    "GET /api/": NOWHERE,
}
#: What is served beside the API and the console, which tests/workers/admin/test_roles.py has; nothing of it is anybody's.
PLAIN = {"/": 302, "/favicon.ico": 302, "/livez": 200, "/readyz": 200}
#: The path's part that names an object of ours; a lock's holder is any text.
ID = re.compile(r"\{(?:queue_id|environment_id)\}|(?<=/v1/workers/)\{worker_id\}")
TAKING_IDS = [endpoint for endpoint in MATRIX if ID.search(endpoint)]
WITH_A_KEY = [endpoint for endpoint, row in MATRIX.items() if row not in {PUBLIC, NOWHERE}]
WITH_A_BODY = [endpoint for endpoint in MATRIX if endpoint.startswith("POST ")]
LARGE = b'{"a":"' + b"x" * 1_100_000 + b'"}'
#: Body, media type, and the status of its refusal.
BAD_BODIES = (
    (b"{", "text/plain", 415),
    (LARGE, "text/plain", 415),
    (LARGE, "application/json", 413),
    (b"{", "application/json", 422),
    (b"[]", "application/json", 422),
)
MALFORMED_IDS = {
    "word": "not-a-uuid",
    "no dashes": uuid4().hex,
    "braces": f"{{{uuid4()}}}",
    "NUL": "\0",
    "encoded slash": "a/b",
    "2,000 characters": "a" * 2_000,
    "digits of other scripts": str(UUID(int=0)).replace("0", "٠"),
}


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


@dataclass
class World:
    """The objects that the calls are about, and others of the same organization and of another one."""

    fleet: Fleet
    other_environment: Environment
    other_queue: WorkerQueue
    other_worker: Worker
    foreign: Fleet

    def authorization(self, caller: str) -> str | None:
        now = timezone.now()
        match caller:
            case "no key":
                return None
            case "malformed":
                return "Bearer nonsense"
            case "revoked":
                issued = factories.issue_key(self.fleet.organization)
                revoke_api_key(issued.row.pk, reason="leaked", actor=ACTOR, now=now)
            case "expired":
                issued = factories.issue_key(self.fleet.organization, age=timedelta(days=91))
            case "rotated out":
                issued = factories.issue_key(self.fleet.organization)
                rotate_api_key(issued.row.pk, actor=ACTOR, now=now, grace_period=timedelta(0))
            case _:
                issued = factories.issue_key(self.target(caller))
        return f"Bearer {issued.token.reveal()}"

    def target(self, caller: str) -> Any:
        if caller == "another organization":
            return self.foreign.organization
        if caller.startswith("another "):
            return getattr(self, caller.replace("another", "other").replace(" ", "_"))
        return getattr(self.fleet, caller)


@pytest.fixture
def world(db: None) -> World:
    cache.clear()
    fleet = factories.create_fleet()
    world = World(
        fleet=fleet,
        other_environment=factories.create_environment(fleet.organization, "staging"),
        other_queue=factories.create_queue(fleet.environment, "other"),
        other_worker=factories.create_worker(fleet.queue, "worker-2"),
        foreign=factories.create_fleet(),
    )
    sent = send("POST /api/v1/workers/{worker_id}/start", fleet, f"Bearer {fleet.token}")
    assert sent.status_code == 200, sent.content
    return world


@functools.cache
def strict_client() -> Client:
    """One that, as a server does and Django's test client does not, has requests checked for forgery."""
    return Client(raise_request_exception=False, enforce_csrf_checks=True)


def body_of(endpoint: str, fleet: Fleet) -> dict[str, Any]:
    bodies = {
        "POST /api/v1/workers/register": {"environment_name": f"{fleet.organization.pk}.{fleet.environment.name}"},
        "POST /api/v1/workers/heartbeat": {
            "worker_id": str(fleet.worker.pk),
            "environment_name": fleet.environment.name,
        },
        "POST /api/v1/worker-queues/{queue_id}/workers/{worker_id}/update-lock": {"worker_id": "build-7"},
    }
    return bodies.get(endpoint, {})


def path_of(endpoint: str, fleet: Fleet, identifier: str | None = None) -> str:
    """The path about the fleet's objects; `identifier` in the place of their id."""
    path = endpoint.partition(" ")[2]
    if identifier is not None:
        path = ID.sub(quote(identifier, safe=""), path)
    path = path.replace("/{worker_id}/update-lock", "/build-7/update-lock")
    ids = {
        "worker_id": fleet.worker.pk,
        "queue_id": fleet.queue.pk,
        "environment_id": fleet.environment.pk,
    }
    return re.sub(r"\{(\w+)\}", lambda found: str(ids[found[1]]), path)


def send(  # noqa: PLR0913  # the parts of a request that tests vary
    endpoint: str,
    fleet: Fleet,
    authorization: str | None,
    *,
    identifier: str | None = None,
    body: Any = None,
    content_type: str = "application/json",
    **environ: Any,
) -> Any:
    headers = {} if authorization is None else {"HTTP_AUTHORIZATION": authorization}
    method, data = endpoint.partition(" ")[0], b""
    if method == "POST":
        data = body if isinstance(body, bytes) else json.dumps(body_of(endpoint, fleet) | (body or {})).encode()
    path = path_of(endpoint, fleet, identifier)
    return strict_client().generic(method, path, data, content_type if data else "", **headers, **environ)


def seen_by_the_client(response: Any) -> tuple[int, bytes, str]:
    return response.status_code, *told_by(response)


def everything() -> dict[str, list[Any]]:
    """All rows but those that tell of refused starts."""
    return {label: rows for label, rows in documents.everything().items() if label != Refusal._meta.label}


# --- The table and the routes are the same ------------------------------------------------------------------------------


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


# --- The table ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in MATRIX if endpoint.startswith("GET ")])
def test_reading_changes_nothing(world: World, endpoint: str) -> None:
    authorization = world.authorization("organization")
    before = everything()
    send(endpoint, world.fleet, authorization)
    assert everything() == before


@pytest.mark.parametrize("endpoint", WITH_A_KEY)
def test_every_endpoint_takes_the_scheme_of_existing_clients(world: World, endpoint: str) -> None:
    token = factories.issue_token(world.fleet.organization)
    for scheme in ("UserKey", "userkey", "bearer"):
        assert send(endpoint, world.fleet, f"{scheme} {token}").status_code in {200, 204}


@pytest.mark.parametrize("endpoint", WITH_A_KEY)
def test_no_endpoint_takes_the_key_from_query_cookie_or_body(world: World, endpoint: str) -> None:
    token = factories.issue_token(world.fleet.organization)
    method, path = endpoint.partition(" ")[0], path_of(endpoint, world.fleet)
    data = json.dumps({"api_key": token, "worker_token": token}).encode()
    response = strict_client().generic(
        method, f"{path}?api_key={token}&token={token}", data, "application/json", HTTP_COOKIE=f"Authorization={token}"
    )
    assert response.status_code == 401


# --- Lists have what the key covers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "names"),
    [
        ("organization", ["production/default", "production/other", "staging/default"]),
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


# --- Foreign, unknown and malformed are the same ------------------------------------------------------------------------


def test_the_endpoints_that_take_ids_are_found() -> None:
    assert len(TAKING_IDS) == 15


@pytest.mark.parametrize("endpoint", TAKING_IDS)
def test_a_foreign_id_is_answered_as_an_unknown_one(world: World, endpoint: str) -> None:
    for caller in ("organization", "environment", "queue", "worker"):
        authorization = world.authorization(caller)
        before = everything()
        unknown = send(endpoint, world.fleet, authorization, identifier=str(uuid4()))
        foreign = send(endpoint, world.foreign, authorization)
        assert seen_by_the_client(foreign) == seen_by_the_client(unknown), caller
        assert foreign.status_code == 404
        assert foreign.json() == {"detail": "Not found."}
        assert everything() == before


@pytest.mark.parametrize("endpoint", TAKING_IDS)
def test_a_malformed_id_is_answered_as_an_unknown_one(world: World, endpoint: str) -> None:
    authorization = world.authorization("organization")
    unknown = send(endpoint, world.fleet, authorization, identifier=str(uuid4()))
    for name, identifier in MALFORMED_IDS.items():
        malformed = send(endpoint, world.fleet, authorization, identifier=identifier)
        assert malformed.status_code == 404, name
        assert seen_by_the_client(malformed) == seen_by_the_client(unknown), name


@pytest.mark.parametrize("endpoint", TAKING_IDS)
def test_an_id_of_another_kind_is_unknown(world: World, endpoint: str) -> None:
    authorization = world.authorization("organization")
    own = path_of(endpoint, world.fleet)
    for row in (world.fleet.worker, world.fleet.queue, world.fleet.environment, world.fleet.temporal):
        if str(row.pk) not in own:
            assert send(endpoint, world.fleet, authorization, identifier=str(row.pk)).status_code == 404


@pytest.mark.parametrize("identifier", [*MALFORMED_IDS.values(), "foreign"], ids=[*MALFORMED_IDS, "foreign"])
def test_a_malformed_or_foreign_id_in_the_body_is_answered_as_an_unknown_one(world: World, identifier: str) -> None:
    identifier = identifier.replace("foreign", str(world.foreign.worker.pk))
    authorization = world.authorization("organization")
    unknown, other = (
        send("POST /api/v1/workers/heartbeat", world.fleet, authorization, body={"worker_id": text})
        for text in (str(uuid4()), identifier)
    )
    assert other.status_code == 404
    assert seen_by_the_client(other) == seen_by_the_client(unknown)


@pytest.mark.parametrize("spelling", ["{} ", " {}", "{}\n", "{{{}}}", "urn:uuid:{}", "{}\0"])
def test_another_spelling_of_the_own_id_in_the_body_is_unknown(world: World, spelling: str) -> None:
    body = {"worker_id": spelling.format(world.fleet.worker.pk)}
    authorization = world.authorization("organization")
    assert send("POST /api/v1/workers/heartbeat", world.fleet, authorization, body=body).status_code == 404


@pytest.mark.parametrize(
    "name",
    ["nowhere", "{foreign}.production", "{own}.nowhere", "{own}.", "PRODUCTION", "production ", "a/b", "..", "\0"],
)
def test_an_unknown_or_foreign_environment_is_not_found_by_register(world: World, name: str) -> None:
    name = name.format(foreign=world.foreign.organization.pk, own=world.fleet.organization.pk)
    authorization = world.authorization("organization")
    unknown, other = (
        send("POST /api/v1/workers/register", world.fleet, authorization, body={"environment_name": text})
        for text in ("no-such-environment", name)
    )
    assert other.status_code == 404
    assert seen_by_the_client(other) == seen_by_the_client(unknown)


def test_register_refuses_an_environment_without_a_default_queue(world: World) -> None:
    authorization = world.authorization("organization")
    before = everything()
    response = send("POST /api/v1/workers/register", world.fleet, authorization, body={"environment_name": "staging"})
    assert response.status_code == 409
    assert_error_shape(response)
    assert everything() == before


# --- The order of refusal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", WITH_A_KEY)
def test_the_key_is_asked_for_first(world: World, endpoint: str) -> None:
    response = send(endpoint, world.fleet, None, identifier="nonsense", body=b"{", content_type="text/plain")
    assert response.status_code == 401


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in WITH_A_BODY if endpoint in TAKING_IDS])
def test_a_malformed_id_is_refused_before_the_body_is_read(world: World, endpoint: str) -> None:
    authorization = world.authorization("organization")
    response = send(endpoint, world.fleet, authorization, identifier="x", body=b"{", content_type="text/plain")
    assert response.status_code == 404


@pytest.mark.parametrize("who", ["organization", "another organization", "another environment"])
@pytest.mark.parametrize("endpoint", WITH_A_BODY)
def test_the_body_is_refused_before_the_object_is_looked_for(world: World, endpoint: str, who: str) -> None:
    authorization = world.authorization(who)
    before = everything()
    for body, content_type, status in BAD_BODIES:
        response = send(endpoint, world.fleet, authorization, body=body, content_type=content_type)
        assert response.status_code == status, (body[:20], response.content[:500])
        assert_error_shape(response)
    assert everything() == before


@pytest.mark.parametrize("endpoint", TAKING_IDS)
def test_an_id_is_taken_in_upper_case(world: World, endpoint: str) -> None:
    identifier = str(world.fleet.worker.pk if "/workers/{worker_id}" in endpoint[:30] else "") or None
    path = path_of(endpoint, world.fleet, identifier)
    upper = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", lambda found: found[0].upper(), path, count=1)
    assert upper != path
    response = send(endpoint, world.fleet, world.authorization("organization"), PATH_INFO=upper)
    assert response.status_code in {200, 204}, response.content


# --- Other methods, other paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted({endpoint.partition(" ")[2] for endpoint in MATRIX if "/api/v1" in endpoint}))
def test_other_methods_are_refused_and_the_right_ones_named(world: World, path: str) -> None:
    right = {endpoint.partition(" ")[0] for endpoint in MATRIX if endpoint.partition(" ")[2] == path} | {"OPTIONS"}
    right |= {"HEAD"} if "GET" in right else set()
    authorization = world.authorization("organization")
    before = everything()
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - right:
        response = strict_client().generic(
            method, path_of(f"{method} {path}", world.fleet), b"", HTTP_AUTHORIZATION=authorization
        )
        assert response.status_code == 405, method
        assert set(response["Allow"].split(", ")) == right
        if method != "HEAD":
            assert_error_shape(response)
    assert everything() == before


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in MATRIX if endpoint.startswith("GET ")])
def test_head_tells_what_get_tells_but_for_the_body(world: World, endpoint: str) -> None:
    path, authorization = path_of(endpoint, world.fleet), world.authorization("organization")
    told = {
        method: strict_client().generic(method, path, HTTP_AUTHORIZATION=authorization) for method in ("GET", "HEAD")
    }
    assert told["HEAD"].status_code == told["GET"].status_code
    assert not told["HEAD"].content
    volatile = {"X-Request-ID", "Set-Cookie"}
    shown = [{k: v for k, v in response.items() if k not in volatile} for response in told.values()]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("path", sorted({endpoint.partition(" ")[2] for endpoint in MATRIX if "/api/v1" in endpoint}))
def test_options_tells_the_methods_to_whoever_has_a_key(world: World, path: str) -> None:
    right = {endpoint.partition(" ")[0] for endpoint in MATRIX if endpoint.partition(" ")[2] == path} | {"OPTIONS"}
    right |= {"HEAD"} if "GET" in right else set()
    statuses = {"organization": 204, "another organization": 204, "no key": 401, "revoked": 401}
    authorizations = {caller: world.authorization(caller) for caller in statuses}
    before = everything()
    for caller, status in statuses.items():
        options = {"HTTP_AUTHORIZATION": found} if (found := authorizations[caller]) else {}
        response = strict_client().options(path_of(f"GET {path}", world.fleet), **options)
        assert response.status_code == status
        assert status != 204 or set(response["Allow"].split(", ")) == right
    assert everything() == before


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/",
        "/api/v1/executions",
        "/api/v1/executions/42/events",
        "/api/v1/analytics/batch",
        "/api/v1/workers",
        "/api/v1/workers/{worker_id}",
        "/api/v1/workers/{worker_id}/",
        "/api/v1/workers/{worker_id}/start/",
        "/api/v1/worker-queues/",
        "/api/v1/worker-queues/{queue_id}/workers/update-lock",
        "/api/v2/workers/{worker_id}/start",
        "/api/health/",
        "/api/",
    ],
)
def test_a_path_that_is_not_here_is_a_json_404_for_a_valid_key(world: World, path: str) -> None:
    authorization = world.authorization("worker")
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        path_here = path_of(f"{method} {path}", world.fleet)
        response = strict_client().generic(
            method, path_here, b"{}", "application/json", HTTP_AUTHORIZATION=authorization
        )
        assert response.status_code == 404
        assert_error_shape(response)


@pytest.mark.parametrize("endpoint", TAKING_IDS)
def test_a_base_url_that_ends_in_a_slash_works(world: World, endpoint: str) -> None:
    authorization = world.authorization("organization")
    response = send(endpoint, world.fleet, authorization, PATH_INFO=f"/{path_of(endpoint, world.fleet)}")
    assert response.status_code in {200, 204}, response.content


def test_health_is_healthy_and_takes_no_key(world: World) -> None:
    response = send("GET /api/health", world.fleet, None)
    assert response.json() == {"status": "healthy"}
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
