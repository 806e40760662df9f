"""A fleet, and somebody who looks at it."""

import pytest
from django.test import Client

from tests.support.calls import fresh_fleet
from tests.support.console import signed_in
from tests.support.console_rows import with_every_kind_of_row
from tests.support.factories import Fleet
from tests.support.sharing import made_once, own_copy

shared_fleet = made_once(lambda: with_every_kind_of_row(fresh_fleet()))


@pytest.fixture
def fleet(shared_fleet: Fleet, db: None) -> Fleet:
    """An organization with a row of every kind."""
    return own_copy(shared_fleet)


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()
