from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from tests import factories
from tests.factories import Fleet
from tests.workers import fresh_fleet, start
from workers.attention import crash_looping, outdated
from workers.models import Worker, WorkerInstance


@pytest.fixture
def fleet(db: None) -> Fleet:
    return fresh_fleet()


def outdated_names() -> set[str]:
    now = timezone.now()
    return {worker.name for worker in outdated(Worker.objects.with_liveness(now))}


def started(fleet: Fleet, worker: Worker) -> Worker:
    assert start(fleet, worker_id=worker.pk, token=factories.issue_token(worker)).status_code == 200
    return worker


def test_a_worker_is_outdated_from_a_change_of_what_it_is_given_until_it_starts_again(fleet: Fleet) -> None:
    started(fleet, fleet.worker)
    started(fleet, factories.create_worker(factories.create_queue(fleet.environment, "other"), "elsewhere"))
    assert outdated_names() == set()
    factories.point(fleet.queue, heartbeat_interval=5)
    assert outdated_names() == {"worker-1"}
    started(fleet, fleet.worker)
    assert outdated_names() == set()


def test_only_live_workers_are_outdated(fleet: Fleet) -> None:
    started(fleet, fleet.worker)
    factories.point(fleet.queue, heartbeat_interval=5)
    WorkerInstance.objects.update(stopped_at=timezone.now())
    assert outdated_names() == set()


def test_a_process_from_before_revisions_were_kept_is_not_called_outdated(fleet: Fleet) -> None:
    started(fleet, fleet.worker)
    WorkerInstance.objects.update(configuration_revision="")
    factories.point(fleet.queue, heartbeat_interval=5)
    assert outdated_names() == set()


def test_a_neighbour_that_is_given_just_that_older_revision_is_not_outdated(fleet: Fleet) -> None:
    """In one queue a revision may be outdated for a worker with its own connection and current for another."""
    own = factories.create_temporal(fleet.organization, "own")
    special = started(fleet, factories.create_worker(fleet.queue, "special", temporal_connection=own))
    factories.point(special, temporal_connection=None)
    started(fleet, factories.create_worker(fleet.queue, "neighbour", temporal_connection=own))
    assert outdated_names() == {"special"}


def test_three_starts_within_ten_minutes_are_a_crash_loop(fleet: Fleet) -> None:
    calm = factories.create_worker(fleet.queue, "calm")
    for worker, times in ((fleet.worker, 3), (calm, 2)):
        for _ in range(times):
            started(fleet, worker)
    now = timezone.now()
    assert [row["worker_id"] for row in crash_looping(now)] == [fleet.worker.pk]
    assert not crash_looping(now + timedelta(minutes=10))


def test_an_older_process_is_a_duplicate_as_long_as_it_lives(fleet: Fleet) -> None:
    started(fleet, fleet.worker)
    (first,) = WorkerInstance.objects.all()
    WorkerInstance.objects.update(is_current=False, hostname=str(uuid4()))
    started(fleet, fleet.worker)
    now = timezone.now()
    assert [instance.pk for instance in WorkerInstance.objects.duplicates(now)] == [first.pk]
    assert not WorkerInstance.objects.duplicates(now + timedelta(minutes=10))
    WorkerInstance.objects.filter(pk=first.pk).update(stopped_at=now)
    assert not WorkerInstance.objects.duplicates(now)
