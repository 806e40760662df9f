"""A fleet whose processes are of any age."""

import pytest

from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.models import Pulse


@pytest.fixture
def fleet(db: None) -> Fleet:
    """A fleet whose worker has started and whose control plane has no pulse yet."""
    fleet = fresh_fleet()
    assert start(fleet).status_code == 200
    Pulse.objects.all().delete()
    return fleet
