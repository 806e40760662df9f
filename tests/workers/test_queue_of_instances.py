"""A process has the queue of its worker, whatever becomes of that and whoever recorded the process."""

import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from tests import factories
from tests.factories import Fleet
from tests.workers import fresh_fleet, start
from workers.models import Worker, WorkerInstance

migration = import_module("workers.migrations.0009_fill_queue_of_instances")


@pytest.fixture
def fleet(db: None) -> Fleet:
    """Its worker has started twice."""
    fleet = fresh_fleet()
    for _ in range(2):
        assert start(fleet).status_code == 200
    return fleet


def queues() -> list[Any]:
    return list(WorkerInstance.objects.values_list("queue_id", flat=True))


def test_processes_go_with_their_worker_to_another_queue(fleet: Fleet) -> None:
    assert queues() == [fleet.queue.pk] * 2
    other = factories.create_queue(fleet.environment, "other")
    factories.point(fleet.worker, queue=other)
    assert queues() == [other.pk] * 2
    Worker.objects.update(queue=fleet.queue)
    connection.check_constraints()
    assert queues() == [fleet.queue.pk] * 2


def test_a_process_cannot_be_in_another_queue_than_its_worker(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    with pytest.raises(IntegrityError), transaction.atomic():
        WorkerInstance.objects.update(queue=other)
        connection.check_constraints()


def test_the_release_before_records_processes_without_knowing_of_queues(fleet: Fleet) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite's service stands still while it is upgraded")
    copy = WorkerInstance.objects.filter(is_current=False).get()
    copy.pk, copy.queue_id = factories.create_worker(fleet.queue, "w").pk, None
    copy.save(force_insert=True)
    assert queues() == [fleet.queue.pk] * 3


# --- What was recorded before -------------------------------------------------------------------------------------------


def fill() -> None:
    with connection.schema_editor(atomic=False) as editor:
        migration.fill(None, editor)


@pytest.fixture
def old_fleet(transactional_db: None, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Six more workers in two queues, whose processes were recorded without a queue; filled two at a time."""
    monkeypatch.setattr(migration, "BATCH", 2)
    other = factories.create_queue(fleet.environment, "other")
    for number in range(6):
        worker = factories.create_worker((fleet.queue, other)[number % 2], f"w-{number}")
        assert start(fleet, worker_id=worker.pk, token=factories.issue_token(worker)).status_code == 200
    assert WorkerInstance.objects.update(queue=None) == 8
    return fleet


def are_filled() -> bool:
    rows = WorkerInstance.objects.select_related("worker")
    return all(instance.queue_id == instance.worker.queue_id for instance in rows)


@pytest.mark.django_db(transaction=True)
def test_every_process_is_filled_in(old_fleet: Fleet) -> None:
    assert not are_filled()
    fill()
    assert are_filled()
    fill()
    assert are_filled()


@pytest.mark.django_db(transaction=True)
def test_what_somebody_changes_meanwhile_is_not_waited_for_but_filled_in_later(old_fleet: Fleet, another: Any) -> None:
    """Neither a heartbeat, nor a start, nor whoever moves a worker waits for the migration, or it for them."""
    first, second = WorkerInstance.objects.order_by("pk")[:2]
    moved = factories.create_queue(old_fleet.environment, "moved")
    another.execute("UPDATE workers_workerinstance SET tasks_processed = 1 WHERE id = %s", [first.pk])
    another.execute("UPDATE workers_worker SET queue_id = %s WHERE id = %s", [moved.pk, second.worker_id])
    with ThreadPoolExecutor() as pool:
        filling = pool.submit(_fill_in_thread)
        while (
            WorkerInstance.objects.filter(queue=None).count()
            > WorkerInstance.objects.filter(worker__in=(first.worker_id, second.worker_id)).count()
        ):
            time.sleep(0.02)
        assert not filling.done()
        another.commit()
        filling.result(timeout=30)
    assert are_filled()
    assert WorkerInstance.objects.get(pk=second.pk).queue_id == moved.pk


def _fill_in_thread() -> None:
    try:
        fill()
    finally:
        connection.close()
