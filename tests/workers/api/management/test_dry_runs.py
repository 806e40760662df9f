"""`?dry_run=true` on each call that writes: it tells what the call then does, and reads only."""

import json
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from environments.models import AuditEvent, Environment
from tests.support import documents, factories
from tests.support.callers import MATRIX, body_of, path_of
from tests.support.factories import Fleet
from tests.support.managing import Manager
from tests.support.reading import call

OUTLOOK = {"changes", "impact", "cannot_start", "cut_off", "ending", "workers"}
OF_WORKERS = ("/start", "/register", "/heartbeat", "/disconnect", "/update-lock")
WRITES = [endpoint for endpoint in MATRIX if not endpoint.startswith("GET ") and not endpoint.endswith(OF_WORKERS)]


@pytest.fixture
def world(fleet: Fleet) -> Fleet:
    telemetry = factories.create_telemetry(fleet.organization)
    factories.point(fleet.worker, telemetry_settings=telemetry)
    call(fleet, "start")
    return fleet


def unused(fleet: Fleet, path: str) -> str:
    """The path about something that can be deleted."""
    made: dict[str, Any] = {
        "environments": lambda: Environment.objects.create(organization=fleet.organization, name="unused"),
        "worker-queues": lambda: factories.create_queue(fleet.environment, "unused"),
        "registered-workers": lambda: factories.create_worker(fleet.queue, "unused"),
        "temporal-connections": lambda: factories.create_temporal(fleet.organization, "unused"),
        "litellm-connections": lambda: factories.create_litellm(fleet.organization, "unused"),
        "telemetry-settings": lambda: factories.create_telemetry(fleet.organization, "unused"),
    }
    resource = path.split("/")[1]
    return f"/{resource}/{made[resource]().pk}"


def test_every_call_that_writes_is_tried() -> None:
    assert len(WRITES) == 6 + 3 + 3 + 1 + 4 * 3


@pytest.mark.sqlite
@pytest.mark.parametrize("endpoint", WRITES)
def test_it_reads_only_and_tells_what_is_then_recorded(world: Fleet, endpoint: str) -> None:
    manager = Manager(world.organization)
    method, path = endpoint.partition(" ")[0], path_of(endpoint, world).removeprefix("/api/v1")
    path = unused(world, path) if method == "DELETE" else path
    body = None if method == "DELETE" or path.endswith("/verify") else body_of(endpoint, world)
    before = documents.everything()
    with CaptureQueriesContext(connection) as captured:
        told = manager.told(method, f"{path}?dry_run=true", body, idempotency_key="once")
    # Within the test's transaction, Django makes a savepoint for each condition of a row that it checks.
    reading = ("SELECT", "SAVEPOINT", "RELEASE SAVEPOINT")
    assert [query["sql"] for query in captured if not query["sql"].startswith(reading)] == []
    assert documents.everything() == before
    assert set(told) == OUTLOOK
    text = json.dumps(told)
    assert "cp1." not in text
    assert world.temporal_secret not in text
    if path.endswith("/verify"):
        return
    events = set(AuditEvent.objects.values_list("pk", flat=True))
    assert manager.ask(method, path, body).status_code < 300
    event = AuditEvent.objects.exclude(pk__in=events).exclude(action="api_key.issued", object_name="key").get()
    was_new = {
        "id",
        "created_at",
        "api_key_set_at",
        "api_key_fingerprint",
        "signing_key_id",
        "replaced_by",
        "expires_at",
    }
    expected = {name: {"before": was, "after": then} for name, (was, then) in event.changes.items()}
    assert {name: told["changes"].get(name) for name in expected if name not in was_new} == {
        name: value for name, value in expected.items() if name not in was_new
    }


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_it_opens_no_transaction(world: Fleet) -> None:
    """Which on SQLite would lock out all that write."""
    manager = Manager(world.organization)
    with CaptureQueriesContext(connection) as captured:
        manager.told("PATCH", f"/worker-queues/{world.queue.pk}?dry_run=true", {"heartbeat_interval": 30})
    assert {query["sql"].partition(" ")[0] for query in captured} == {"SELECT"}


def test_what_would_be_refused_is_refused(world: Fleet) -> None:
    manager, foreign = Manager(world.organization), factories.create_fleet()
    queue = f"/worker-queues/{world.queue.pk}?dry_run=true"
    for method, path, body, status in (
        ("DELETE", queue, None, 409),
        ("PATCH", queue, {"name": "renamed"}, 409),
        ("PATCH", queue, {"heartbeat_interval": 1}, 422),
        ("PATCH", f"/worker-queues/{foreign.queue.pk}?dry_run=true", {}, 404),
        ("POST", "/environments?dry_run=true", {"name": world.environment.name}, 409),
        ("POST", "/environments?dry_run=perhaps", {"name": "new"}, 422),
        ("DELETE", f"/temporal-connections/{world.temporal.pk}?dry_run=true", None, 409),
    ):
        assert manager.ask(method, path, body).status_code == status, (method, path)
    assert Manager(world.queue).ask("DELETE", f"/environments/{world.environment.pk}?dry_run=true").status_code == 403


@pytest.mark.parametrize("query", ["dry_run", "dry_run=", "dry_run=null", "dry_run=2", "dry_run=true&dry_run=false"])
def test_whoever_speaks_of_it_unclearly_changes_nothing(world: Fleet, query: str) -> None:
    manager, path = Manager(world.organization), f"/worker-queues/{world.queue.pk}?{query}"
    before = documents.everything()
    refused = manager.told("PATCH", path, {"heartbeat_interval": 30}, status=422)
    assert refused["detail"][0]["loc"] == ["query", "dry_run"]
    assert documents.everything() == before


def test_it_tells_who_could_not_start_any_more_and_who_is_cut_off(world: Fleet) -> None:
    manager = Manager(world.organization)
    told = manager.told("PATCH", "/organization?dry_run=true", {"litellm_connection_id": None})
    (lost,) = told["cannot_start"]
    assert (lost["workers"], lost["queues"], lost["online"]) == (1, 1, 1)
    assert "LiteLLM" in lost["reason"]
    told = manager.told("POST", f"/api-keys/{world.api_key.pk}/revoke?dry_run=true", {"reason": "leaked"})
    assert [(found["queue"], found["processes"]) for found in told["cut_off"]] == [(world.queue.task_queue_name, 1)]


@pytest.mark.parametrize("kind", ["temporal", "litellm"])
def test_the_first_secret_of_an_organization_makes_no_data_key_yet(db: None, kind: str) -> None:
    organization = factories.create_organization("empty")
    manager = Manager(organization)
    body = {"name": "first", "api_key": "secret"} | {
        "temporal": {"host": "t:7233", "namespace": "n"},
        "litellm": {"api_url": "https://l.example"},
    }[kind]
    before = documents.everything()
    told = manager.told("POST", f"/{kind}-connections?dry_run=true", body)
    assert told["changes"]["api_key_version"] == {"before": None, "after": 1}
    assert documents.everything() == before
