"""A worker's current process has its queue, whatever becomes of that."""

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.models import Worker, WorkerInstance

pytestmark = pytest.mark.sqlite


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
