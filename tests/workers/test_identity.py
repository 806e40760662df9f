"""One process is one process: what tells two apart, at starts of every kind, heartbeats, reports and goodbyes."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test.utils import CaptureQueriesContext
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.audit import Actor
from environments.statements import Select
from tests import factories
from tests.factories import Fleet
from tests.workers import assert_error_shape, fresh_fleet, shared_client
from tests.workers.fleets import everything
from workers.lifecycle.process import SUCCEEDED, Process
from workers.models import DuplicatePolicy, Liveness, Worker, WorkerInstance, WorkerQueue
from workers.pruning import prune_workers

HERE, THERE = "192.0.2.20", "192.0.2.21"
PLACE = {"hostname": "worker", "pid": 1}
AAA, BBB = (PLACE | {"container_id": name} for name in ("aaa", "bbb"))
EARLY, LATE = ({"process_started_at": f"2026-11-29T10:0{minute}:00+00:00"} for minute in (0, 5))
REJECT, ALLOW, TAKE_OVER = DuplicatePolicy.REJECT, DuplicatePolicy.ALLOW, DuplicatePolicy.TAKE_OVER


@pytest.fixture
def fleet(db: None) -> Fleet:
    """A fleet whose key reaches all of it."""
    fleet = fresh_fleet()
    fleet.token = factories.issue_token(fleet.organization)
    return fleet


def post(fleet: Fleet, path: str, body: Any, address: str = HERE) -> Any:
    """What a worker at this address sends through a trusted proxy."""
    return shared_client().generic(
        "POST",
        f"/api/v1/{path}",
        json.dumps(body).encode(),
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {fleet.token}",
        HTTP_X_FORWARDED_FOR=address,
        HTTP_X_FORWARDED_PROTO="https",
    )


def start(fleet: Fleet, info: Any, address: str = HERE) -> Any:
    return post(fleet, f"workers/{fleet.worker.pk}/start", {"system_info": info}, address)


def queue_start(fleet: Fleet, info: Any, address: str = HERE) -> Any:
    return post(fleet, f"worker-queues/{fleet.queue.pk}/start", {"system_info": info}, address)


def register(fleet: Fleet, info: Any, address: str = HERE) -> Any:
    body = {"environment_name": fleet.environment.name, "system_info": info}
    return post(fleet, "workers/register", body, address)


def beat(fleet: Fleet, info: Any = None, address: str = HERE, worker_id: Any = None, **members: Any) -> Any:
    told = {"system_info": info} if info else {}
    return post(fleet, f"workers/{worker_id or fleet.worker.pk}/heartbeat", {**members, **told}, address)


def goodbye(fleet: Fleet, info: Any = None, address: str = HERE, worker_id: Any = None) -> None:
    told = {"system_info": info} if info else {}
    response = post(fleet, f"workers/{worker_id or fleet.worker.pk}/disconnect", {"reason": "end", **told}, address)
    assert response.status_code == 204


def apply(policy: DuplicatePolicy) -> None:
    WorkerQueue.objects.update(duplicate_policy=policy)


def instance_of(response: Any) -> WorkerInstance:
    """The latest one of the worker that a queue start has made."""
    return of_worker(response.json()["worker_id"])


def of_worker(worker_id: Any) -> WorkerInstance:
    rows = WorkerInstance.objects.with_liveness(timezone.now()).filter(worker=worker_id)
    return rows.order_by("-started_at")[0]


def instances() -> list[WorkerInstance]:
    """All of them, the oldest first."""
    return list(WorkerInstance.objects.with_liveness(timezone.now()).order_by("started_at"))


def live_count() -> int:
    return WorkerInstance.objects.live(timezone.now()).count()


def assert_refused(response: Any, words: str) -> None:
    assert response.status_code == 409, response.content[:500]
    assert_error_shape(response)
    assert words in response.json()["detail"]


# --- A second start of one worker ------------------------------------------------------------------------------------

#: What the running process tells and what the one that starts tells, and whether that one can only come after it.
ANOTHER = {
    "another container": (AAA, BBB),
    "another container on one node": (AAA | EARLY, BBB | LATE),
    "another container of one boot": (AAA | {"boot_id": "b"}, BBB | {"boot_id": "b"}),
    "another container after a reboot": (AAA | {"boot_id": "b"}, BBB | {"boot_id": "c"}),
    "another pid": (PLACE | {"boot_id": "b"}, PLACE | {"pid": 2, "boot_id": "b"}),
    "another host": (AAA, AAA | {"hostname": "other"}),
    "another pid of the container": (AAA, AAA | {"pid": 2}),
}
LATER = {
    "nothing more told": (PLACE, PLACE),
    "the same container": (AAA, AAA),
    "the same container, later": (AAA | EARLY, AAA | LATE),
    "a later process at the place": (PLACE | EARLY, PLACE | LATE),
    "after a reboot": (PLACE | {"boot_id": "b"}, PLACE | {"boot_id": "c"}),
    "another pid after a reboot": (PLACE | {"boot_id": "b"}, PLACE | {"pid": 2, "boot_id": "c"}),
    "the same process": (AAA | EARLY, AAA | EARLY),
    "a number": (PLACE | {"process_started_at": 1.5}, PLACE | {"process_started_at": 2.5}),
}


@pytest.mark.parametrize("has_beaten", [False, True])
@pytest.mark.parametrize(("first", "second"), ANOTHER.values(), ids=ANOTHER)
def test_another_process_is_rejected(fleet: Fleet, first: Any, second: Any, has_beaten: bool) -> None:  # noqa: FBT001
    apply(REJECT)
    assert start(fleet, first).status_code == 200
    if has_beaten:
        assert beat(fleet, first).status_code == 204
    before = everything()
    assert_refused(start(fleet, second), "rejects")
    assert_refused(beat(fleet, second, tasks_processed=7), "has not started")
    goodbye(fleet, second)
    assert everything()["workers.WorkerInstance"] == before["workers.WorkerInstance"]
    assert beat(fleet, first).status_code == 204


@pytest.mark.parametrize("has_beaten", [False, True])
@pytest.mark.parametrize(("first", "second"), LATER.values(), ids=LATER)
@pytest.mark.parametrize("policy", DuplicatePolicy)
def test_what_comes_after_the_process_takes_its_place(
    fleet: Fleet,
    policy: DuplicatePolicy,
    first: Any,
    second: Any,
    has_beaten: bool,  # noqa: FBT001
) -> None:
    apply(policy)
    assert start(fleet, first).status_code == 200
    if has_beaten:
        assert beat(fleet, first).status_code == 204
    assert start(fleet, second).status_code == 200
    assert beat(fleet, second).status_code == 204
    old, new = instances()
    assert (old.liveness, old.is_superseded, new.liveness) == (Liveness.STOPPED, False, Liveness.ONLINE)
    assert (new.is_contested, live_count()) == (False, 1)


@pytest.mark.parametrize(("first", "second"), ANOTHER.values(), ids=ANOTHER)
def test_another_process_that_is_allowed_is_flagged_and_kept_apart(fleet: Fleet, first: Any, second: Any) -> None:
    start(fleet, first)
    beat(fleet, first)
    assert start(fleet, second).status_code == 200
    for _ in range(2):
        assert beat(fleet, first, tasks_processed=1, logs=["first"]).status_code == 204
        assert beat(fleet, second, tasks_processed=2, logs=["second"]).status_code == 204
    old, new = instances()
    assert (old.tasks_processed, new.tasks_processed, new.is_contested) == (1, 2, True)
    assert (old.report.system_info, new.report.system_info) == (first, second)
    assert (set(old.report.logs), set(new.report.logs)) == ({"first"}, {"second"})
    goodbye(fleet, first)
    assert [row.liveness for row in instances()] == [Liveness.STOPPED, Liveness.ONLINE]
    assert beat(fleet, second).status_code == 204


@pytest.mark.parametrize(("first", "second"), ANOTHER.values(), ids=ANOTHER)
def test_another_process_that_takes_over_has_the_older_one_told(fleet: Fleet, first: Any, second: Any) -> None:
    apply(TAKE_OVER)
    start(fleet, first)
    beat(fleet, first)
    assert start(fleet, second).status_code == 200
    assert_refused(beat(fleet, first, logs=["still here"]), "superseded")
    goodbye(fleet, first)
    assert beat(fleet, second).status_code == 204
    assert [row.liveness for row in instances()] == [Liveness.STOPPED, Liveness.ONLINE]
    assert instances()[1].report.system_info == second


@pytest.mark.parametrize("policy", DuplicatePolicy)
def test_a_process_that_has_said_goodbye_is_not_taken_for_the_next_one(fleet: Fleet, policy: DuplicatePolicy) -> None:
    """Nothing contests the new one: the old one has ended, and yet a thread of it beats on."""
    apply(policy)
    start(fleet, AAA)
    goodbye(fleet, AAA)
    start(fleet, BBB)
    assert beat(fleet, AAA, tasks_processed=9, logs=["old"]).status_code == 204
    old, new = instances()
    assert (old.liveness, new.tasks_processed, hasattr(new, "report")) == (Liveness.STOPPED, 0, False)
    goodbye(fleet, AAA)
    assert instances()[1].liveness == Liveness.ONLINE


def test_what_was_taken_for_dead_and_beats_on_is_shown_again(fleet: Fleet) -> None:
    """Two containers of one pod, of which neither tells more than when it began."""
    start(fleet, PLACE | EARLY)
    start(fleet, PLACE | LATE)
    assert [row.liveness for row in instances()] == [Liveness.STOPPED, Liveness.ONLINE]
    assert beat(fleet, PLACE | EARLY, tasks_processed=3).status_code == 204
    old, new = instances()
    assert (old.liveness, old.stop_reason, old.tasks_processed) == (Liveness.ONLINE, "", 3)
    assert (old.is_contested, new.liveness, new.tasks_processed) == (True, Liveness.ONLINE, 0)


@pytest.mark.parametrize("policy", [REJECT, TAKE_OVER])
def test_what_was_taken_for_dead_and_beats_on_is_told_to_end_where_one_may_run(
    fleet: Fleet, policy: DuplicatePolicy
) -> None:
    apply(policy)
    start(fleet, PLACE | EARLY)
    start(fleet, PLACE | LATE)
    assert_refused(beat(fleet, PLACE | EARLY), "superseded")
    assert beat(fleet, PLACE | LATE).status_code == 204


def test_a_process_that_starts_again_beside_another_one_is_still_one(fleet: Fleet) -> None:
    for info in (AAA | EARLY, BBB | EARLY, AAA | LATE, BBB | LATE, BBB | LATE):
        assert start(fleet, info).status_code == 200
        assert beat(fleet, info).status_code == 204
    assert live_count() == 2


@pytest.mark.parametrize("missing", ["container_id", "boot_id", "process_started_at"])
def test_what_is_told_only_once_says_nothing(fleet: Fleet, missing: str) -> None:
    full = AAA | EARLY | {"boot_id": "b"}
    start(fleet, full)
    with CaptureQueriesContext(connection) as captured:
        assert beat(fleet, {name: value for name, value in full.items() if name != missing}).status_code == 204
    assert captured.captured_queries[0]["sql"].startswith("UPDATE")
    assert not [query for query in captured.captured_queries if '"is_ephemeral"' in query["sql"]]


@pytest.mark.parametrize("odd", [None, "", True, [], {}, {"a": 1}])
def test_evidence_that_is_none_says_nothing(fleet: Fleet, odd: Any) -> None:
    apply(REJECT)
    start(fleet, AAA)
    assert beat(fleet, PLACE | {"container_id": odd, "boot_id": odd}).status_code == 204
    assert start(fleet, PLACE | {"container_id": odd, "process_started_at": odd}).status_code == 200


TEXTS = st.sampled_from(["", "a", "b"])
EVIDENCE = st.tuples(TEXTS, st.sampled_from([None, 1, 2]), st.sampled_from([HERE, THERE]), TEXTS, TEXTS, TEXTS)
NAMES = ("hostname", "pid", "client_address", "container_digest", "boot_digest", "birth_digest")
BEFORE = Select(lambda: WorkerInstance.objects.filter(SUCCEEDED))


@given(told=EVIDENCE, kept=EVIDENCE)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_who_comes_after_whom_is_weighed_alike_in_python_and_in_the_database(
    fleet: Fleet, told: Any, kept: Any
) -> None:
    if not WorkerInstance.objects.exists():
        start(fleet, PLACE)
    WorkerInstance.objects.update(**dict(zip(NAMES, kept, strict=True)))
    process = Process(*told)
    is_found = BEFORE.first(**process.as_parameters()) is not None
    assert is_found == process.succeeds(WorkerInstance.objects.get())


# --- Beside a neighbour that crash-loops -----------------------------------------------------------------------------


@pytest.fixture
def crash_loop(fleet: Fleet) -> Fleet:
    """The fleet's worker runs as AAA beside a process that has started 30 times on another host since."""
    start(fleet, AAA)
    beat(fleet, AAA)
    for number in range(30):
        assert start(fleet, {"hostname": "loop", "pid": number}, THERE).status_code == 200
    return fleet


def test_a_process_is_found_beside_one_that_crash_loops(crash_loop: Fleet) -> None:
    assert beat(crash_loop, AAA, tasks_processed=5).status_code == 204
    assert instances()[0].tasks_processed == 5
    assert {row.tasks_processed for row in instances()[1:]} == {0}
    goodbye(crash_loop, AAA)
    assert instances()[0].liveness == Liveness.STOPPED
    assert instances()[-1].liveness == Liveness.ONLINE


# --- Queue starts and registrations ----------------------------------------------------------------------------------

AGENT = {"hostname": "agent-0", "pid": 1}
MAKES = {"queue start": queue_start, "register": register}


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> Any:
    """Both ways by which an ephemeral worker is made."""
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


# --- A clone ----------------------------------------------------------------------------------------------------------


def doubled() -> list[UUID]:
    return [row.worker_id for row in WorkerInstance.objects.doubled(timezone.now())]


@pytest.mark.parametrize("info", [None, PLACE, AAA | EARLY])
def test_heartbeats_from_two_addresses_in_turn_are_two_processes(fleet: Fleet, info: Any) -> None:
    start(fleet, AAA | EARLY)
    assert not doubled()
    for address in (THERE, HERE):
        with CaptureQueriesContext(connection) as captured:
            assert beat(fleet, info, address).status_code == 204
        writes = [query["sql"] for query in captured.captured_queries if query["sql"].startswith("UPDATE")]
        assert len(writes) == 1
    assert doubled() == [fleet.worker.pk]
    WorkerInstance.objects.update(doubled_at=timezone.now() - timedelta(seconds=185))
    assert not doubled()


@pytest.mark.parametrize(
    ("seconds", "addresses"),
    [(0, [HERE] * 4), (0, [THERE] * 4), (0, [THERE, "192.0.2.22", "192.0.2.23"]), (55, [THERE, HERE, THERE, HERE])],
    ids=["at home", "moved", "moves on", "several ways out"],
)
def test_a_process_that_moves_or_has_several_ways_out_is_one(fleet: Fleet, seconds: int, addresses: Any) -> None:
    start(fleet, PLACE)
    for address in addresses:
        last = timezone.now() - timedelta(seconds=seconds)
        WorkerInstance.objects.update(last_heartbeat_at=last)
        assert beat(fleet, PLACE, address).status_code == 204
    assert not doubled()


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
