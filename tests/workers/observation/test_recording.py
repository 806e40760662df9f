"""What is written of a look, how little of it each time, and that it goes with what it is of."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments.connections.verification.looks import Look, Place, QueueLook, SeenPoller
from environments.deletion import delete
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import ACTOR, Fleet
from workers.models import ProcessObservation, QueueObservation, Work, Worker, WorkerInstance
from workers.models.work import with_work
from workers.observation.lease import Lease
from workers.observation.sweeps import UNKEPT, Backoff, Pass, _join
from workers.observation.targets import Target, find_targets, forget_unasked

pytestmark = pytest.mark.sqlite

NOW = timezone.now()


@pytest.fixture
def fleet(fleet: Fleet) -> Fleet:
    """Three workers of one queue, whose processes run on one host."""
    for number in range(3):
        worker = factories.create_worker(fleet.queue, f"w-{number}")
        token = factories.issue_token(worker)
        assert start(fleet, told(number), worker_id=worker.pk, token=token).status_code == 200
    return fleet


def told(pid: int) -> dict[str, Any]:
    return {"system_info": {"hostname": "host", "pid": pid}}


def seen(*pids: int, **fields: Any) -> QueueLook:
    pollers = tuple(SeenPoller(f"{pid}@host", NOW, frozenset({Place("host", pid)})) for pid in pids)
    return replace(QueueLook(timezone.now(), pollers=pollers), **fields)


def record(look: QueueLook) -> Target:
    (target,) = find_targets()
    queues = tuple(target.queues)
    _join(target, queues, {queue.id: look for queue in queues}, timezone.now())
    return target


def polling() -> dict[int | None, bool]:
    rows = ProcessObservation.objects.values_list("instance__pid", "is_polling")
    return dict(rows)


def test_figures_beyond_every_column_are_said_and_cost_nobody_else_a_look(fleet: Fleet) -> None:
    (target,) = find_targets()
    (queue,) = target.queues
    asking = Pass(Lease(timezone.now), Backoff())
    asking._record(target, Look({queue.name: seen(0, backlog=2**64)}))
    row = QueueObservation.objects.get()
    assert (row.observed_at, row.backlog, row.problem) == (None, None, UNKEPT)
    asking._record(target, Look({queue.name: seen(0, backlog=7)}))
    row.refresh_from_db()
    assert (row.backlog, row.problem, polling()[0]) == (7, "", True)


def test_a_process_is_written_only_when_it_begins_or_ceases_to_poll(fleet: Fleet) -> None:
    record(seen(0, 1))
    assert polling() == {0: True, 1: True, 2: False}
    before = {row.pk: row.changed_at for row in ProcessObservation.objects.all()}
    with CaptureQueriesContext(connection) as queries:
        record(seen(0, 1))
    written = [one["sql"] for one in queries if one["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]
    assert [("workers_queueobservation" in one, "workers_processobservation" in one) for one in written] == [
        (True, False)
    ]
    record(seen(0, 2))
    assert polling() == {0: True, 1: False, 2: True}
    changed = {row.instance.pid: row.changed_at > before[row.pk] for row in ProcessObservation.objects.all()}
    assert changed == {0: False, 1: True, 2: True}


def test_what_has_ended_leaves_no_row(fleet: Fleet) -> None:
    record(seen(0, 1, 2))
    WorkerInstance.objects.filter(pid=0).update(stopped_at=timezone.now())
    WorkerInstance.objects.filter(pid=1).update(last_heartbeat_at=timezone.now() - timedelta(hours=5))
    record(seen(2))
    assert polling() == {2: True}


def test_a_process_that_ended_lately_or_belongs_to_another_queue_is_no_stranger(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    WorkerInstance.objects.filter(pid=0).update(stopped_at=timezone.now())
    Worker.objects.filter(name="w-1").update(queue=other)
    (target,) = find_targets()
    queues = tuple(queue for queue in target.queues if queue.id == fleet.queue.pk)
    _join(target, queues, {fleet.queue.pk: seen(0, 1, 2, 9)}, timezone.now())
    row = QueueObservation.objects.get()
    assert (row.strangers, row.stranger_identities) == (1, ["9@host"])
    assert polling() == {2: True}


def test_of_two_processes_of_one_worker_each_is_seen_to_poll(fleet: Fleet) -> None:
    """So that whoever reads the worker's page knows whether the older one takes tasks, too."""
    worker = Worker.objects.get(name="w-0")
    token = factories.issue_token(worker)
    assert start(fleet, told(10), worker_id=worker.pk, token=token).status_code == 200

    def works() -> dict[int | None, str]:
        now = timezone.now()
        rows = with_work(WorkerInstance.objects.filter(worker=worker).with_liveness(now), now)
        return {row.pid: row.work for row in rows}

    record(seen(0, 1, 2, 10))
    assert QueueObservation.objects.get().strangers == 0
    assert works() == {0: Work.WORKING, 10: Work.WORKING}
    record(seen(1, 2, 10))
    assert works() == {0: Work.UNKNOWN, 10: Work.WORKING}
    assert polling() == {1: True, 2: True, 10: True}
    Worker.objects.filter(pk=worker.pk).update(queue=factories.create_queue(fleet.environment, "other"))
    (target,) = find_targets()
    queues = tuple(queue for queue in target.queues if queue.id == fleet.queue.pk)
    _join(target, queues, {fleet.queue.pk: seen(0, 1, 2)}, timezone.now())
    assert polling() == {1: True, 2: True}, "of a worker that was moved, the other queue's look tells"


def test_it_goes_with_the_worker_the_queue_and_the_connection(fleet: Fleet) -> None:
    target = record(seen(0, 1))
    worker = Worker.objects.get(name="w-0")
    delete(worker, actor=ACTOR, now=timezone.now())
    assert polling() == {1: True, 2: False}
    forget_unasked([target])
    assert QueueObservation.objects.count() == 1
    forget_unasked([])
    assert not QueueObservation.objects.exists()
    assert not ProcessObservation.objects.exists()
    record(seen(1))
    for row in (*Worker.objects.all(), fleet.queue):
        delete(row, actor=ACTOR, now=timezone.now())
    assert not QueueObservation.objects.exists()


def test_a_look_takes_as_many_statements_for_any_number_of_workers(fleet: Fleet) -> None:
    counts = []
    for number in (3, 9):
        for pid in range(number, number + 6):
            worker = factories.create_worker(fleet.queue, f"w-{pid}")
            start(fleet, told(pid), worker_id=worker.pk, token=factories.issue_token(worker))
        record(seen())
        with CaptureQueriesContext(connection) as queries:
            record(seen(*range(20), backlog=number))
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12


def test_what_a_connection_that_is_asked_no_more_has_written_goes_when_it_is_old(fleet: Fleet) -> None:
    record(seen(0, 1, 2))
    rows = ProcessObservation.objects.filter(instance__pid=0)
    WorkerInstance.objects.filter(pid=0).update(stopped_at=timezone.now())
    rows.update(observed_at=timezone.now())
    record(seen(1, 2))
    assert polling() == {0: True, 1: True, 2: True}
    rows.update(observed_at=timezone.now() - timedelta(minutes=5))
    record(seen(1, 2))
    assert polling() == {1: True, 2: True}
