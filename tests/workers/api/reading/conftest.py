"""A fleet to read of."""

import pytest

from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from tests.support.sharing import made_once, own_copy


def make_fleet() -> Fleet:
    fleet = fresh_fleet()
    fleet.token = factories.issue_token(fleet.organization)
    return fleet


shared_fleet = made_once(make_fleet)


@pytest.fixture
def fleet(shared_fleet: Fleet, db: None) -> Fleet:
    """A fleet whose token is a key of the organization."""
    return own_copy(shared_fleet)


@pytest.fixture
def many(fleet: Fleet) -> Fleet:
    """Five rows for each list."""
    for number in range(4):
        environment = factories.create_environment(fleet.organization, f"e{number}")
        factories.create_queue(fleet.environment, f"q{number}")
        factories.create_queue(environment)
        factories.create_worker(fleet.queue, f"w{number}")
    for worker in fleet.queue.workers.all():
        start(fleet, worker_id=worker.pk)
    return fleet
