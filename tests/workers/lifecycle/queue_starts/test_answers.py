"""A start in a queue: what is answered, and which worker is made."""

import json
import re
from typing import Any
from uuid import UUID

import pytest
from pytest_django import Settings

from environments.models import LiteLLMConnection, TemporalConnection
from tests.support.calls import start
from tests.support.documents import everything
from tests.support.factories import Fleet
from tests.support.queue_starts import BODY, assert_refused, boot, change, made, post
from workers.models import Worker, WorkerStart
from workers.models.instances import CUT

pytestmark = pytest.mark.sqlite


OWN_URL = "https://control-plane.example.com"
SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
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
