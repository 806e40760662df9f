"""The facts that decide whether the command line and Terraform work, one test for each."""

from typing import Any

import pytest

from tests.support import factories
from tests.support.factories import Fleet
from tests.support.go_clients import ENVIRONMENT, QUEUE, GoClient, GoError
from tests.support.reading import call, silence
from workers.models import ApiKey, KeyRole, Worker

WRITES: dict[str, tuple[str, str, Any]] = {
    "create environment": ("POST", "/environments", {"name": "made"}),
    "update environment": ("PATCH", "/environments/{environment}", {"description": "x"}),
    "delete environment": ("DELETE", "/environments/{environment}", None),
    "create queue": ("POST", "/environments/{environment}/worker-queues", {"name": "made"}),
    "update queue": ("PATCH", "/worker-queues/{queue}", {"description": "x"}),
    "delete queue": ("DELETE", "/worker-queues/{queue}", None),
}


def filled(fleet: Fleet, path: str) -> str:
    return path.format(environment=fleet.environment.pk, queue=fleet.queue.pk)


def made_queue(fleet: Fleet, manager: GoClient, **body: Any) -> dict[str, Any]:
    return manager.one("POST", filled(fleet, "/environments/{environment}/worker-queues"), QUEUE, {"name": "q", **body})


@pytest.mark.parametrize("scope", ["organization", "environment", "queue", "worker"])
def test_a_workers_key_is_refused_every_write(fleet: Fleet, scope: str) -> None:
    """Fact 1 has the other half: tests/support/callers.py tells who is served."""
    client = GoClient(factories.issue_token(getattr(fleet, scope)))
    for method, path, body in WRITES.values():
        with pytest.raises(GoError, match="status 403"):
            client.call(method, filled(fleet, path), body)


def test_1_there_is_a_call_for_each_change_and_for_the_command(fleet: Fleet, manager: GoClient) -> None:
    environment = manager.one("POST", "/environments", ENVIRONMENT, {"name": "made"})
    path = f"/environments/{environment['id']}"
    queue = manager.one("POST", f"{path}/worker-queues", QUEUE, {"name": "default"})
    manager.one("PATCH", path, ENVIRONMENT, {"description": "changed"})
    manager.one("PATCH", f"/worker-queues/{queue['id']}", QUEUE, {"description": "changed"})
    assert manager.call("GET", f"{path}/worker-command")["environment_name"] == "made"
    manager.call("DELETE", f"/worker-queues/{queue['id']}")
    manager.call("DELETE", path)


def test_2_an_unset_text_of_a_queue_is_empty(fleet: Fleet, manager: GoClient) -> None:
    queue = made_queue(fleet, manager)
    assert (queue["display_name"], queue["description"]) == ("", "")
    changed = manager.call("PATCH", f"/worker-queues/{queue['id']}", {"display_name": None, "description": None})
    assert (changed["display_name"], changed["description"]) == ("", "")


def test_3_an_unset_display_name_of_an_environment_is_empty_and_its_description_null(manager: GoClient) -> None:
    environment = manager.call("POST", "/environments", {"name": "made", "display_name": "", "description": ""})
    assert (environment["display_name"], environment["description"]) == ("", None)


def test_4_an_empty_status_leaves_it(fleet: Fleet, manager: GoClient) -> None:
    path = filled(fleet, "/environments/{environment}")
    body = {"name": fleet.environment.name, "display_name": "", "description": "", "status": ""}
    assert manager.call("PATCH", path, body)["status"] == "active"
    queue = filled(fleet, "/worker-queues/{queue}")
    assert manager.call("PATCH", queue, {"status": "paused"})["status"] == "paused"
    for same in ("", None, "paused"):
        assert manager.call("PATCH", queue, {"status": same})["status"] == "paused"


@pytest.mark.sqlite
def test_5_settings_come_back_exactly_and_change_the_version(fleet: Fleet, manager: GoClient) -> None:
    settings = {"region": "eu", "n": 1, "half": 0.5, "big": 1e22, "deep": {"list": [None, True, {"ä": "\t"}]}, "": ""}
    path = filled(fleet, "/worker-queues/{queue}")
    before = manager.call("GET", f"{path}/config")
    assert manager.call("PATCH", path, {"settings": settings})["settings"] == settings
    assert manager.call("GET", path)["settings"] == settings
    after = manager.call("GET", f"{path}/config")
    assert after["settings"] == settings
    assert after["config_version"] != before["config_version"]
    assert manager.call("PATCH", path, {"settings": None})["settings"] == {}
    assert manager.call("GET", f"{path}/config")["config_version"] == before["config_version"]


@pytest.mark.parametrize("number", [1e23, 1.2345678901234568e20, 1e300])
def test_5_a_large_number_changes_no_version_when_something_else_changes(
    fleet: Fleet, manager: GoClient, number: float
) -> None:
    path = filled(fleet, "/worker-queues/{queue}")
    manager.call("PATCH", path, {"settings": {"big": number}})
    before = manager.call("GET", f"{path}/config")
    manager.call("PATCH", path, {"description": "another"})
    assert manager.call("GET", f"{path}/config")["config_version"] == before["config_version"]


def test_6_the_worker_command_holds_texts_alone(fleet: Fleet, manager: GoClient) -> None:
    told = manager.call("GET", filled(fleet, "/environments/{environment}/worker-command"))
    assert {type(value) for value in told.values()} == {str}


def test_7_workers_of_a_queue_are_the_live_ones(fleet: Fleet, manager: GoClient) -> None:
    path = filled(fleet, "/worker-queues/{queue}/workers")
    call(fleet, "start")
    assert len(manager.call("GET", path)) == 1
    silence(hours=1)
    assert manager.call("GET", path) == []
    assert len(manager.call("GET", f"{path}?status=all")) == 1


@pytest.mark.sqlite
def test_8_a_queue_can_be_deleted_once_its_workers_are_gone(fleet: Fleet, manager: GoClient) -> None:
    """Also where keys for it have ended, which are kept otherwise."""
    queue = made_queue(fleet, manager)
    path = f"/worker-queues/{queue['id']}"
    for _ in range(3):
        manager.call("POST", f"{path}/start", {})
    with pytest.raises(GoError, match=r"status 409.*3 processes of it are live"):
        manager.call("DELETE", path)
    silence(hours=1)
    row = Worker.objects.filter(queue=queue["id"]).select_related("queue").first()
    assert row is not None
    key = factories.issue_key(row.queue).row
    with pytest.raises(GoError, match=r"status 409.*1 usable API key"):
        manager.call("DELETE", path)
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=key.created_at)
    manager.call("DELETE", path)
    assert not Worker.objects.filter(queue=queue["id"]).exists()


def test_8_workers_that_somebody_made_keep_a_queue(fleet: Fleet, manager: GoClient) -> None:
    fleet.api_key.delete()
    with pytest.raises(GoError, match=r"status 409.*1 worker that somebody made is in it"):
        manager.call("DELETE", filled(fleet, "/worker-queues/{queue}"))


def test_9_unknown_members_are_passed_over(fleet: Fleet, manager: GoClient) -> None:
    unknown = {"worker_type": None, "parent_execution_id": 7, "ephemeral": True, "id": "x", "organization_id": "other"}
    assert made_queue(fleet, manager, **unknown)["organization_id"] == fleet.organization.pk
    made = manager.one("POST", "/environments", ENVIRONMENT, {"name": "made", "configuration": {"a": 1}, **unknown})
    assert made["organization_id"] == fleet.organization.pk


@pytest.mark.parametrize("scheme", ["Bearer", "UserKey"])
def test_10_the_key_is_taken_in_both_schemes_and_says_whose_it_is(fleet: Fleet, scheme: str) -> None:
    """Of the tenth fact the variables are the client's own; docs/use/cli.md names them."""
    client = GoClient(factories.issue_token(fleet.organization, role=KeyRole.MANAGER), scheme)
    assert client.one("POST", "/environments", ENVIRONMENT, {"name": "made"})["name"] == "made"
