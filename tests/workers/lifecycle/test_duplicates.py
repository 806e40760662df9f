"""Two processes of one worker: what the queue's policy makes of them, and by what evidence they are told apart."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.database.statements import Select
from tests.support.calls import assert_error_shape, fresh_fleet, shared_client
from tests.support.documents import everything
from tests.support.factories import Fleet
from workers.lifecycle.process import MAY_BE, Process
from workers.models import DuplicatePolicy, Liveness, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite

OLD = {"hostname": "old-host", "pid": 100}
NEW = {"hostname": "new-host", "pid": 200}
OLD_ADDRESS, NEW_ADDRESS = "203.0.113.7", "203.0.113.8"


def post(fleet: Fleet, verb: str, body: Any, address: str) -> Any:
    """What a worker at this address sends through a trusted proxy."""
    return shared_client().generic(
        "POST",
        f"/api/v1/workers/{fleet.worker.pk}/{verb}",
        json.dumps(body).encode(),
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {fleet.token}",
        HTTP_X_FORWARDED_FOR=address,
        HTTP_X_FORWARDED_PROTO="https",
    )


def start(fleet: Fleet, system_info: Any, address: str = OLD_ADDRESS) -> Any:
    return post(fleet, "start", {"system_info": system_info}, address)


def heartbeat(fleet: Fleet, system_info: Any = None, address: str = OLD_ADDRESS, **members: Any) -> Any:
    told = {"system_info": system_info} if system_info else {}
    return post(fleet, "heartbeat", {"status": "active", **members, **told}, address)


def disconnect(fleet: Fleet, address: str = OLD_ADDRESS, reason: str = "shutdown") -> Any:
    return post(fleet, "disconnect", {"reason": reason}, address)


def instance(system_info: dict[str, Any]) -> Any:
    """The latest instance of this host and process id."""
    rows = WorkerInstance.objects.with_liveness(timezone.now())
    return rows.filter(hostname=system_info["hostname"], pid=system_info["pid"]).order_by("-started_at")[0]


def silence(**period: float) -> None:
    """Moves every instance's last heartbeat into the past."""
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(**period))


def assert_superseded(response: Any) -> None:
    assert response.status_code == 409, response.content[:500]
    assert_error_shape(response)
    assert response.json()["detail"].startswith("superseded")


@pytest.fixture
def fleet(db: None) -> Fleet:
    """A fleet whose worker's process OLD runs at OLD_ADDRESS."""
    fleet = fresh_fleet()
    assert start(fleet, OLD).status_code == 200
    assert instance(OLD).client_address == OLD_ADDRESS
    return fleet


@pytest.fixture
def rivals(fleet: Fleet) -> Fleet:
    """The same beside a process NEW, which the queue allows."""
    assert start(fleet, NEW, NEW_ADDRESS).status_code == 200
    return fleet


@pytest.fixture
def taken_over(fleet: Fleet) -> Fleet:
    """The same where NEW took over."""
    apply(DuplicatePolicy.TAKE_OVER)
    assert start(fleet, NEW, NEW_ADDRESS).status_code == 200
    return fleet


def apply(policy: DuplicatePolicy) -> None:
    WorkerQueue.objects.update(duplicate_policy=policy)


# --- Allow ---------------------------------------------------------------------------------------------------------------


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


# --- Reject --------------------------------------------------------------------------------------------------------------


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


# --- Take over -----------------------------------------------------------------------------------------------------------


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


# --- Evidence ------------------------------------------------------------------------------------------------------------


def test_a_full_heartbeat_is_taken_for_the_process_that_it_names(rivals: Fleet) -> None:
    silence(seconds=100)
    assert heartbeat(rivals, OLD, NEW_ADDRESS, tasks_processed=7).status_code == 204
    assert (instance(OLD).tasks_processed, instance(NEW).tasks_processed) == (7, 0)
    assert (instance(OLD).liveness, instance(NEW).liveness) == (Liveness.ONLINE, Liveness.LATE)
    assert instance(OLD).report.system_info == OLD
    assert not hasattr(instance(NEW), "report")


def test_a_light_heartbeat_is_taken_for_the_process_at_its_address(rivals: Fleet) -> None:
    silence(seconds=100)
    assert heartbeat(rivals, address=OLD_ADDRESS, tasks_processed=7).status_code == 204
    assert (instance(OLD).tasks_processed, instance(NEW).tasks_processed) == (7, 0)
    assert heartbeat(rivals, address=NEW_ADDRESS, tasks_processed=8).status_code == 204
    assert (instance(OLD).tasks_processed, instance(NEW).tasks_processed) == (7, 8)


def test_two_processes_at_one_address_are_told_apart_by_their_full_heartbeats(fleet: Fleet) -> None:
    assert start(fleet, OLD | {"pid": 101}).status_code == 200
    silence(seconds=100)
    assert heartbeat(fleet, OLD, tasks_processed=7).status_code == 204
    assert heartbeat(fleet, OLD | {"pid": 101}, tasks_processed=8).status_code == 204
    assert (instance(OLD).tasks_processed, instance(OLD | {"pid": 101}).tasks_processed) == (7, 8)


def test_a_heartbeat_without_a_known_sender_is_taken_for_the_current_process(rivals: Fleet) -> None:
    assert heartbeat(rivals, address="203.0.113.99", tasks_processed=7).status_code == 204
    assert (instance(OLD).tasks_processed, instance(NEW).tasks_processed) == (0, 7)


def test_a_worker_that_moves_to_another_address_keeps_heartbeating(fleet: Fleet) -> None:
    silence(seconds=100)
    assert heartbeat(fleet, address=NEW_ADDRESS).status_code == 204
    assert instance(OLD).liveness == Liveness.ONLINE


def test_a_goodbye_ends_the_process_at_its_address(rivals: Fleet) -> None:
    assert disconnect(rivals, OLD_ADDRESS, "crash").status_code == 204
    assert (instance(OLD).liveness, instance(NEW).liveness) == (Liveness.STOPPED, Liveness.ONLINE)
    assert disconnect(rivals, NEW_ADDRESS, "done").status_code == 204
    assert (instance(OLD).stop_reason, instance(NEW).stop_reason) == ("crash", "done")


def test_the_goodbye_of_a_quick_restart_at_one_address_does_not_stop_the_new_process(fleet: Fleet) -> None:
    """The old process ends while the new one has started already."""
    assert start(fleet, OLD | {"pid": 101}).status_code == 200
    assert disconnect(fleet).status_code == 204
    assert instance(OLD).liveness == Liveness.STOPPED
    assert instance(OLD | {"pid": 101}).liveness == Liveness.ONLINE
    assert heartbeat(fleet).status_code == 204
    assert instance(OLD | {"pid": 101}).last_heartbeat_at > instance(OLD).last_heartbeat_at


def test_a_repeated_goodbye_of_a_quick_restart_does_not_stop_the_new_process(fleet: Fleet) -> None:
    """A goodbye whose answer was lost is sent again: a retry is harmless."""
    assert start(fleet, OLD | {"pid": 101}).status_code == 200
    for _ in range(2):
        assert disconnect(fleet).status_code == 204
    assert instance(OLD | {"pid": 101}).liveness == Liveness.ONLINE


def test_a_repeated_goodbye_does_not_stop_the_other_process_at_another_address(rivals: Fleet) -> None:
    for _ in range(2):
        assert disconnect(rivals, OLD_ADDRESS).status_code == 204
    assert instance(NEW).liveness == Liveness.ONLINE


def test_a_new_process_after_a_kill_at_one_address_can_say_goodbye(fleet: Fleet) -> None:
    silence(minutes=4)
    assert start(fleet, OLD | {"pid": 101}).status_code == 200
    assert disconnect(fleet, reason="crash").status_code == 204
    assert instance(OLD | {"pid": 101}).liveness == Liveness.STOPPED
    assert instance(OLD).stopped_at is None


HOSTS = st.sampled_from(["", "a", "b", "A", "a ", "\ufffd", "x" * 255])
PIDS = st.sampled_from([None, 0, 1, 2, 2**63 - 1])
ADDRESSES = st.sampled_from([None, "203.0.113.7", "203.0.113.8", "2001:db8::1"])
EVIDENCE = st.tuples(HOSTS, PIDS, ADDRESSES)
SENDERS = Select(lambda: WorkerInstance.objects.filter(MAY_BE))


@given(told=EVIDENCE, kept=EVIDENCE)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_evidence_is_weighed_alike_in_python_and_in_the_database(fleet: Fleet, told: Any, kept: Any) -> None:
    process = Process(*told)
    WorkerInstance.objects.update(**dict(zip(("hostname", "pid", "client_address"), kept, strict=True)))
    is_found = SENDERS.first(**process.as_parameters()) is not None
    is_addressless = process.client_address is None and not (process.hostname and kept[0])
    assert is_found == (process.may_be(WorkerInstance.objects.get()) and not is_addressless)


def test_a_goodbye_that_names_its_process_ends_that_one(fleet: Fleet) -> None:
    """An older one told no process id, as a start by hand does, and so may be any of its host."""
    start(fleet, {"hostname": OLD["hostname"]})
    start(fleet, OLD | {"pid": 102})
    for _ in range(2):
        body = {"reason": "finished", "system_info": OLD | {"pid": 102}}
        assert post(fleet, "disconnect", body, OLD_ADDRESS).status_code == 204
        found = {row.pid: row.liveness for row in WorkerInstance.objects.with_liveness(timezone.now())}
        assert found == {100: Liveness.ONLINE, None: Liveness.ONLINE, 102: Liveness.STOPPED}


# --- A worker that has started very often ----------------------------------------------------------------------------------


@pytest.mark.parametrize("send", [heartbeat, disconnect])
def test_who_speaks_is_found_without_looking_at_all_processes_of_the_past(send: Any, fleet: Fleet) -> None:
    assert start(fleet, OLD).status_code == 200
    assert start(fleet, NEW, NEW_ADDRESS).status_code == 200
    now = timezone.now()
    WorkerInstance.objects.bulk_create(
        WorkerInstance(
            id=uuid4(),
            organization=fleet.organization,
            worker=fleet.worker,
            is_current=False,
            started_at=now - timedelta(days=1, seconds=number),
            last_heartbeat_at=now - timedelta(days=1),
            stopped_at=now - timedelta(days=1),
            stop_reason="superseded",
            is_superseded=True,
        )
        for number in range(3_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE workers_workerinstance")
    with CaptureQueriesContext(connection) as captured:
        assert send(fleet).status_code == 204
    first_look = next(query["sql"] for query in captured.captured_queries if "LIMIT 20" in query["sql"])
    assert_uses_index(first_look, "workers_instance_of_worker")


def assert_uses_index(statement: str, name: str) -> None:
    """Also for the order of its rows, so that it stops after a few."""
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {statement}")
        plan = " ".join(str(row) for row in cursor.fetchall())
    assert name in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


# --- What a worker says of itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["superseded", "superseded, shutdown", "supersededx"])
def test_the_word_for_a_take_over_means_nothing_in_a_goodbye(fleet: Fleet, word: str) -> None:
    """A process that says so has ended as any other: its heartbeats are not refused, and its first reason stays."""
    assert disconnect(fleet, reason=word).status_code == 204
    stopped = WorkerInstance.objects.values().get()
    assert stopped["stop_reason"] == word
    assert heartbeat(fleet, OLD).status_code == 204
    assert disconnect(fleet, reason="crash").status_code == 204
    assert WorkerInstance.objects.values().get() == stopped
