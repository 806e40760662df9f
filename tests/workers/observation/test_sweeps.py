"""The sweep against a real Temporal: each state that both sides together tell."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.support import factories
from tests.support.calls import heartbeat, start
from tests.support.endpoints import Endpoint, silent
from tests.support.factories import Fleet
from tests.support.pollers import connect, let_a_task_wait, polling, sweep
from tests.support.servers import TemporalServer
from workers.models import ProcessObservation, QueueObservation, Work, WorkerInstance
from workers.models.work import with_work
from workers.observation.sweeps import Backoff

HOST, PID = "machine", 4711
NAME = f"{PID}@{HOST}"
AGO = timedelta(minutes=5)


def begin(fleet: Fleet, *, pid: int = PID, ago: timedelta = AGO) -> None:
    """The fleet's worker has started a while ago, and beats."""
    assert start(fleet, {"system_info": {"hostname": HOST, "pid": pid}}).status_code == 200
    heartbeat(fleet)
    WorkerInstance.objects.filter(worker=fleet.worker).update(started_at=timezone.now() - ago)


def work(fleet: Fleet) -> str:
    now = timezone.now()
    rows = with_work(WorkerInstance.objects.filter(worker=fleet.worker, is_current=True).with_liveness(now), now)
    return str(rows.get().work)


def observed(fleet: Fleet) -> QueueObservation:
    return QueueObservation.objects.get(queue=fleet.queue)


@pytest.fixture
def fleet(fleet: Fleet, temporal_server: TemporalServer) -> Fleet:
    connect(fleet, temporal_server.host)
    return fleet


def test_a_process_that_beats_and_polls_works_and_one_that_stops_to_beat_is_cut_off(
    fleet: Fleet, temporal_server: TemporalServer
) -> None:
    begin(fleet)
    assert work(fleet) == Work.UNKNOWN
    with polling(temporal_server, fleet.queue.task_queue_name, NAME):
        (asked,) = sweep()
        assert (asked.queues, asked.answered, asked.problem) == (1, 1, "")
        assert work(fleet) == Work.WORKING
        row = observed(fleet)
        assert (row.workflow_pollers, row.activity_pollers, row.pollers, row.strangers) == (0, 1, 1, 0)
        assert (row.backlog, row.problem) == (0, "")
        assert not ProcessObservation.objects.get().is_conspicuous
        WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(hours=1))
        assert work(fleet) == Work.CUT_OFF
        sweep()
    assert ProcessObservation.objects.get().is_conspicuous
    assert work(fleet) == Work.CUT_OFF


def test_a_process_that_only_beats_is_told_after_its_start_and_while_it_is_not_busy(fleet: Fleet) -> None:
    begin(fleet)
    sweep()
    assert work(fleet) == Work.NOT_POLLING
    assert ProcessObservation.objects.get().is_conspicuous
    for excuse in ({"started_at": timezone.now()}, {"activity": "busy"}, {"current_task_id": "some"}):
        before = WorkerInstance.objects.values(*excuse).get()
        WorkerInstance.objects.update(**excuse)
        assert work(fleet) == Work.UNKNOWN, excuse
        WorkerInstance.objects.update(**before)
    ProcessObservation.objects.update(is_full=True)
    assert work(fleet) == Work.UNKNOWN
    sweep()
    assert work(fleet) == Work.NOT_POLLING
    QueueObservation.objects.update(observed_at=timezone.now() - timedelta(minutes=4))
    assert work(fleet) == Work.UNKNOWN  # what was seen is too old


def test_who_polls_without_a_worker_here_is_named(fleet: Fleet, temporal_server: TemporalServer) -> None:
    begin(fleet)
    with polling(temporal_server, fleet.queue.task_queue_name, NAME, "7@elsewhere", "a name"):
        sweep()
    row = observed(fleet)
    assert (row.pollers, row.strangers, row.stranger_identities) == (3, 2, ["7@elsewhere", "a name"])
    assert work(fleet) == Work.WORKING


def test_a_name_that_tells_no_place_may_be_any_process(fleet: Fleet, temporal_server: TemporalServer) -> None:
    begin(fleet)
    with polling(temporal_server, fleet.queue.task_queue_name, "a name"):
        sweep()
    assert (observed(fleet).strangers, work(fleet)) == (0, Work.UNKNOWN)
    assert not ProcessObservation.objects.exists()


def test_tasks_that_wait_for_nobody_are_counted(fleet: Fleet, temporal_server: TemporalServer) -> None:
    let_a_task_wait(temporal_server, fleet.queue.task_queue_name)
    until = time.monotonic() + 10
    while not (sweep() and observed(fleet).backlog) and time.monotonic() < until:
        time.sleep(0.1)
    row = observed(fleet)
    assert (row.backlog, row.pollers, row.is_waiting_in_vain) == (1, 0, True)
    assert row.oldest_age is not None


@pytest.fixture
def never_answers() -> Iterator[Endpoint]:
    endpoint = Endpoint(silent)
    yield endpoint
    endpoint.stop()


def test_a_temporal_that_never_answers_costs_three_seconds_and_is_asked_less_and_less(
    fleet: Fleet, never_answers: Endpoint, temporal_server: TemporalServer
) -> None:
    other = factories.create_fleet()
    connect(other, never_answers.host)
    begin(fleet)
    sweep()
    backoff = Backoff()
    began = time.monotonic()
    asked: dict[str, Any] = {each.connection.organization_id: each for each in sweep(backoff)}
    assert time.monotonic() - began < 5
    assert (asked[fleet.organization.pk].problem, asked[fleet.organization.pk].answered) == ("", 1)
    assert "within 3 seconds" in asked[other.organization.pk].problem
    row = observed(other)
    assert (row.observed_at, row.asked_at is None) == (None, False)
    assert "within 3 seconds" in row.problem
    assert [len(sweep(backoff)) for _ in range(2)] == [1, 2]  # left out once, then for three passes
    assert [len(sweep(backoff)) for _ in range(3)] == [1, 1, 1]
