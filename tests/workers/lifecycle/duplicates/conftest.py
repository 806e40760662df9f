"""A fleet whose worker runs twice."""

import pytest

from tests.support.calls import fresh_fleet
from tests.support.duplicates import NEW, NEW_ADDRESS, OLD, OLD_ADDRESS, instance, start
from tests.support.factories import Fleet


@pytest.fixture
def fleet(db: None) -> Fleet:
    """A fleet whose worker's process OLD runs at OLD_ADDRESS."""
    fleet = fresh_fleet()
    assert start(fleet, OLD).status_code == 200
    assert instance(OLD).client_address == OLD_ADDRESS
    return fleet


@pytest.fixture
def rivals(fleet: Fleet) -> Fleet:
    """The same beside a process NEW, which the queue allows."""
    assert start(fleet, NEW, NEW_ADDRESS).status_code == 200
    return fleet
