"""A fleet with a key of its queue."""

from typing import Any

import pytest

from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.queue_starts import BOOTS
from tests.support.sharing import made_once, own_copy


def make_fleet() -> Fleet:
    fleet = fresh_fleet()
    fleet.token = factories.issue_token(fleet.queue)
    return fleet


shared_fleet = made_once(make_fleet)


@pytest.fixture
def fleet(shared_fleet: Fleet, db: None) -> Fleet:
    """A fleet whose token is a key of its queue."""
    return own_copy(shared_fleet)


@pytest.fixture(params=BOOTS)
def either(request: pytest.FixtureRequest) -> Any:
    """Both ways by which an ephemeral worker is made."""
    return BOOTS[request.param]
