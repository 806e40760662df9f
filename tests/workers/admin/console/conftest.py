"""A fleet, and somebody who looks at it."""

import pytest
from django.test import Client

from tests.support.calls import fresh_fleet
from tests.support.console import signed_in
from tests.support.console_rows import with_every_kind_of_row
from tests.support.factories import Fleet


@pytest.fixture
def fleet(db: None) -> Fleet:
    """An organization with a row of every kind."""
    fleet = fresh_fleet()
    return with_every_kind_of_row(fleet)


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()
