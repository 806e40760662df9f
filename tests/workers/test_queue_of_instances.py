"""A worker's current process has its queue, whatever becomes of that and whoever recorded the process."""

import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from controlplane.management.commands.migrate import TOOK_TOO_LONG
from tests import factories
from tests.factories import Fleet
from tests.workers import fresh_fleet, start
from workers.models import Worker, WorkerInstance

pytestmark = pytest.mark.sqlite

migration = import_module("workers.migrations.0009_fill_queue_of_instances")


@pytest.fixture
def fleet(db: None) -> Fleet:
    """Its worker has started twice."""
    fleet = fresh_fleet()
    for _ in range(2):
        assert start(fleet).status_code == 200
    return fleet


def queues() -> list[Any]:
    """Of the current process, then of older ones."""
    return list(WorkerInstance.objects.order_by("-is_current").values_list("queue_id", flat=True))


def test_the_current_process_goes_with_its_worker_to_another_queue(fleet: Fleet) -> None:
    """Older ones have none, so that a worker with a long history moves as fast as another."""
    assert queues() == [fleet.queue.pk, None]
    other = factories.create_queue(fleet.environment, "other")
    factories.point(fleet.worker, queue=other)
    assert queues() == [other.pk, None]
    Worker.objects.update(queue=fleet.queue)
    connection.check_constraints()
    assert queues() == [fleet.queue.pk, None]


def test_a_start_that_is_repeated_leaves_no_queue_behind(fleet: Fleet) -> None:
    told = {"system_info": {"hostname": "host", "pid": 7}}
    for _ in range(2):
        assert start(fleet, told).status_code == 200
    assert WorkerInstance.objects.filter(stop_reason="repeated start").exists()
    assert queues() == [fleet.queue.pk, None, None, None]


def test_a_process_cannot_be_in_another_queue_than_its_worker(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    with pytest.raises(IntegrityError), transaction.atomic():
        WorkerInstance.objects.filter(is_current=True).update(queue=other)
        connection.check_constraints()


def test_the_release_before_records_processes_without_knowing_of_queues(fleet: Fleet) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite's service stands still while it is upgraded")
    other = factories.create_worker(factories.create_queue(fleet.environment, "other"), "w")
    copy = WorkerInstance.objects.filter(is_current=True).get()
    copy.pk, copy.worker, copy.queue = other.pk, other, None
    copy.save(force_insert=True)
    copy.refresh_from_db()
    assert copy.queue_id == other.queue_id


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
    return all(instance.queue_id == (instance.worker.queue_id if instance.is_current else None) for instance in rows)


@pytest.mark.django_db(transaction=True)
def test_every_process_is_filled_in(old_fleet: Fleet) -> None:
    assert not are_filled()
    fill()
    assert are_filled()
    fill()
    assert are_filled()


@pytest.mark.django_db(transaction=True)
def test_what_somebody_changes_meanwhile_is_not_waited_for_but_filled_in_later(old_fleet: Fleet, another: Any) -> None:
    """It waits neither for a heartbeat, nor for whoever moves a worker."""
    first, second = WorkerInstance.objects.filter(is_current=True).order_by("pk")[:2]
    moved = factories.create_queue(old_fleet.environment, "moved")
    another.execute("UPDATE workers_workerinstance SET tasks_processed = 1 WHERE id = %s", [first.pk])
    another.execute("UPDATE workers_worker SET queue_id = %s WHERE id = %s", [moved.pk, second.worker_id])
    with ThreadPoolExecutor() as pool:
        filling = pool.submit(_fill_in_thread)
        give_up_at = time.monotonic() + 20
        while WorkerInstance.objects.filter(is_current=True, queue=None).count() > 2 and time.monotonic() < give_up_at:
            time.sleep(0.02)
        assert not filling.done()
        another.commit()
        filling.result(timeout=30)
    assert are_filled()
    assert WorkerInstance.objects.get(pk=second.pk).queue_id == moved.pk


@pytest.mark.django_db(transaction=True)
def test_gives_way_to_what_does_not_end_and_can_be_run_again(
    old_fleet: Fleet, another: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `migrate` expects of a lock that is not to be had: it says so and tries again."""
    monkeypatch.setattr(migration, "PATIENCE", 0.5)
    another.execute("UPDATE workers_workerinstance SET pid = 1 WHERE worker_id = %s", [old_fleet.worker.pk])
    with pytest.raises(OperationalError, match="does not end") as caught:
        fill()
    assert getattr(caught.value.__cause__, "sqlstate", "") in TOOK_TOO_LONG
    assert WorkerInstance.objects.filter(is_current=True, queue=None).count() == 1
    another.commit()
    fill()
    assert are_filled()


def _fill_in_thread() -> None:
    try:
        fill()
    finally:
        connection.close()
