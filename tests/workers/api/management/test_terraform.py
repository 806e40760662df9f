"""The provider's configurations apply, read back as planned, change, import and destroy."""

from typing import Any

import pytest

from tests.support.factories import Fleet
from tests.support.go_clients import ENVIRONMENT, QUEUE, EnvironmentResource, GoClient, GoError, QueueResource

pytestmark = pytest.mark.sqlite

NESTED = {
    "region": "eu-west-1",
    "limits": {"cpu": 2.5, "memory": 4096, "burst": {"is_enabled": True, "steps": [1, 2, 3]}},
    "is_protected": False,
    "nothing": None,
}
EXECUTION: dict[str, Any] = {
    "env_vars": {"LOG_LEVEL": "debug", "EMPTY": ""},
    "secrets": ["github-token", "slack-token"],
    "integration_ids": ["b7a7f6c0"],
    "mcp_servers": {"files": {"command": "npx", "args": ["-y", "server"]}},
}
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "minimal": {"name": "minimal"},
    "full": {
        "name": "full",
        "display_name": "Full environment",
        "description": "All there is",
        "tags": ["b", "a", "b", "with, comma", " outer blanks ", ""],
        "settings": NESTED,
        "execution_environment": EXECUTION,
    },
    "comprehensive, empty display name": {"name": "comprehensive", "display_name": "", "settings": {"tier": "gold"}},
    "comprehensive, some of the execution": {"name": "some", "execution_environment": {"env_vars": {"A": "1"}}},
    "update_fields": {"name": "update-fields", "display_name": "Before", "description": "Before"},
    "import": {"name": "imported", "description": "To be imported"},
}
QUEUES: dict[str, dict[str, Any]] = {
    "minimal": {"name": "minimal"},
    "full": {
        "name": "full",
        "display_name": "Full queue",
        "description": "d" * 2_000,
        "heartbeat_interval": 30,
        "max_workers": 10,
        "tags": ["production", "gpu", "production"],
        "settings": {
            **{f"member_{number}": str(number) for number in range(10)},
            "region": "us-east-1",
            "tier": "premium",
            "cpu_limit": "2000m",
            "enable_local_litellm_proxy": "false",
        },
    },
}


@pytest.mark.parametrize("config", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_an_environment_is_as_it_was_planned(manager: GoClient, config: dict[str, Any]) -> None:
    resource = EnvironmentResource(manager, config)
    resource.create()
    assert resource.plan() == {}
    found = manager.call("GET", f"/environments/{resource.state['id']}")
    sent = {"tags": [], "settings": {}, "execution_environment": {}} | config
    assert {name: found[name] for name in ("tags", "settings", "execution_environment")} == {
        name: sent[name] for name in ("tags", "settings", "execution_environment")
    }
    resource.destroy()
    with pytest.raises(GoError, match="status 404"):
        resource.read()


@pytest.mark.parametrize("config", QUEUES.values(), ids=QUEUES)
def test_a_queue_is_as_it_was_planned(fleet: Fleet, manager: GoClient, config: dict[str, Any]) -> None:
    resource = QueueResource(manager, str(fleet.environment.pk), config)
    resource.create()
    assert resource.state["task_queue_name"] == f"{fleet.organization.pk}.production.{config['name']}"
    assert resource.plan() == {}
    resource.destroy()
    with pytest.raises(GoError, match="status 404"):
        resource.read()


def test_an_environment_is_updated_field_by_field(manager: GoClient) -> None:
    resource = EnvironmentResource(manager, ENVIRONMENTS["update_fields"])
    resource.create()
    for config in (
        {"name": "update-fields", "display_name": "After", "description": "After"},
        {"name": "update-fields", "display_name": "After"},
        {"name": "renamed", "display_name": "", "description": ""} | {"description": "again"},
        {"name": "renamed"},
    ):
        resource.update(config)
        assert resource.plan() == {}
    assert (resource.state["display_name"], resource.state["description"]) == ("", None)


def test_a_queue_is_updated_field_by_field(fleet: Fleet, manager: GoClient) -> None:
    resource = QueueResource(manager, str(fleet.environment.pk), {"name": "updated"})
    resource.create()
    full = QUEUES["full"] | {"name": "updated"}
    for config in (
        full,
        full | {"status": "paused"},
        full | {"status": "inactive"},
        full | {"status": "active", "tags": ["one"], "settings": {"region": "eu"}},
        full | {"name": "renamed", "tags": ["one"], "settings": {"region": "eu"}, "max_workers": 1},
    ):
        resource.update(config)
        assert resource.plan() == {}


def test_what_is_imported_needs_no_change(fleet: Fleet, manager: GoClient) -> None:
    """An import reads by id; the data sources read the same, and all queues of an environment."""
    made = EnvironmentResource(manager, ENVIRONMENTS["import"])
    made.create()
    queue = QueueResource(manager, made.state["id"], QUEUES["full"])
    queue.create()
    for resource in (
        EnvironmentResource(manager, made.config, {"id": made.state["id"]}),
        QueueResource(manager, made.state["id"], queue.config, {"id": queue.state["id"]}),
    ):
        resource.state = resource.read()
        assert resource.plan() == {}
    assert manager.one("GET", f"/environments/{made.state['id']}", ENVIRONMENT) == made.state
    assert manager.many(f"/environments/{made.state['id']}/worker-queues", QUEUE) == [queue.state]


def test_destroys_the_queues_first_and_then_the_environment(manager: GoClient) -> None:
    environment = EnvironmentResource(manager, {"name": "destroyed"})
    environment.create()
    queue = QueueResource(manager, environment.state["id"], {"name": "default"})
    queue.create()
    with pytest.raises(GoError, match=r"status 409.*1 worker queue is in it"):
        environment.destroy()
    queue.destroy()
    environment.destroy()
