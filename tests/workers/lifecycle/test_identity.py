"""One process is one process: what tells two of a worker apart, at starts, heartbeats, reports and goodbyes."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.database.statements import Select
from tests.support.documents import everything
from tests.support.factories import Fleet
from tests.support.places import (
    AAA,
    ANOTHER,
    BBB,
    EARLY,
    HERE,
    LATE,
    LATER,
    PLACE,
    REJECT,
    TAKE_OVER,
    THERE,
    apply,
    assert_refused,
    beat,
    goodbye,
    instances,
    live_count,
    open_fleet,
    start,
)
from tests.support.quick import examples
from workers.lifecycle.process import SUCCEEDED, Process
from workers.models import DuplicatePolicy, Liveness, WorkerInstance, WorkerQueue


@pytest.fixture
def fleet(db: None) -> Fleet:
    return open_fleet()


@pytest.mark.parametrize("has_beaten", [False, True])
@pytest.mark.parametrize(("first", "second"), ANOTHER.values(), ids=ANOTHER)
def test_another_process_is_rejected(fleet: Fleet, first: Any, second: Any, has_beaten: bool) -> None:
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
    has_beaten: bool,
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
@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_who_comes_after_whom_is_weighed_alike_in_python_and_in_the_database(
    fleet: Fleet, told: Any, kept: Any
) -> None:
    if not WorkerInstance.objects.exists():
        start(fleet, PLACE)
    WorkerInstance.objects.update(**dict(zip(NAMES, kept, strict=True)))
    process = Process(*told)
    is_found = BEFORE.first(**process.as_parameters()) is not None
    assert is_found == process.succeeds(WorkerInstance.objects.get())


@pytest.mark.parametrize(("second", "status"), [(AAA | LATE, 200), (BBB, 409)], ids=["itself", "another container"])
def test_a_second_container_of_a_worker_needs_a_place_of_its_own(fleet: Fleet, second: Any, status: int) -> None:
    WorkerQueue.objects.update(max_workers=1)
    start(fleet, AAA | EARLY)
    assert start(fleet, second).status_code == status
    assert live_count() == 1


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


def test_heartbeats_of_one_process_leave_all_indexes_alone(fleet: Fleet) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite writes a row in its place")
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE workers_workerinstance CASCADE")  # a page that other tests have filled has no room
    start(fleet, AAA)
    counts = "SELECT {0}updated('{1}'), {0}hot_updated('{1}')".format(
        "pg_stat_get_xact_tuples_", WorkerInstance._meta.db_table
    ).replace("('workers_workerinstance')", "('workers_workerinstance'::regclass)")
    with connection.cursor() as cursor:
        cursor.execute(counts)
        before = cursor.fetchone()
        for address in (HERE, HERE, THERE):
            assert beat(fleet, AAA, address).status_code == 204
        cursor.execute(counts)
        assert [after - count for after, count in zip(cursor.fetchone(), before, strict=True)] == [3, 3]
