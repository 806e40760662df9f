"""Boot by queue and by environment: what is answered, which worker is made, what is recorded, and what is refused."""

import json
import re
from typing import Any
from uuid import UUID

import pytest
from pytest_django import Settings

from environments.models import LiteLLMConnection, TemporalConnection
from tests.support import factories
from tests.support.calls import assert_error_shape, fresh_fleet, shared_client, start
from tests.support.documents import everything
from tests.support.factories import Fleet
from workers.models import Worker, WorkerInstance, WorkerQueue, WorkerStart
from workers.models.instances import CUT

pytestmark = pytest.mark.sqlite

OWN_URL = "https://control-plane.example.com"
SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

#: What the existing worker sends, byte for byte.
BODY = (
    b'{"worker_sdk_version": "1.0.2", "system_info": {"hostname": "build-7", "platform": "Linux-6.8", "os_name": "Linux", '
    b'"os_version": "6.8.0", "python_version": "3.12.4", "cli_version": null, "sdk_version": "1.0.2", "pid": 4711, '
    b'"cwd": "/srv", "supported_runtimes": ["default", "claude_code"], "docker_available": true, "docker_version": null, '
    b'"cpu_count": 8, "cpu_percent": 12.5, "memory_total": 33554432000, "memory_used": 8123456789, '
    b'"memory_percent": 24.2, "disk_total": 512110190592, "disk_used": 101234567890, "disk_percent": 19.8, '
    b'"uptime_seconds": 86400.25}, "control_plane_url": "https://control-plane.example.com/"}'
)
STRINGS = (
    "worker_id",
    "task_queue_name",
    "temporal_namespace",
    "temporal_host",
    "temporal_api_key",
    "organization_id",
    "control_plane_url",
    "litellm_api_url",
    "litellm_api_key",
    "queue_name",
    "environment_name",
    "queue_id",
    "control_plane_sdk_version",
)


@pytest.fixture
def fleet(db: None) -> Fleet:
    """A fleet whose token is a key of its queue."""
    fleet = fresh_fleet()
    fleet.token = factories.issue_token(fleet.queue)
    return fleet


def post(fleet: Fleet, path: str, body: Any, *, token: str = "", **environ: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return shared_client().generic(
        "POST",
        f"/api/v1/{path}",
        data,
        "application/json" if data else "",
        HTTP_AUTHORIZATION=f"Bearer {token or fleet.token}",
        **environ,
    )


def boot(fleet: Fleet, body: Any = b"{}", *, queue_id: Any = None, **options: Any) -> Any:
    return post(fleet, f"worker-queues/{queue_id or fleet.queue.pk}/start", body, **options)


def register(fleet: Fleet, body: Any = None, **options: Any) -> Any:
    return post(fleet, "workers/register", {"environment_name": "production"} if body is None else body, **options)


BOOTS = {"queue start": boot, "register": register}


@pytest.fixture(params=BOOTS)
def either(request: pytest.FixtureRequest) -> Any:
    """Both ways by which an ephemeral worker is made."""
    return BOOTS[request.param]


def change(row: Any, **values: Any) -> None:
    type(row).objects.filter(pk=row.pk).update(**values)


def assert_refused(response: Any, status: int) -> None:
    assert response.status_code == status, response.content[:500]
    assert_error_shape(response)


def made() -> Worker:
    return Worker.objects.get(is_ephemeral=True)


# --- Queue start: the answer ---------------------------------------------------------------------------------------------


def test_a_queue_start_answers_what_existing_workers_read(fleet: Fleet) -> None:
    change(fleet.queue, heartbeat_interval=45)
    response = boot(fleet, BODY)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    answer = response.json()
    assert answer == {
        "worker_id": str(made().pk),
        "task_queue_name": f"{fleet.organization.pk}.production.default",
        "temporal_namespace": f"{fleet.organization.pk}-temporal",
        "temporal_host": "temporal.example.com:7233",
        "temporal_api_key": fleet.temporal_secret,
        "organization_id": fleet.organization.pk,
        "control_plane_url": OWN_URL,
        "litellm_api_url": "https://litellm.example.com",
        "litellm_api_key": fleet.litellm_secret,
        "queue_name": "default",
        "environment_name": "production",
        "queue_id": str(fleet.queue.pk),
        "control_plane_sdk_version": "0.6.0",
        "heartbeat_interval": 45,
        "queue_ephemeral": False,
        "queue_single_execution": False,
        "redis_url": None,
        "redis_password": None,
        "redis_enabled": False,
        "websocket_enabled": False,
        "websocket_url": None,
        "websocket_features": [],
        "nats_config": None,
    }
    assert all(type(answer[name]) is str and answer[name] for name in STRINGS)
    assert type(answer["heartbeat_interval"]) is int


def test_workers_of_both_kinds_poll_the_same_queue(fleet: Fleet) -> None:
    assert boot(fleet).json()["task_queue_name"] == start(fleet).json()["task_queue_name"]


def test_a_server_that_takes_no_key_has_an_empty_one_and_never_null(fleet: Fleet) -> None:
    TemporalConnection.objects.update(requires_api_key=False, sealed_api_key="")
    LiteLLMConnection.objects.update(requires_api_key=False, sealed_api_key="")
    answer = boot(fleet).json()
    assert (answer["temporal_api_key"], answer["litellm_api_key"]) == ("", "")


BODIES = {
    "none": b"",
    "empty object": b"{}",
    "nulls": b'{"worker_sdk_version":null,"system_info":null,"control_plane_url":null}',
    "empty members": b'{"worker_sdk_version":"","system_info":{},"control_plane_url":""}',
    "unknown members": b'{"gpu":[1,2],"queue_id":"x","organization_id":"other","is_ephemeral":false}',
    "only a URL": b'{"control_plane_url":"https://control-plane.example.com"}',
    "only a version": b'{"worker_sdk_version":"1.0.2"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_body_is_optional_and_so_is_all_of_it(fleet: Fleet, body: bytes) -> None:
    response = boot(fleet, body)
    assert response.status_code == 200, response.content[:500]
    row = WorkerStart.objects.get()
    assert row.system_info == {}
    assert row.organization_id == fleet.organization.pk
    assert made().queue == fleet.queue


def test_no_body_and_no_length_is_no_body(fleet: Fleet) -> None:
    assert boot(fleet, b"", CONTENT_LENGTH="").status_code == 200


MALFORMED = {
    "no JSON": b"{",
    "list": b"[]",
    "null": b"null",
    "only spaces": b"   ",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_body_is_a_validation_error(fleet: Fleet, body: bytes) -> None:
    before = everything()
    assert_refused(boot(fleet, body), 422)
    assert everything() == before


#: What is free in a queue start, as JSON, and what of it is recorded.
FREE: dict[str, tuple[bytes, Any]] = {
    "all null": (b'{"system_info":null,"worker_sdk_version":null,"control_plane_url":null}', {}),
    "system_info an empty list": (b'{"system_info":[]}', {}),
    "system_info a list": (b'{"system_info":[1]}', {CUT: ["all of it: it is no object"]}),
    "system_info text": (b'{"system_info":"x"}', {CUT: ["all of it: it is no object"]}),
    "version a list": (b'{"worker_sdk_version":[]}', {}),
    "URL an object": (b'{"control_plane_url":{}}', {}),
    "URL of 5,000 characters": (b'{"control_plane_url":"https://' + b"x" * 5_000 + b'"}', {}),
    "system_info deep": (
        b'{"system_info":{"hostname":"w","a":' + b"[" * 40 + b"]" * 40 + b"}}",
        {"hostname": "w", "a": json.loads("[" * 30 + "null" + "]" * 30), CUT: ["what is nested deeper than 32"]},
    ),
}


@pytest.mark.parametrize(("body", "expected"), FREE.values(), ids=FREE)
def test_what_is_free_costs_no_worker_its_start(fleet: Fleet, body: bytes, expected: Any) -> None:
    response = boot(fleet, body)
    assert response.status_code == 200, response.content
    assert response.json()["control_plane_url"] == "http://127.0.0.1:8000"
    assert WorkerStart.objects.get().system_info == expected


# --- Queue start: control_plane_url --------------------------------------------------------------------------------------

OWN_URLS = {
    "plain": (OWN_URL, OWN_URL),
    "trailing slash": (f"{OWN_URL}/", OWN_URL),
    "trailing slashes": (f"{OWN_URL}///", OWN_URL),
    "http": ("http://cp.internal:8000", "http://cp.internal:8000"),
    "path": ("https://example.com/control-plane/", "https://example.com/control-plane"),
    "address": ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    "IPv6": ("http://[::1]:8000/", "http://[::1]:8000"),
    "one name": ("http://control-plane:8000", "http://control-plane:8000"),
    "500 characters": (f"https://example.com/{'x' * 480}", f"https://example.com/{'x' * 480}"),
}
NO_URLS = {
    "javascript": "javascript:alert(1)",
    "javascript with slashes": "javascript://example.com/%0aalert(1)",
    "ftp": "ftp://example.com",
    "file": "file:///etc/passwd",
    "data": "data:text/html,x",
    "no scheme": "control-plane.example.com",
    "relative": "//control-plane.example.com",
    "path only": "/api",
    "no host": "http://",
    "no host but a path": "http:///api",
    "no host but a port": "http://:8000",
    "user and password": "https://user:password@example.com",
    "user": "https://user@example.com",
    "space within": "https://exam ple.com",
    "space before": " https://example.com",
    "space after": "https://example.com ",
    "newline": "https://example.com\n",
    "carriage return": "https://example.com\r\nX: y",
    "tab": "https://exa\tmple.com",
    "NUL": "https://example.com\0",
    "query": "https://example.com?x=1",
    "empty query": "https://example.com/?",
    "fragment": "https://example.com#x",
    "empty fragment": "https://example.com/#",
    "port too large": "https://example.com:65536",
    "port no number": "https://example.com:http",
    "bracket": "https://[::1",
    "backslash": "https://example.com\\@evil.example",
    "quotes": 'https://example.com/"onload=',
    "markup": "https://example.com/<script>",
    "501 characters": f"https://example.com/{'x' * 481}",
    "nonsense": "not a URL",
    "unicode host": "https://exämple.com",
}


@pytest.mark.parametrize(("sent", "answered"), OWN_URLS.values(), ids=OWN_URLS)
def test_answers_the_callers_own_url_without_its_trailing_slash(fleet: Fleet, sent: str, answered: str) -> None:
    assert boot(fleet, {"control_plane_url": sent}).json()["control_plane_url"] == answered


@pytest.mark.parametrize("sent", NO_URLS.values(), ids=NO_URLS)
def test_answers_the_settings_url_for_what_is_none(fleet: Fleet, settings: Settings, sent: str) -> None:
    response = boot(fleet, {"control_plane_url": sent})
    assert response.status_code == 200
    assert response.json()["control_plane_url"] == settings.CONTROL_PLANE_URL


@pytest.mark.parametrize("header", ["HTTP_HOST", "HTTP_X_FORWARDED_HOST"])
def test_the_url_never_comes_from_the_host_header(fleet: Fleet, settings: Settings, header: str) -> None:
    response = boot(fleet, **{header: "localhost"})
    assert response.json()["control_plane_url"] == settings.CONTROL_PLANE_URL


# --- The worker that is made ---------------------------------------------------------------------------------------------


def test_makes_an_ephemeral_worker_each_time(fleet: Fleet, either: Any) -> None:
    ids = {either(fleet).json()["worker_id"] for _ in range(3)}
    assert {str(worker.pk) for worker in Worker.objects.filter(is_ephemeral=True, queue=fleet.queue)} == ids
    assert len(ids) == 3
    assert all(str(UUID(identifier)) == identifier for identifier in ids)
    assert not Worker.objects.get(pk=fleet.worker.pk).is_ephemeral


def test_the_worker_that_is_made_can_go_on_as_any_other(fleet: Fleet, either: Any) -> None:
    worker_id = either(fleet).json()["worker_id"]
    assert post(fleet, f"workers/{worker_id}/heartbeat", {"status": "busy"}).status_code == 204
    assert post(fleet, f"workers/{worker_id}/start", {}).status_code == 200
    assert post(fleet, f"workers/{worker_id}/disconnect", {}).status_code == 204


def test_the_name_holds_the_host(fleet: Fleet) -> None:
    boot(fleet, BODY)
    assert re.fullmatch(r"build-7-[0-9a-f]{12}", made().name)


HOSTS: dict[str, tuple[Any, str]] = {
    "empty": ("", "worker"),
    "spaces": ("   ", "worker"),
    "dashes": ("--", "worker"),
    "dashes around": ("--build--7--", "build-7"),
    "dots": ("build-7.example.com", "build"),
    "underscores": ("build_7", "build-7"),
    "only underscores": ("___", "worker"),
    "upper case": ("BUILD-7", "build-7"),
    "umlauts": ("größe", "gr"),
    "Chinese": ("工人", "worker"),
    "emoji": ("🦊", "worker"),
    "300 characters": ("x" * 300, "x" * 40),
    "dash at the cut": ("x" * 47 + "-" + "y" * 100, "x" * 40),
    "dots only": ("...", "worker"),
    "NUL": ("build\0-7", "build"),
    "markup": ("<script>alert(1)</script>", "script"),
    "path": ("../../etc/passwd", "etc"),
    "number": (7, "worker"),
    "null": (None, "worker"),
    "object": ({"a": 1}, "worker"),
    "list": (["build-7"], "worker"),
}


@pytest.mark.parametrize(("hostname", "begins"), HOSTS.values(), ids=HOSTS)
def test_any_host_makes_a_valid_name(fleet: Fleet, hostname: Any, begins: str) -> None:
    response = boot(fleet, {"system_info": {"hostname": hostname}})
    assert response.status_code == 200, response.content[:500]
    worker = made()
    assert SLUG.fullmatch(worker.name)
    assert worker.name.startswith(begins)
    worker.full_clean()


def test_many_workers_of_one_host_have_different_names(fleet: Fleet) -> None:
    for _ in range(20):
        assert boot(fleet, BODY).status_code == 200
    assert Worker.objects.filter(is_ephemeral=True).values("name").distinct().count() == 20


# --- What is recorded ----------------------------------------------------------------------------------------------------


def test_a_queue_start_is_recorded_in_the_ledger(fleet: Fleet) -> None:
    boot(fleet, BODY, HTTP_USER_AGENT="worker/1.0.2")
    worker, row, instance = made(), WorkerStart.objects.get(), WorkerInstance.objects.get()
    assert row.system_info == json.loads(BODY)["system_info"]
    assert len(row.system_info) == 21
    assert (row.worker_id, row.worker_name, row.organization_id) == (worker.pk, worker.name, fleet.organization.pk)
    assert row.task_queue_name == f"{fleet.organization.pk}.production.default"
    assert (row.user_agent, row.client_address) == ("worker/1.0.2", "127.0.0.1")
    assert row.temporal_connection_id == fleet.temporal.pk
    assert row.litellm_connection_id == fleet.litellm.pk
    assert (instance.pk, instance.worker_id, instance.is_current) == (row.pk, worker.pk, True)
    assert (instance.hostname, instance.pid) == ("build-7", 4711)


def test_no_secret_is_recorded(fleet: Fleet, either: Any) -> None:
    token = fleet.token
    assert either(fleet).status_code == 200
    recorded = repr(everything())
    for secret in (fleet.temporal_secret, fleet.litellm_secret, token):
        assert secret not in recorded


# --- Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["is_disabled", "is_draining"])
def test_a_closed_queue_refuses(fleet: Fleet, either: Any, state: str) -> None:
    change(fleet.queue, **{state: True})
    before = everything()
    assert_refused(either(fleet), 409)
    assert everything() == before


@pytest.mark.parametrize(("section", "word"), [("temporal_connection", "Temporal"), ("litellm_connection", "LiteLLM")])
def test_an_incomplete_configuration_refuses_and_says_what_is_missing(
    fleet: Fleet, either: Any, section: str, word: str
) -> None:
    factories.point(fleet.organization, **{section: None})
    before = everything()
    response = either(fleet)
    assert_refused(response, 409)
    assert word in response.json()["detail"]
    assert everything() == before


def test_a_credential_that_does_not_open_refuses(fleet: Fleet, either: Any) -> None:
    TemporalConnection.objects.update(sealed_api_key="cp1.x.y")
    before = everything()
    response = either(fleet)
    assert_refused(response, 503)
    assert response["Retry-After"]
    assert everything() == before


def test_a_full_queue_refuses(fleet: Fleet, either: Any) -> None:
    change(fleet.queue, max_workers=1)
    assert either(fleet).status_code == 200
    before = everything()
    assert_refused(either(fleet), 409)
    assert everything() == before


def test_the_connections_of_the_queue_win(fleet: Fleet) -> None:
    own = factories.create_temporal(fleet.organization, "own", secret="own-secret")
    factories.point(fleet.queue, temporal_connection=own)
    answer = boot(fleet).json()
    assert (answer["temporal_host"], answer["temporal_api_key"]) == ("own.example.com:7233", "own-secret")


# --- Register ------------------------------------------------------------------------------------------------------------


def test_register_answers_what_existing_workers_read(fleet: Fleet, settings: Settings) -> None:
    body = {"environment_name": "production", "hostname": "build-7", "worker_metadata": {"team": "x"}}
    response = register(fleet, body)
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert response.json() == {
        "worker_id": str(made().pk),
        "worker_token": fleet.token,
        "environment_name": f"{fleet.organization.pk}.production",
        "temporal_namespace": f"{fleet.organization.pk}-temporal",
        "temporal_host": "temporal.example.com:7233",
        "temporal_api_key": fleet.temporal_secret,
        "organization_id": fleet.organization.pk,
        "control_plane_url": settings.CONTROL_PLANE_URL,
    }


def test_register_takes_its_own_answers_environment_name(fleet: Fleet) -> None:
    name = register(fleet).json()["environment_name"]
    assert register(fleet, {"environment_name": name}).json()["environment_name"] == name


def test_register_makes_no_other_key(fleet: Fleet) -> None:
    before = len(everything()["workers.ApiKey"])
    register(fleet)
    assert len(everything()["workers.ApiKey"]) == before


def test_the_token_that_register_answers_goes_on(fleet: Fleet) -> None:
    answer = register(fleet, HTTP_USER_AGENT="x").json()
    path = f"workers/{answer['worker_id']}/heartbeat"
    assert post(fleet, path, {}, token=answer["worker_token"]).status_code == 204


def test_register_uses_the_queue_named_default(fleet: Fleet) -> None:
    factories.create_queue(fleet.environment, "another")
    register(fleet)
    assert made().queue == fleet.queue


def test_register_records_host_and_metadata(fleet: Fleet) -> None:
    register(fleet, {"environment_name": "production", "hostname": "build-7", "worker_metadata": {"team": "x"}})
    assert made().name.startswith("build-7-")
    assert WorkerStart.objects.get().system_info == {"hostname": "build-7", "worker_metadata": {"team": "x"}}
    assert WorkerInstance.objects.get().hostname == "build-7"


@pytest.mark.parametrize(
    "rest", [{}, {"hostname": None, "worker_metadata": None}, {"hostname": "", "worker_metadata": {}}]
)
def test_register_needs_only_the_environment(fleet: Fleet, rest: dict[str, Any]) -> None:
    assert register(fleet, {"environment_name": "production", **rest}).status_code == 200
    assert WorkerStart.objects.get().system_info == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"environment_name":null}',
        b'{"environment_name":""}',
        b'{"environment_name":[]}',
        b'{"environment_name":1e999}',
        b'{"environment_name":"production","environment_name":"staging"}',
    ],
)
def test_a_malformed_registration_is_a_validation_error(fleet: Fleet, body: bytes) -> None:
    before = everything()
    assert_refused(register(fleet, body), 422)
    assert everything() == before


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (b'"hostname":["a"]', {"hostname": '["a"]'}),
        (b'"hostname":"' + b"h" * 5_000 + b'"', {"hostname": "h" * 4_096}),
        (b'"worker_metadata":["a"]', {"worker_metadata": {CUT: ["all of it: it is no object"]}}),
        (
            b'"worker_metadata":{"load":NaN}',
            {"worker_metadata": {"load": None, CUT: ["numbers that are not finite or too long"]}},
        ),
    ],
)
def test_what_is_free_costs_no_worker_its_registration(fleet: Fleet, member: bytes, expected: dict[str, Any]) -> None:
    assert register(fleet, b'{"environment_name":"production",' + member + b"}").status_code == 200
    assert WorkerStart.objects.get().system_info == expected


def test_register_makes_no_environment(fleet: Fleet) -> None:
    fleet.token = factories.issue_token(fleet.organization)
    before = everything()
    assert_refused(register(fleet, {"environment_name": "staging"}), 404)
    assert everything() == before


def test_a_key_of_another_queue_does_not_learn_whether_there_is_a_default_one(fleet: Fleet) -> None:
    staging = factories.create_environment(fleet.organization, "staging")
    other = factories.create_queue(staging, "other")
    token = factories.issue_token(other)
    without = register(fleet, {"environment_name": "staging"}, token=token)
    factories.create_queue(staging)
    with_default = register(fleet, {"environment_name": "staging"}, token=token)
    assert (without.status_code, without.content) == (with_default.status_code, with_default.content)
    assert_refused(without, 403)
    assert WorkerQueue.objects.count() == 3
