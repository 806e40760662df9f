"""A fleet with several workers, and somebody who changes them."""

import pytest
from django.test import Client

from environments.models import Role
from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.console import member, signed_in
from tests.support.factories import Fleet
from tests.support.sharing import made_once, own_copy


def make_fleet() -> Fleet:
    fleet = fresh_fleet()
    for name in ("worker-2", "worker-3"):
        factories.create_worker(fleet.queue, name)
    return fleet


shared_fleet = made_once(make_fleet)


@pytest.fixture
def fleet(shared_fleet: Fleet, db: None) -> Fleet:
    return own_copy(shared_fleet)


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(member(fleet.organization, Role.OPERATOR))
