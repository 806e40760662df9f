"""A fleet, and somebody who makes workers."""

import pytest
from django.test import Client

from tests.support.calls import fresh_fleet
from tests.support.console import person, signed_in
from tests.support.factories import Fleet


@pytest.fixture
def fleet(db: None) -> Fleet:
    person(is_staff=True, is_superuser=True)
    return fresh_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()
