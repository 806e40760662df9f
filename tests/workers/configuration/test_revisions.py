import random
from typing import Any

import pytest

from environments.models.connections import CONNECTION_POINTERS
from tests.support import factories
from tests.support.factories import Fleet
from workers.configuration.effective import revision_for, revision_of_queue
from workers.configuration.revisions import current_revisions, given_to, group_of
from workers.models import Worker, WorkerQueue

pytestmark = pytest.mark.sqlite


def one_by_one() -> dict[Any, str]:
    """What the start itself resolves, worker by worker."""
    return {worker.pk: revision_for(worker) for worker in Worker.objects.with_chain()}


def test_groups_are_given_what_a_start_resolves_for_each_worker(fleet: Fleet, seeded_random: random.Random) -> None:
    rows = {
        "temporal_connection": [None, *(factories.create_temporal(fleet.organization, f"t-{n}") for n in range(2))],
        "litellm_connection": [None, *(factories.create_litellm(fleet.organization, f"l-{n}") for n in range(2))],
        "telemetry_settings": [None, *(factories.create_telemetry(fleet.organization, f"o-{n}") for n in range(2))],
    }

    def pointers() -> dict[str, Any]:
        return {name: seeded_random.choice(choices) for name, choices in rows.items()}

    queues = [factories.create_queue(fleet.environment, f"queue-{n}", **pointers()) for n in range(4)]
    for number in range(30):
        factories.create_worker(seeded_random.choice(queues), f"worker-{number + 2}", **pointers())
    assert {pk: given.revision for pk, given in given_to(Worker.objects.all()).items()} == one_by_one()


def test_a_group_that_cannot_start_has_the_revision_that_names_what_is_missing(fleet: Fleet) -> None:
    before = given_to(Worker.objects.all())[fleet.worker.pk].revision
    factories.point(fleet.organization, litellm_connection=None)
    after = given_to(Worker.objects.all())[fleet.worker.pk].revision
    assert after == one_by_one()[fleet.worker.pk] != before


def test_a_worker_without_connections_of_its_own_has_its_queues_revision(fleet: Fleet) -> None:
    queue = WorkerQueue.objects.with_chain().get()
    assert given_to(Worker.objects.all())[fleet.worker.pk].revision == revision_of_queue(queue)


@pytest.mark.parametrize("workers", [1, 40])
def test_the_statements_do_not_grow_with_the_workers(
    fleet: Fleet, workers: int, django_assert_num_queries: Any
) -> None:
    for number in range(workers):
        own = {name: factories.create_telemetry(fleet.organization, f"o-{number}") for name in CONNECTION_POINTERS[2:]}
        factories.create_worker(fleet.queue, f"worker-{number + 2}", **own)
    groups = [group_of(worker) for worker in Worker.objects.all()]
    with django_assert_num_queries(2):  # the queues, and the telemetry settings that workers point to
        current_revisions(groups)
