"""Foreign, unknown and malformed ids are answered alike, and errors in one order."""

import re
from uuid import UUID, uuid4

import pytest

from tests.support.callers import (
    ID,
    MATRIX,
    WITH_A_KEY,
    World,
    is_served,
    path_of,
    seen_by_the_client,
    send,
    strict_client,
)
from tests.support.calls import assert_error_shape
from tests.support.documents import everything

TAKING_IDS = [endpoint for endpoint in WITH_A_KEY if ID.search(endpoint)]
WITH_A_BODY = [
    endpoint for endpoint in WITH_A_KEY if endpoint.startswith(("POST ", "PATCH ")) and not endpoint.endswith("/verify")
]
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


def test_the_endpoints_that_take_ids_are_found() -> None:
    assert len(TAKING_IDS) == 31


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
    assert is_served(endpoint, response), response.content


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
    assert is_served(endpoint, response), response.content


def test_health_is_healthy_and_takes_no_key(world: World) -> None:
    response = send("GET /api/health", world.fleet, None)
    assert response.json() == {"status": "healthy"}
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
