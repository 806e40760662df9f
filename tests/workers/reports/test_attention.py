import random
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from environments.roles import EVERYWHERE
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import Fleet
from workers.configuration.revisions import Group, group_of
from workers.models import LIVE, Worker, WorkerInstance
from workers.reports.attention import Running, crash_looping, outdated, running
from workers.reports.dashboard import look_at_fleet

pytestmark = pytest.mark.sqlite

SHARE_OF_STOPPED = 0.2


def outdated_names() -> set[str]:
    now = timezone.now()
    return {worker.name for worker in outdated(Worker.objects.with_liveness(now), EVERYWHERE, now)}


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


@pytest.mark.parametrize("pointer", ["temporal_connection", "litellm_connection"])
def test_a_worker_that_could_not_start_again_is_not_outdated(fleet: Fleet, pointer: str) -> None:
    """A restart, which is what one does about outdated workers, would lose it."""
    started(fleet, fleet.worker)
    own = {pointer: getattr(fleet.organization, pointer)}
    other = started(fleet, factories.create_worker(factories.create_queue(fleet.environment, "other", **own), "other"))
    factories.point(fleet.organization, **{pointer: None})
    assert outdated_names() == set()
    assert look_at_fleet(EVERYWHERE, hours=24, now=timezone.now()).attention.outdated == 0
    factories.point(other.queue, heartbeat_interval=5)
    assert outdated_names() == {"other"}
    factories.point(fleet.organization, **own)
    assert outdated_names() == {"other"}
    assert look_at_fleet(EVERYWHERE, hours=24, now=timezone.now()).attention.outdated == 1


def test_a_neighbour_that_is_given_just_that_older_revision_is_not_outdated(fleet: Fleet) -> None:
    """In one queue a revision may be outdated for a worker with its own connection and current for another."""
    own = factories.create_temporal(fleet.organization, "own")
    special = started(fleet, factories.create_worker(fleet.queue, "special", temporal_connection=own))
    factories.point(special, temporal_connection=None)
    started(fleet, factories.create_worker(fleet.queue, "neighbour", temporal_connection=own))
    assert outdated_names() == {"special"}


def test_what_runs_is_counted_by_what_a_start_would_be_given(
    fleet: Fleet, seeded_random: random.Random, django_assert_num_queries: Any
) -> None:
    """Workers of two queues, some of which point to connections of their own, move, stop, or never started."""
    queues = [fleet.queue, factories.create_queue(fleet.environment, "other")]
    own = [None, None, factories.create_temporal(fleet.organization, "own")]
    telemetry = [None, None, factories.create_telemetry(fleet.organization)]
    for number in range(40):
        worker = factories.create_worker(
            seeded_random.choice(queues),
            f"w-{number}",
            temporal_connection=seeded_random.choice(own),
            telemetry_settings=seeded_random.choice(telemetry),
        )
        for _ in range(seeded_random.randrange(3)):
            started(fleet, worker)
        factories.point(worker, queue=seeded_random.choice(queues))
        if seeded_random.random() < SHARE_OF_STOPPED:
            worker.instances.update(stopped_at=timezone.now())
    now = timezone.now()
    expected = Counter[tuple[Group, str, str]]()
    for instance in WorkerInstance.objects.with_liveness(now).filter(is_current=True).select_related("worker"):
        expected[group_of(instance.worker), instance.liveness, instance.configuration_revision] += 1
    with django_assert_num_queries(1):
        found = running(EVERYWHERE, now)
    assert sorted(map(repr, found)) == sorted(repr(Running(*state, count)) for state, count in expected.items())
    assert {each.liveness in LIVE for each in found} == {True, False}
    assert {any(each.group[1:]) for each in found} == {True, False}


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
