"""By what evidence two processes of one worker are told apart."""

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
from tests.support.duplicates import (
    NEW,
    NEW_ADDRESS,
    OLD,
    OLD_ADDRESS,
    disconnect,
    heartbeat,
    instance,
    post,
    silence,
    start,
)
from tests.support.factories import Fleet
from tests.support.quick import examples
from workers.lifecycle.process import MAY_BE, Process
from workers.models import Liveness, WorkerInstance

pytestmark = pytest.mark.sqlite


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
@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@pytest.mark.parametrize("word", ["superseded", "superseded, shutdown", "supersededx"])
def test_the_word_for_a_take_over_means_nothing_in_a_goodbye(fleet: Fleet, word: str) -> None:
    """A process that says so has ended as any other: its heartbeats are not refused, and its first reason stays."""
    assert disconnect(fleet, reason=word).status_code == 204
    stopped = WorkerInstance.objects.values().get()
    assert stopped["stop_reason"] == word
    assert heartbeat(fleet, OLD).status_code == 204
    assert disconnect(fleet, reason="crash").status_code == 204
    assert WorkerInstance.objects.values().get() == stopped
