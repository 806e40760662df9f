"""A fleet, and somebody who makes workers."""

import pytest
from django.test import Client

from tests.support.calls import fresh_fleet
from tests.support.console import person, signed_in
from tests.support.factories import Fleet
from tests.support.sharing import made_once, own_copy


def make_fleet() -> Fleet:
    person(is_staff=True, is_superuser=True)
    return fresh_fleet()


shared_fleet = made_once(make_fleet)


@pytest.fixture
def fleet(shared_fleet: Fleet, db: None) -> Fleet:
    return own_copy(shared_fleet)


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()
