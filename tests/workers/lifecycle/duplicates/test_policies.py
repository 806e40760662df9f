"""What the queue's policy makes of two processes of one worker."""

from typing import Any

import pytest
from django.utils import timezone

from tests.support.calls import assert_error_shape
from tests.support.documents import everything
from tests.support.duplicates import NEW, NEW_ADDRESS, OLD, OLD_ADDRESS, disconnect, heartbeat, instance, silence, start
from tests.support.factories import Fleet
from workers.models import DuplicatePolicy, Liveness, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite


def assert_superseded(response: Any) -> None:
    assert response.status_code == 409, response.content[:500]
    assert_error_shape(response)
    assert response.json()["detail"].startswith("superseded")


@pytest.fixture
def taken_over(fleet: Fleet) -> Fleet:
    """The same where NEW took over."""
    apply(DuplicatePolicy.TAKE_OVER)
    assert start(fleet, NEW, NEW_ADDRESS).status_code == 200
    return fleet


def apply(policy: DuplicatePolicy) -> None:
    WorkerQueue.objects.update(duplicate_policy=policy)


def test_two_processes_are_allowed_unless_the_queue_says_otherwise(rivals: Fleet) -> None:
    assert instance(OLD).liveness == instance(NEW).liveness == Liveness.ONLINE
    assert (instance(OLD).is_current, instance(NEW).is_current) == (False, True)
    assert WorkerInstance.objects.live(timezone.now()).count() == 2


def test_the_history_has_both_hosts_side_by_side_and_says_who_displaced_whom(rivals: Fleet) -> None:
    second, first = WorkerStart.objects.order_by("-started_at")
    assert first.displaced_instance_id is None
    assert second.displaced_instance_id == first.pk
    assert (first.system_info, second.system_info) == (OLD, NEW)
    assert (first.client_address, second.client_address) == (OLD_ADDRESS, NEW_ADDRESS)
    assert [instance(OLD).pk, instance(NEW).pk] == [first.pk, second.pk]


def test_the_second_of_two_processes_is_flagged(rivals: Fleet) -> None:
    assert (instance(OLD).is_contested, instance(NEW).is_contested) == (False, True)


@pytest.mark.parametrize("ending", ["offline", "stopped"])
@pytest.mark.parametrize("policy", DuplicatePolicy)
def test_a_start_after_the_process_ended_displaces_nothing(fleet: Fleet, policy: DuplicatePolicy, ending: str) -> None:
    apply(policy)
    if ending == "stopped":
        assert disconnect(fleet).status_code == 204
    else:
        silence(minutes=4)
    assert start(fleet, NEW, NEW_ADDRESS).status_code == 200
    assert WorkerStart.objects.order_by("-started_at")[0].displaced_instance_id is None


def test_a_second_process_is_rejected_and_nothing_is_recorded(fleet: Fleet) -> None:
    apply(DuplicatePolicy.REJECT)
    before = everything()
    response = start(fleet, NEW, NEW_ADDRESS)
    assert response.status_code == 409
    assert_error_shape(response)
    assert everything() == before
    assert heartbeat(fleet, OLD).status_code == 204


@pytest.mark.parametrize(
    ("system_info", "address"),
    [
        (OLD | {"pid": 101}, OLD_ADDRESS),
        (OLD | {"hostname": "other"}, OLD_ADDRESS),
        (OLD, NEW_ADDRESS),
        ({"hostname": "old-host"}, OLD_ADDRESS),
        ({"pid": 100}, OLD_ADDRESS),
        ({}, OLD_ADDRESS),
    ],
    ids=["another pid", "another host", "another address", "no pid", "no host", "nothing told"],
)
def test_what_is_not_certainly_the_same_process_is_rejected(fleet: Fleet, system_info: Any, address: str) -> None:
    apply(DuplicatePolicy.REJECT)
    before = everything()
    assert start(fleet, system_info, address).status_code == 409
    assert everything() == before


@pytest.mark.parametrize("policy", DuplicatePolicy)
def test_a_process_that_repeats_its_start_is_no_duplicate_of_itself(fleet: Fleet, policy: DuplicatePolicy) -> None:
    apply(policy)
    for _ in range(2):
        assert start(fleet, OLD).status_code == 200
    assert WorkerStart.objects.count() == 3
    assert set(WorkerStart.objects.values_list("displaced_instance_id", flat=True)) == {None}
    assert WorkerInstance.objects.live(timezone.now()).count() == 1
    assert heartbeat(fleet, OLD).status_code == 204
    assert heartbeat(fleet).status_code == 204
    assert instance(OLD).liveness == Liveness.ONLINE


def test_a_late_process_is_still_in_the_way_and_an_offline_one_is_not(fleet: Fleet) -> None:
    apply(DuplicatePolicy.REJECT)
    silence(seconds=170)
    assert start(fleet, NEW, NEW_ADDRESS).status_code == 409
    silence(seconds=185)
    assert start(fleet, NEW, NEW_ADDRESS).status_code == 200


def test_the_process_that_was_taken_over_is_told_so_by_its_next_heartbeat(taken_over: Fleet) -> None:
    assert_superseded(heartbeat(taken_over, OLD))
    assert_superseded(heartbeat(taken_over, OLD))
    assert heartbeat(taken_over, NEW, NEW_ADDRESS).status_code == 204


def test_the_process_that_was_taken_over_is_told_so_by_its_light_heartbeat_too(taken_over: Fleet) -> None:
    assert_superseded(heartbeat(taken_over))
    assert heartbeat(taken_over, address=NEW_ADDRESS).status_code == 204


def test_a_take_over_is_on_record_and_ends_the_older_instance(taken_over: Fleet) -> None:
    old, new = instance(OLD), instance(NEW)
    assert (old.liveness, old.stop_reason, old.is_current) == (Liveness.STOPPED, "superseded", False)
    assert (new.liveness, new.is_current) == (Liveness.ONLINE, True)
    assert WorkerStart.objects.get(pk=new.pk).displaced_instance_id == old.pk


def test_a_heartbeat_of_the_process_that_was_taken_over_changes_nothing(taken_over: Fleet) -> None:
    before = everything()
    heartbeat(taken_over, OLD, tasks_processed=99, logs=["still here"])
    heartbeat(taken_over, tasks_processed=99)
    assert everything() == before


def test_the_late_goodbye_of_the_process_that_was_taken_over_does_not_stop_the_new_one(taken_over: Fleet) -> None:
    stopped_at = instance(OLD).stopped_at
    for _ in range(2):
        assert disconnect(taken_over, OLD_ADDRESS, "told to end").status_code == 204
    assert instance(NEW).liveness == Liveness.ONLINE
    assert heartbeat(taken_over, NEW, NEW_ADDRESS).status_code == 204
    old = instance(OLD)
    assert old.stopped_at == stopped_at
    assert old.stop_reason == "superseded, told to end"


def test_the_late_goodbye_from_the_same_address_does_not_stop_the_new_one(fleet: Fleet) -> None:
    apply(DuplicatePolicy.TAKE_OVER)
    start(fleet, NEW)
    for _ in range(2):
        assert disconnect(fleet).status_code == 204
    assert instance(NEW).liveness == Liveness.ONLINE


def test_the_new_process_can_say_goodbye_after_a_take_over(taken_over: Fleet) -> None:
    assert disconnect(taken_over, NEW_ADDRESS, "crash").status_code == 204
    assert (instance(NEW).liveness, instance(NEW).stop_reason) == (Liveness.STOPPED, "crash")


def test_a_third_process_takes_over_from_the_second(taken_over: Fleet) -> None:
    third = {"hostname": "third-host", "pid": 300}
    assert start(taken_over, third, "203.0.113.9").status_code == 200
    assert_superseded(heartbeat(taken_over, OLD))
    assert_superseded(heartbeat(taken_over, NEW, NEW_ADDRESS))
    assert heartbeat(taken_over, third, "203.0.113.9").status_code == 204
    assert WorkerInstance.objects.live(timezone.now()).count() == 1


def test_a_process_that_was_taken_over_may_take_over_again(taken_over: Fleet) -> None:
    assert start(taken_over, OLD).status_code == 200
    assert heartbeat(taken_over, OLD).status_code == 204
    assert_superseded(heartbeat(taken_over, NEW, NEW_ADDRESS))
