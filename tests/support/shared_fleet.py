"""The fixture `fleet` of files whose tests share one: `from tests.support.shared_fleet import *`."""

import pytest

from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.sharing import made_once, own_copy

__all__ = ["fleet", "shared_fleet"]

shared_fleet = made_once(fresh_fleet)


@pytest.fixture
def fleet(shared_fleet: Fleet, db: None) -> Fleet:
    """An organization with a worker that can start, and no request counted by any throttle yet."""
    return own_copy(shared_fleet)
