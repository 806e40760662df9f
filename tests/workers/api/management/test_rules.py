"""What a change has to be, and what is on record of it."""

import json
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments.models import AuditEvent
from tests.support import documents, factories
from tests.support.calls import shared_client
from tests.support.factories import ACTOR, Fleet
from tests.support.go_clients import GoClient, GoError
from tests.support.reading import call
from tests.support.shared_fleet import *  # noqa: F403  # the fixtures
from workers.api_keys.access import KeyOutOfScopeError
from workers.api_keys.presented import NoUsableKeyError
from workers.fleet.editing import change
from workers.fleet.editor import Editor, KeyMayNotManageError
from workers.models import ApiKey, KeyRole, Scope

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "name in capitals": ({"name": "Production"}, "name"),
    "name too long": ({"name": "a" * 64}, "name"),
    "name empty": ({"name": ""}, "name"),
    "name null": ({"name": None}, "name"),
    "name a number": ({"name": 7}, "name"),
    "display name an object": ({"display_name": {}}, "display_name"),
    "display name too long": ({"display_name": "x" * 201}, "display_name"),
    "description too long": ({"description": "x" * 2001}, "description"),
    "description with NUL": ({"description": "a\0b"}, "description"),
    "description cut": ({"description": "x" * 5000}, "description"),
    "tags a text": ({"tags": "a,b"}, "tags"),
    "tags of numbers": ({"tags": [1]}, "tags"),
    "too many tags": ({"tags": ["a"] * 101}, "tags"),
    "tag too long": ({"tags": ["a" * 256]}, "tags"),
    "settings a list": ({"settings": []}, "settings"),
    "settings too deep": ({"settings": json.loads('{"a":' * 17 + "1" + "}" * 17)}, "settings"),
    "settings too many": ({"settings": {str(number): number for number in range(1100)}}, "settings"),
    "settings with NUL": ({"settings": {"a": "\0"}}, "settings"),
    "settings too large": ({"settings": {str(number): "x" * 4000 for number in range(9)}}, "settings"),
    "status unknown": ({"status": "archived"}, "status"),
    "interval too short": ({"heartbeat_interval": 4}, "heartbeat_interval"),
    "interval a truth": ({"heartbeat_interval": True}, "heartbeat_interval"),
    "interval null": ({"heartbeat_interval": None}, "heartbeat_interval"),
    "no workers": ({"max_workers": 0}, "max_workers"),
    "too many workers": ({"max_workers": 2**40}, "max_workers"),
    "proxy without models": ({"settings": {"enable_local_litellm_proxy": True}}, "settings"),
    "proxy no truth": ({"settings": {"enable_local_litellm_proxy": "perhaps"}}, "settings"),
    "proxy too slow": ({"settings": {"local_proxy_timeout_seconds": 61}}, "settings"),
    "models without names": ({"settings": {"litellm_config": {"model_list": [{}]}}}, "settings"),
}
REFUSED_ENVIRONMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "variable a number": ({"variables": {"A": 1}}, "variables"),
    "secrets an object": ({"secrets": {"a": "b"}}, "secrets"),
    "status of theirs": ({"status": "archived"}, "status"),
    "execution a text": ({"execution_environment": "x"}, "execution_environment"),
    "execution of unknown": ({"execution_environment": {"env": {}}}, "execution_environment"),
    "execution of wrong kinds": ({"execution_environment": {"secrets": {"a": "b"}}}, "execution_environment"),
}


def sent(manager: GoClient, method: str, path: str, body: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    key = f"Bearer {manager.token}"
    return shared_client().generic(method, f"/api/v1{path}", data, "application/json", HTTP_AUTHORIZATION=key)


def assert_refused(response: Any, name: str) -> None:
    assert response.status_code == 422, response.content[:500]
    for error in response.json()["detail"]:
        assert set(error) == {"loc", "msg", "type"}
        assert error["loc"][:2] == ["body", name]


@pytest.mark.sqlite
@pytest.mark.parametrize(("body", "name"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_as_it_is_is_refused(fleet: Fleet, manager: GoClient, body: Any, name: str) -> None:
    before = documents.everything()
    assert_refused(sent(manager, "PATCH", f"/worker-queues/{fleet.queue.pk}", body), name)
    new = {"name": "new"} | body
    assert_refused(sent(manager, "POST", f"/environments/{fleet.environment.pk}/worker-queues", new), name)
    assert documents.everything() == before


@pytest.mark.parametrize(("body", "name"), REFUSED_ENVIRONMENTS.values(), ids=REFUSED_ENVIRONMENTS)
def test_the_same_of_environments(fleet: Fleet, manager: GoClient, body: Any, name: str) -> None:
    before = documents.everything()
    assert_refused(sent(manager, "PATCH", f"/environments/{fleet.environment.pk}", body), name)
    assert_refused(sent(manager, "POST", "/environments", {"name": "new"} | body), name)
    assert documents.everything() == before


def test_a_moment_has_a_time_and_an_offset(fleet: Fleet, manager: GoClient) -> None:
    paths: dict[str, dict[str, Any]] = {
        f"/worker-queues/{fleet.queue.pk}": {"status": "paused"},
        f"/registered-workers/{fleet.worker.pk}": {"is_draining": True},
    }
    for path, body in paths.items():
        for text in ("2030-01-31", "2030-01-31T18:00:00", "2030-01-31T18:00Z", "2030-01-31T25:00:00Z"):
            assert_refused(sent(manager, "PATCH", path, {**body, "state_ends_at": text}), "state_ends_at")
        for text in ("2030-01-31T18:00:00Z", "2030-01-31T20:00:00.0+02:00"):
            shown = manager.call("PATCH", path, {**body, "state_ends_at": text})
            assert shown["state_ends_at"] == "2030-01-31T18:00:00Z"


def test_names_show_and_descriptions_have_lines(fleet: Fleet, manager: GoClient) -> None:
    before = documents.everything()
    for name in (" ", "\u3000", "a\nb", "a\x1b[2J", "a\u202eb", "\u2066a"):
        for method, path, body in (("PATCH", "/organization", {}), ("POST", "/api-keys", {"lifetime_days": 1})):
            assert_refused(sent(manager, method, path, {**body, "name": name}), "name")
    paths = [f"/environments/{fleet.environment.pk}", f"/worker-queues/{fleet.queue.pk}"]
    for path in (*paths, f"/registered-workers/{fleet.worker.pk}"):
        for text in ("a\x1b[2J", "a\x85", "a\u202eb"):
            assert_refused(sent(manager, "PATCH", path, {"description": text}), "description")
    assert documents.everything() == before
    for path in (*paths, f"/registered-workers/{fleet.worker.pk}"):
        text = "One\r\n\tTwo\u00a0\N{WOMAN}\u200d\N{ROCKET}"
        assert manager.call("PATCH", path, {"description": text})["description"] == text


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"a","name":"b"}',
        b'{"settings":{"a":1,"a":2}}',
        b'{"settings":{"a":1e999}}',
        b'{"settings":{"a":1e-9999}}',
        b'{"settings":{"a":-0.0}}',
        b'{"settings":{"a":[1.2345678901234567891]}}',
        b'{"description":"\xff"}',
    ],
)
def test_json_of_which_something_would_be_lost_is_refused(fleet: Fleet, manager: GoClient, body: bytes) -> None:
    response = sent(manager, "PATCH", f"/worker-queues/{fleet.queue.pk}", body)
    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == "value_error"


@pytest.mark.sqlite
def test_what_is_taken_of_numbers_is_answered_to_the_letter(fleet: Fleet, manager: GoClient) -> None:
    body = b'{"settings":{"a":[0.0,0,-0.5,1e-07,1.0,-9999999999999998.0,10000000000000000000000]}}'
    path = f"/worker-queues/{fleet.queue.pk}"
    for answered in (sent(manager, "PATCH", path, body), sent(manager, "GET", path, b"")):
        assert body[1:-1] in answered.content, answered.content


def test_no_refusal_repeats_what_was_sent(fleet: Fleet, manager: GoClient) -> None:
    secret = "do-not-echo-me"
    for body in ({"name": f"{secret}!"}, {"status": secret}, {"tags": secret}, {"settings": secret}):
        response = sent(manager, "PATCH", f"/worker-queues/{fleet.queue.pk}", body)
        assert response.status_code == 422
        assert secret not in response.content.decode()


def test_a_name_is_taken_once(fleet: Fleet, manager: GoClient) -> None:
    other = factories.create_queue(fleet.environment, "other")
    for method, path, body in (
        ("POST", "/environments", {"name": "production"}),
        ("POST", f"/environments/{fleet.environment.pk}/worker-queues", {"name": "default"}),
        ("PATCH", f"/worker-queues/{other.pk}", {"name": "default"}),
    ):
        with pytest.raises(GoError, match=r"status 409.*has this name"):
            manager.call(method, path, body)
    manager.call("PATCH", f"/worker-queues/{other.pk}", {"name": "other"})


@pytest.mark.parametrize("path", ["/environments/{environment}", "/worker-queues/{queue}"])
def test_what_live_processes_poll_is_not_renamed(fleet: Fleet, manager: GoClient, path: str) -> None:
    path = path.format(environment=fleet.environment.pk, queue=fleet.queue.pk)
    call(fleet, "start")
    with pytest.raises(GoError, match=r"status 409.*task queue that 1 live process polls"):
        manager.call("PATCH", path, {"name": "renamed"})
    call(fleet, "disconnect")
    assert manager.call("PATCH", path, {"name": "renamed"})["name"] == "renamed"


def test_what_is_the_same_already_is_no_change(fleet: Fleet, manager: GoClient) -> None:
    before = documents.everything()
    manager.call("PATCH", f"/worker-queues/{fleet.queue.pk}", {"name": "default", "tags": [], "status": "active"})
    manager.call("PATCH", f"/environments/{fleet.environment.pk}", {})
    assert documents.everything() == before


@pytest.mark.sqlite
def test_each_change_is_on_record_with_the_key_and_where_it_came_from(fleet: Fleet, manager: GoClient) -> None:
    key = ApiKey.objects.get(role=KeyRole.MANAGER)
    environment = manager.call("POST", "/environments", {"name": "made"})
    manager.call("PATCH", f"/environments/{environment['id']}", {"tags": ["a"]})
    queue = manager.call("POST", f"/environments/{environment['id']}/worker-queues", {"name": "made"})
    manager.call("PATCH", f"/worker-queues/{queue['id']}", {"settings": {"a": 1}})
    worker = manager.call("POST", f"/worker-queues/{queue['id']}/start", {})["worker_id"]
    manager.call("POST", f"/workers/{worker}/disconnect", {})
    manager.call("DELETE", f"/worker-queues/{queue['id']}")
    manager.call("DELETE", f"/environments/{environment['id']}")
    events = AuditEvent.objects.filter(actor=f"key:{key.pk}").order_by("occurred_at", "pk")
    assert {event.client_address for event in events} == {"127.0.0.1"}
    told = [(event.action, event.object_id) for event in events]
    assert sorted(told) == sorted(
        [
            ("environment.created", environment["id"]),
            ("environment.updated", environment["id"]),
            ("worker_queue.created", queue["id"]),
            ("worker_queue.updated", queue["id"]),
            ("worker.deleted", worker),
            ("worker_queue.deleted", queue["id"]),
            ("environment.deleted", environment["id"]),
        ]
    )
    assert events.get(action="worker_queue.updated").changes == {"settings": [{}, {"a": 1}]}
    assert manager.call("GET", "/environments")[0]["name"] == "production"


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_the_statements_of_a_change_do_not_grow_with_the_fleet(fleet: Fleet, manager: GoClient, method: str) -> None:
    def spent() -> int:
        path = f"/environments/{fleet.environment.pk}/worker-queues"
        if method != "POST":
            path = f"/worker-queues/{factories.create_queue(fleet.environment, f'q-{uuid4().hex}').pk}"
        body = {"POST": {"name": f"q-{uuid4().hex}"}, "PATCH": {"settings": {"a": 1}}, "DELETE": None}[method]
        with CaptureQueriesContext(connection) as captured:
            manager.call(method, path, body)
        return len(captured)

    before = spent()
    for number in range(20):
        factories.create_worker(factories.create_queue(fleet.environment, f"q{number}"), f"w{number}")
    assert spent() == before <= 30


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"revoked_at": timezone.now()}, NoUsableKeyError),
        ({"role": KeyRole.WORKER}, KeyMayNotManageError),
        ({"scope": Scope.ENVIRONMENT}, KeyOutOfScopeError),
    ],
)
def test_a_key_that_changes_while_a_lock_is_waited_for_changes_nothing(
    fleet: Fleet, values: dict[str, Any], error: type[Exception]
) -> None:
    key = factories.issue_key(fleet.organization, role=KeyRole.MANAGER).row
    editor = Editor(ACTOR, timezone.now(), key)
    if "scope" in values:
        values = values | {"environment": factories.create_environment(fleet.organization, "other")}
    ApiKey.objects.filter(pk=key.pk).update(**values)
    before = documents.everything()
    with pytest.raises(error):
        change(fleet.queue, {"description": "x"}, editor)
    assert documents.everything() == before
