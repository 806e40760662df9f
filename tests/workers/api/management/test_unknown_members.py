"""What a call does not know is refused where it would change what is done or told: a misspelt target makes the widest key."""

from typing import Any

import pytest

from tests.support import documents, factories
from tests.support.callers import MATRIX, body_of, path_of
from tests.support.factories import Fleet
from tests.support.managing import Manager
from workers.models import ApiKey, WorkerQueue

#: Existing clients call the others, with members that we do not know.
OURS = ("/registered-workers", "/api-keys", "-connections", "/telemetry-settings", "/organization")
WRITES = [endpoint for endpoint in MATRIX if not endpoint.startswith("GET ") and any(path in endpoint for path in OURS)]
MISSPELT = ("dry-run=true", "dryrun=true", "DRY_RUN=true", "a=1;dry_run=true", "dry_run;=true", "%20dry_run=true")
LISTS = ("/registered-workers", "/api-keys", "/temporal-connections", "/telemetry-settings", "/members")


@pytest.fixture
def world(fleet: Fleet) -> Fleet:
    factories.point(fleet.worker, telemetry_settings=factories.create_telemetry(fleet.organization))
    return fleet


def refusals_of(response: Any) -> list[tuple[list[str], str]]:
    assert response.status_code == 422, response.content[:500]
    return [(error["loc"], error["type"]) for error in response.json()["detail"]]


def test_no_call_of_ours_passes_over_what_it_does_not_know(world: Fleet) -> None:
    manager = Manager(world.organization)
    assert len(WRITES) == 3 + 3 + 1 + 3 * 4
    made = {
        endpoint: (path_of(endpoint, world).removeprefix("/api/v1"), body_of(endpoint, world)) for endpoint in WRITES
    }
    before = documents.everything()
    for endpoint, (path, body) in made.items():
        method = endpoint.partition(" ")[0]
        takes_body = method != "DELETE" and not path.endswith("/verify")
        sent = body if takes_body else None
        if takes_body:
            refused = refusals_of(manager.ask(method, path, {**body, "queueId": "x", "a" * 200: 1}))
            assert sorted(refused) == [(["body"], "extra_forbidden"), (["body", "queueId"], "extra_forbidden")], (
                endpoint
            )
        for query in (*MISSPELT, "force=true", "dry_run="):
            (refusal,) = refusals_of(manager.ask(method, f"{path}?{query}", sent))
            assert refusal[0][0] == "query", (endpoint, query)
    assert documents.everything() == before
    assert not ApiKey.objects.filter(name="made").exists()


def test_existing_clients_send_what_they_like_but_no_dry_run_that_is_none(world: Fleet) -> None:
    manager = Manager(world.organization)
    queue, body = f"/worker-queues/{world.queue.pk}", {"name": "new", "unheard": 1}
    calls: list[tuple[str, str, Any]] = [
        ("PATCH", queue, {"description": "x"}),
        ("DELETE", queue, None),
        ("POST", "/environments", body),
        ("POST", f"/environments/{world.environment.pk}/worker-queues", body),
        ("PATCH", f"/environments/{world.environment.pk}", {"description": "x"}),
    ]
    before = documents.everything()
    for method, path, sent in calls:
        for query in MISSPELT:
            assert refusals_of(manager.ask(method, f"{path}?{query}", sent))[0][0][0] == "query", (method, query)
    assert documents.everything() == before
    assert manager.ask("PATCH", f"{queue}?org=acme", {"description": "x", "unheard": 1}).status_code == 200
    assert WorkerQueue.objects.get(pk=world.queue.pk).description == "x"


@pytest.mark.sqlite
def test_a_filter_without_a_value_or_of_another_name_lists_nothing(fleet: Fleet) -> None:
    manager = Manager(fleet.organization)
    for path in LISTS:
        assert refusals_of(manager.ask("GET", f"{path}?worker-id=x")) == [(["query", "worker-id"], "extra_forbidden")]
    for name in ("worker_id", "queue_id", "environment_id", "role", "scope", "state", "name"):
        for value in ("", "null") if name != "name" else ("",):
            (refusal,) = refusals_of(manager.ask("GET", f"/api-keys?{name}={value}"))
            assert refusal[0] == ["query", name]
    assert manager.told("GET", "/api-keys?name=null")["items"] == []
    for query in ("environment_id=", "queue_id=null", "is_ephemeral=null", "is_ephemeral="):
        refusals_of(manager.ask("GET", f"/registered-workers?{query}"))
