"""A fleet whose queue has a lock."""

import pytest

from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.update_locks import with_the_queues_key


@pytest.fixture
def fleet(db: None) -> Fleet:
    return with_the_queues_key(fresh_fleet())
