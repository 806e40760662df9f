"""One process is one process where each start makes a worker: places, crash loops, and workers that were removed."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from environments.audit import Actor
from environments.roles import EVERYWHERE
from tests.support import factories
from tests.support.factories import Fleet
from tests.support.places import (
    AAA,
    ANOTHER,
    BBB,
    LATER,
    PLACE,
    apply,
    assert_refused,
    beat,
    goodbye,
    instance_of,
    live_count,
    of_worker,
    open_fleet,
    post,
    queue_start,
    register,
    register_in_metadata,
    start,
)
from workers.lifecycle.gone_workers import prune_workers
from workers.models import DuplicatePolicy, Liveness, Worker, WorkerInstance, WorkerQueue
from workers.reports.attention import CRASH_LOOP_WINDOW, on_looping_hosts
from workers.reports.dashboard import look_at_fleet


@pytest.fixture
def fleet(db: None) -> Fleet:
    return open_fleet()


# --- Queue starts and registrations ----------------------------------------------------------------------------------

AGENT = {"hostname": "agent-0", "pid": 1}
MAKES = {"queue start": queue_start, "register": register, "register in metadata": register_in_metadata}


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> Any:
    """The ways by which an ephemeral worker is made."""
    return MAKES[request.param]


@pytest.mark.parametrize(("first", "second"), LATER.values(), ids=LATER)
def test_a_process_that_starts_again_in_a_queue_has_one_place(fleet: Fleet, make: Any, first: Any, second: Any) -> None:
    WorkerQueue.objects.update(max_workers=1)
    one = make(fleet, first)
    for _ in range(2):
        another = make(fleet, second)
        assert another.status_code == 200
    assert live_count() == 1
    assert instance_of(one).liveness == Liveness.STOPPED
    assert instance_of(another).liveness == Liveness.ONLINE
    assert one.json()["worker_id"] != another.json()["worker_id"]
    assert make(fleet, {"hostname": "elsewhere", "pid": 1}).status_code == 409


@pytest.mark.parametrize(("first", "second"), ANOTHER.values(), ids=ANOTHER)
def test_another_process_in_a_queue_needs_a_place_of_its_own(fleet: Fleet, make: Any, first: Any, second: Any) -> None:
    WorkerQueue.objects.update(max_workers=1)
    one = make(fleet, first)
    assert make(fleet, second).status_code == 409
    WorkerQueue.objects.update(max_workers=2)
    two = make(fleet, second)
    assert [instance_of(response).liveness for response in (one, two)] == [Liveness.ONLINE] * 2


def test_one_host_fills_no_queue_and_others_find_their_places(fleet: Fleet, make: Any) -> None:
    WorkerQueue.objects.update(max_workers=3)
    for _ in range(5):
        assert make(fleet, AGENT).status_code == 200
    statuses = [make(fleet, AGENT | {"hostname": f"agent-{number}"}).status_code for number in range(1, 4)]
    assert statuses == [200, 200, 409]
    assert make(fleet, AGENT).status_code == 200


def test_a_worker_with_a_name_keeps_its_place_whoever_starts_in_its_queue(fleet: Fleet, make: Any) -> None:
    start(fleet, AGENT)
    make(fleet, AGENT)
    assert of_worker(fleet.worker.pk).liveness == Liveness.ONLINE


def test_another_queues_worker_keeps_its_place(fleet: Fleet) -> None:
    queue_start(fleet, AGENT)
    fleet.queue = factories.create_queue(fleet.environment, "elsewhere")
    queue_start(fleet, AGENT)
    assert live_count() == 2


def test_a_worker_that_lost_its_place_and_beats_on_has_it_again(fleet: Fleet, make: Any) -> None:
    """Three replicas that tell the same of themselves: only their heartbeats show that all of them run."""
    ids = [make(fleet, PLACE).json()["worker_id"] for _ in range(3)]
    assert live_count() == 1
    for info in (None, PLACE):
        assert [beat(fleet, info, worker_id=identifier).status_code for identifier in ids] == [204] * 3
        assert live_count() == 3
    assert [of_worker(identifier).is_contested for identifier in ids] == [True, True, False]


def test_a_start_ends_none_of_those_that_are_known_to_run_side_by_side(fleet: Fleet) -> None:
    ids = [queue_start(fleet, PLACE).json()["worker_id"] for _ in range(3)]
    for identifier in ids:
        beat(fleet, worker_id=identifier)
    queue_start(fleet, PLACE)
    assert [of_worker(identifier).liveness for identifier in ids[:2]] == [Liveness.ONLINE] * 2


@pytest.mark.parametrize("policy", DuplicatePolicy)
def test_no_other_process_speaks_as_a_worker_that_a_start_made(
    fleet: Fleet, make: Any, policy: DuplicatePolicy
) -> None:
    apply(policy)
    identifier = make(fleet, AAA).json()["worker_id"]
    assert_refused(beat(fleet, BBB, worker_id=identifier), "has not started")
    goodbye(fleet, BBB, worker_id=identifier)
    assert of_worker(identifier).liveness == Liveness.ONLINE


# --- A worker that was removed ----------------------------------------------------------------------------------------


def removed(fleet: Fleet, make: Any) -> str:
    identifier = str(make(fleet, AAA).json()["worker_id"])
    long_ago = timezone.now() - timedelta(days=2)
    Worker.objects.filter(pk=identifier).update(created_at=long_ago)
    WorkerInstance.objects.update(last_heartbeat_at=long_ago)
    actor = Actor("command:prune_workers")
    assert list(prune_workers(silent_for=timedelta(days=1), actor=actor, now=timezone.now())) == [1]
    return identifier


def test_a_process_whose_worker_was_removed_is_told_to_start_again(fleet: Fleet, make: Any) -> None:
    identifier = removed(fleet, make)
    for info in (None, AAA):
        assert_refused(beat(fleet, info, worker_id=identifier), "removed")
    named = {"worker_id": identifier, "environment_name": "production", "tasks_processed": 1}
    assert_refused(post(fleet, "workers/heartbeat", named), "removed")


@pytest.mark.parametrize("scope", ["another organization", "another queue", "another environment", "a worker"])
def test_nobody_else_learns_that_a_worker_was_removed(fleet: Fleet, scope: str) -> None:
    identifier = removed(fleet, queue_start)
    of = {
        "another organization": lambda: factories.create_fleet().organization,
        "another queue": lambda: factories.create_queue(fleet.environment, "elsewhere"),
        "another environment": lambda: factories.create_environment(fleet.organization, "staging"),
        "a worker": lambda: fleet.worker,
    }
    fleet.token = factories.issue_token(of[scope]())
    told = beat(fleet, AAA, worker_id=identifier)
    unknown = beat(fleet, AAA, worker_id=uuid4())
    assert (told.status_code, told.content) == (404, unknown.content)


def test_a_worker_that_a_person_deleted_is_unknown(fleet: Fleet) -> None:
    fleet.api_key.delete()
    fleet.worker.delete()
    assert beat(fleet, AAA).status_code == 404


def test_a_worker_whose_place_was_taken_is_removed_soon_and_not_while_it_may_come_back(fleet: Fleet) -> None:
    for _ in range(3):
        queue_start(fleet, AGENT)
    now, day = timezone.now(), timedelta(days=1)
    actor = Actor("command:prune_workers")
    for hours, expected in ((2, []), (4, [2])):
        then = now + timedelta(hours=hours)
        assert list(prune_workers(silent_for=day, actor=actor, now=then)) == expected
    assert Worker.objects.filter(is_ephemeral=True).count() == 1


# --- Crash loops ------------------------------------------------------------------------------------------------------


def test_a_host_that_starts_again_and_again_is_in_a_crash_loop(fleet: Fleet, make: Any) -> None:
    for number in range(3):
        make(fleet, {"hostname": f"calm-{number}", "pid": 1})
        make(fleet, {"hostname": "begins", "pid": number})
        assert not on_looping_hosts(timezone.now() - CRASH_LOOP_WINDOW)
        make(fleet, AGENT)
    now = timezone.now()
    assert look_at_fleet(EVERYWHERE, hours=24, now=now).attention.looping_hosts == 1
    assert {row.hostname for row in on_looping_hosts(now - CRASH_LOOP_WINDOW)} == {"agent-0"}
    assert not on_looping_hosts(now)


def test_a_host_whose_processes_say_goodbye_is_in_a_crash_loop_too(fleet: Fleet, make: Any) -> None:
    for number in range(3):
        info = {"hostname": "vm-1", "pid": number}
        goodbye(fleet, info, worker_id=make(fleet, info).json()["worker_id"])
    assert look_at_fleet(EVERYWHERE, hours=24, now=timezone.now()).attention.looping_hosts == 1


def test_hosts_of_two_organizations_with_one_name_are_two(fleet: Fleet) -> None:
    other = open_fleet()
    for each in (fleet, fleet, other):
        queue_start(each, AGENT)
    assert look_at_fleet(EVERYWHERE, hours=24, now=timezone.now()).attention.looping_hosts == 0
