"""A worker that runs."""

import pytest

from tests.support.calls import start
from tests.support.factories import Fleet
from tests.support.heartbeats import SYSTEM_INFO, silence


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    """A fleet whose worker has started as the one of SYSTEM_INFO and has been silent for a while."""
    assert start(fleet, {"system_info": SYSTEM_INFO}).status_code == 200
    silence(minutes=2)
    return fleet
