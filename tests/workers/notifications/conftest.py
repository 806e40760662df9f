"""A fleet with a target, and real receivers."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from tests.support.factories import Fleet
from tests.support.notifications import Watch, create_target
from tests.support.receivers import Receiver
from workers.models import NotificationTarget


@pytest.fixture(autouse=True)
def any_public_host(settings: Settings) -> None:
    """And, on a machine for development, this one."""
    settings.CONNECTION_HOSTS = ()


@pytest.fixture
def target(fleet: Fleet) -> NotificationTarget:
    return create_target(fleet.organization)


@pytest.fixture
def watch(db: None) -> Watch:
    return Watch()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.stop()
