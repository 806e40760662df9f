"""The command line's own calls, in the order in which it makes them."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from tests.support import factories
from tests.support.factories import Fleet
from tests.support.go_clients import CONFIG, QUEUE, SHOWN_ENVIRONMENT, WORKER, GoClient, GoError
from workers.models import QueueObservation, Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite

#: As `exec --local` sends it, with members that are not known here.
LOCAL = {
    "name": "local-exec-20261130-091500",
    "ephemeral": True,
    "single_execution_mode": True,
    "auto_cleanup_after_seconds": 3600,
}


def test_makes_changes_and_deletes_an_environment(manager: GoClient) -> None:
    created = {
        "name": "staging",
        "description": "Where it is tried",
        "variables": {"LOG_LEVEL": "debug"},
        "secrets": ["github-token"],
        "integrations": ["github"],
    }
    environment = manager.one("POST", "/environments", SHOWN_ENVIRONMENT, created)
    path = f"/environments/{environment['id']}"
    assert {name: environment[name] for name in created} == created
    changed = manager.one("PATCH", path, SHOWN_ENVIRONMENT, {"variables": {"A": "1", "B": ""}})
    assert changed["variables"] == {"A": "1", "B": ""}
    assert changed["secrets"] == ["github-token"]
    assert manager.call("GET", path)["execution_environment"] == {
        "env_vars": {"A": "1", "B": ""},
        "secrets": ["github-token"],
        "integration_ids": ["github"],
    }
    assert manager.one("PATCH", path, SHOWN_ENVIRONMENT, {"description": "Else"})["variables"] == {"A": "1", "B": ""}
    manager.one("GET", path, SHOWN_ENVIRONMENT)
    manager.call("DELETE", path)
    with pytest.raises(GoError, match="status 404"):
        manager.call("GET", path)


def test_runs_once_in_a_queue_of_its_own_and_takes_it_away(fleet: Fleet, manager: GoClient) -> None:
    """It waits for an empty list of workers before it deletes the queue."""
    (first, *_) = manager.many("/environments", SHOWN_ENVIRONMENT)
    body = LOCAL | {"environment_id": first["id"]}
    queue = manager.one("POST", f"/environments/{first['id']}/worker-queues", QUEUE, body)
    manager.one("GET", f"/worker-queues/{queue['id']}/config", CONFIG)
    started = manager.call("POST", f"/worker-queues/{queue['id']}/start", {"system_info": {"hostname": "laptop"}})
    assert len(manager.many(f"/worker-queues/{queue['id']}/workers", WORKER)) == 1
    with pytest.raises(GoError, match=r"status 409.*1 process of it is live"):
        manager.call("DELETE", f"/worker-queues/{queue['id']}")
    manager.call("POST", f"/workers/{started['worker_id']}/disconnect", {"reason": "done"})
    assert manager.many(f"/worker-queues/{queue['id']}/workers", WORKER) == []
    manager.call("DELETE", f"/worker-queues/{queue['id']}")
    assert not WorkerQueue.objects.filter(pk=queue["id"]).exists()
    assert not Worker.objects.filter(pk=started["worker_id"]).exists()
    assert not WorkerInstance.objects.filter(worker=started["worker_id"]).exists()
    assert WorkerStart.objects.filter(worker=started["worker_id"]).count() == 1


def test_the_worker_command_holds_texts_alone(fleet: Fleet, manager: GoClient, settings: Settings) -> None:
    told = manager.call("GET", f"/environments/{fleet.environment.pk}/worker-command")
    assert all(isinstance(value, str) for value in told.values())
    words = told["command"].split()
    assert words[:3] == ["kubiya", "worker", "start"]
    assert words[3:] == [f"--queue-id={fleet.queue.pk}", f"--control-plane-url={settings.CONTROL_PLANE_URL}"]


def test_there_is_no_worker_command_without_a_default_queue(fleet: Fleet, manager: GoClient) -> None:
    staging = factories.create_environment(fleet.organization, "staging")
    with pytest.raises(GoError, match=r"status 409.*no worker queue named default"):
        manager.call("GET", f"/environments/{staging.pk}/worker-command")


@pytest.mark.parametrize("path", ["/environments", "/worker-queues"])
def test_the_first_of_a_list_is_the_default_and_then_the_oldest(fleet: Fleet, manager: GoClient, path: str) -> None:
    names = ["zebra", "apple", "default", "middle"]
    if path == "/environments":
        fleet.environment.name = "oldest"
        fleet.environment.save()
        for name in names:
            factories.create_environment(fleet.organization, name)
    else:
        fleet.queue.name = "oldest"
        fleet.queue.save()
        for name in names:
            factories.create_queue(fleet.environment, name)
    found = [row["name"] for row in manager.call("GET", path)]
    assert found == ["default", "oldest", "zebra", "apple", "middle"]


def test_the_sdk_lists_who_polls_which_task_queue(fleet: Fleet, manager: GoClient) -> None:
    told: dict[str, Any] = {"system_info": {"hostname": "host-1", "pid": 4711}}
    manager.call("POST", f"/workers/{fleet.worker.pk}/start", told)
    (row,) = manager.call("GET", "/workers")
    assert row == manager.call("GET", "/workers/production.default")
    assert row["task_queue"] == f"{fleet.organization.pk}.production.default"
    assert (row["runner_name"], row["worker_count"]) == ("production.default", 1)
    assert row["approximate_backlog_count"] is None
    (poller,) = row["workers"]
    assert (poller["identity"], poller["rate_per_second"]) == ("4711@host-1", None)
    with pytest.raises(GoError, match="status 404"):
        manager.call("GET", "/workers/production.other")


def test_the_sdk_is_told_how_many_tasks_wait_where_temporal_told_it_lately(fleet: Fleet, manager: GoClient) -> None:
    now = timezone.now()
    seen = QueueObservation(
        id=fleet.queue.pk, queue=fleet.queue, organization=fleet.organization, asked_at=now, observed_at=now, backlog=3
    )
    seen.save()
    assert manager.call("GET", "/workers/production.default")["approximate_backlog_count"] == 3
    seen.observed_at = now - timedelta(hours=1)
    seen.save()
    assert manager.call("GET", "/workers")[0]["approximate_backlog_count"] is None
