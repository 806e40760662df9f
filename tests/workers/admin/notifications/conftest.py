"""An administrator of a fleet, and a receiver of its messages."""

from collections.abc import Iterator

import pytest
from django.test import Client
from pytest_django import Settings

from environments.models import Role
from tests.support.console import member, signed_in
from tests.support.factories import Fleet
from tests.support.receivers import Receiver


@pytest.fixture(autouse=True)
def any_public_host(settings: Settings) -> None:
    """And, on a machine for development, this one."""
    settings.CONNECTION_HOSTS = ()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(member(fleet.organization, Role.ADMINISTRATOR))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.stop()
