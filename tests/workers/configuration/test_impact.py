from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.configuration.impact import QueueImpact, can_start_again, cannot_start, compare, look
from workers.configuration.revisions import given_in, groups_of_queues
from workers.fleet.bulk import look_at_move
from workers.models import Worker, WorkerInstance, WorkerQueue


def impact_of(fleet: Fleet, change: Any) -> list[QueueImpact]:
    before = look([fleet.organization.pk])
    change()
    return compare(before, look([fleet.organization.pk]), now=timezone.now())


def test_tells_the_queue_how_many_workers_and_how_many_of_them_are_online(fleet: Fleet) -> None:
    factories.create_worker(fleet.queue, "worker-2")
    stopped = factories.create_worker(fleet.queue, "worker-3")
    assert start(fleet).status_code == 200
    assert start(fleet, worker_id=stopped.pk, token=factories.issue_token(stopped)).status_code == 200
    WorkerInstance.objects.filter(worker=stopped).update(stopped_at=timezone.now())
    old = look([fleet.organization.pk])[fleet.worker.pk].revision
    (found,) = impact_of(fleet, lambda: factories.point(fleet.queue, heartbeat_interval=5))
    assert (found.queue, found.workers, found.online) == (fleet.queue.task_queue_name, 3, 1)
    assert found.old_revision == old != found.new_revision == look([fleet.organization.pk])[fleet.worker.pk].revision


def test_a_process_that_runs_with_the_new_revision_would_not_be_outdated(fleet: Fleet) -> None:
    other = factories.create_worker(fleet.queue, "worker-2")
    assert start(fleet).status_code == 200
    factories.point(fleet.queue, heartbeat_interval=5)
    assert start(fleet, worker_id=other.pk, token=factories.issue_token(other)).status_code == 200
    (found,) = impact_of(fleet, lambda: factories.point(fleet.queue, heartbeat_interval=60))
    assert (found.workers, found.online, found.outdated) == (2, 2, 1)
    (found,) = impact_of(fleet, lambda: factories.point(fleet.queue, heartbeat_interval=7))
    assert (found.workers, found.online, found.outdated) == (2, 2, 2)


def test_only_what_a_worker_is_given_counts(fleet: Fleet) -> None:
    assert impact_of(fleet, lambda: factories.point(fleet.queue, description="new", max_workers=3)) == []
    unused = factories.create_temporal(fleet.organization, "unused")
    assert impact_of(fleet, lambda: factories.point(unused, host="elsewhere.example.com:7233")) == []


def test_a_level_that_is_overridden_below_changes_nothing_there(fleet: Fleet) -> None:
    narrow = factories.create_temporal(fleet.organization, "narrow")
    other = factories.create_queue(fleet.environment, "other", temporal_connection=narrow)
    factories.create_worker(other)
    (found,) = impact_of(fleet, lambda: factories.point(fleet.temporal, host="elsewhere.example.com:7233"))
    assert found.queue_id == fleet.queue.pk


def test_a_worker_that_moves_is_told_of_in_its_new_queue(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    (found,) = impact_of(fleet, lambda: Worker.objects.filter(pk=fleet.worker.pk).update(queue=other))
    assert (found.queue, found.workers) == (other.task_queue_name, 1)


def test_workers_that_come_or_go_are_not_affected(fleet: Fleet) -> None:
    assert impact_of(fleet, lambda: factories.create_worker(fleet.queue, "worker-2")) == []
    assert impact_of(fleet, lambda: Worker.objects.filter(name="worker-2").delete()) == []


def test_other_organizations_are_not_looked_at(fleet: Fleet) -> None:
    other = fresh_fleet()
    assert set(look([fleet.organization.pk])) == {fleet.worker.pk}
    assert impact_of(fleet, lambda: factories.point(other.queue, heartbeat_interval=5)) == []


def test_silent_processes_are_not_online(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(days=1))
    (found,) = impact_of(fleet, lambda: factories.point(fleet.queue, heartbeat_interval=5))
    assert (found.workers, found.online) == (1, 0)


@pytest.mark.parametrize("queues", [1, 12])
def test_the_statements_do_not_grow_with_the_fleet(fleet: Fleet, queues: int, django_assert_num_queries: Any) -> None:
    for number in range(queues):
        factories.create_worker(factories.create_queue(fleet.environment, f"queue-{number}"))
    before = look([fleet.organization.pk])
    factories.point(fleet.temporal, host="elsewhere.example.com:7233")
    with django_assert_num_queries(4):  # workers, their queues; who is online, the queues' names
        impact = compare(before, look([fleet.organization.pk]), now=timezone.now())
    assert len(impact) == queues + 1


# --- Who cannot start any more -------------------------------------------------------------------------------------------


def lost_by(fleet: Fleet, change: Any) -> list[str]:
    def everything() -> dict[Any, Any]:
        own = WorkerQueue.objects.filter(organization=fleet.organization)
        return look([fleet.organization.pk]) | given_in(groups_of_queues(own))

    before = everything()
    change()
    return [str(found) for found in cannot_start(before, everything(), now=timezone.now())]


@pytest.mark.parametrize(("pointer", "name"), [("temporal_connection", "Temporal"), ("litellm_connection", "LiteLLM")])
def test_whoever_loses_a_last_connection_cannot_start_any_more(fleet: Fleet, pointer: str, name: str) -> None:
    assert start(fleet).status_code == 200
    lost = lost_by(fleet, lambda: factories.point(fleet.organization, **{pointer: None}))
    reason = f"could not start any more: no {name} connection at any level"
    assert lost == [f"1 worker in 1 queue {reason} (1 of them runs now)"]
    assert start(fleet).status_code == 409
    assert lost_by(fleet, lambda: factories.create_worker(fleet.queue, "worker-2")) == []


def test_who_has_a_connection_at_a_narrower_level_loses_nothing(fleet: Fleet) -> None:
    factories.point(fleet.queue, litellm_connection=fleet.litellm)
    empty = factories.create_queue(fleet.environment, "empty")
    lost = lost_by(fleet, lambda: factories.point(fleet.organization, litellm_connection=None))
    assert lost == ["1 queue could not start any more: no LiteLLM connection at any level"]
    factories.create_worker(empty)
    assert lost_by(fleet, lambda: factories.point(fleet.queue, temporal_connection=None)) == []


def test_a_worker_that_is_moved_to_a_queue_without_configuration_cannot_start(fleet: Fleet) -> None:
    factories.point(fleet.organization, litellm_connection=None)
    factories.point(fleet.queue, litellm_connection=fleet.litellm)
    bare = factories.create_queue(fleet.environment, "bare")
    move = look_at_move([fleet.worker.pk], bare, timezone.now())
    reason = "1 worker in 1 queue could not start any more: no LiteLLM connection at any level"
    assert [str(found) for found in move.cannot_start] == [reason]
    (impact,) = move.impact
    assert str(impact).endswith(
        f" 0 online, would get no configuration ({impact.old_revision} -> no LiteLLM connection at any level)"
    )


# --- Who can start again -----------------------------------------------------------------------------------------------


def test_whoever_gets_a_last_connection_back_could_start_again(fleet: Fleet) -> None:
    factories.create_worker(fleet.queue, "worker-2")
    assert start(fleet).status_code == 200
    new = look([fleet.organization.pk])[fleet.worker.pk].revision
    missing = "no LiteLLM connection at any level"
    (lost,) = impact_of(fleet, lambda: factories.point(fleet.organization, litellm_connection=None))
    assert (lost.missing_now, lost.missing, lost.online, lost.outdated) == ("", missing, 1, 0)
    (found,) = impact_of(fleet, lambda: factories.point(fleet.organization, litellm_connection=fleet.litellm))
    assert (found.missing_now, found.missing, found.online, found.outdated) == (missing, "", 1, 0)
    assert str(found).endswith(f"2 workers, 1 online, could start again ({missing} -> {new})")
    assert found.as_json()["missing_now"] == missing
    assert can_start_again([lost]) == ""
    assert can_start_again([found]) == "2 workers in 1 queue could start again."


def test_who_lacks_something_else_then_could_still_not_start(fleet: Fleet) -> None:
    factories.point(fleet.organization, temporal_connection=None)

    def swap() -> None:
        factories.point(fleet.organization, temporal_connection=fleet.temporal, litellm_connection=None)

    (found,) = impact_of(fleet, swap)
    assert str(found).endswith(
        "would get no configuration (no Temporal connection at any level -> no LiteLLM connection at any level)"
    )
    assert can_start_again([found]) == ""
