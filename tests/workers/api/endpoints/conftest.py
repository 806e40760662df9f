"""Callers of every kind."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.db import transaction
from pytest_django import DjangoDbBlocker

from environments.limits import counts
from tests.support import factories
from tests.support.callers import World, send


@pytest.fixture(scope="module")
def shared_world(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    """Made once, in a transaction around those of the tests, which take back what they do; it takes longer than they."""
    cache.clear()
    around: Any = transaction.atomic()
    around._from_testcase = True  # as Django's own around tests, within which what is durable may be
    with django_db_blocker.unblock(), around:
        fleet = factories.create_fleet()
        world = World(
            fleet=fleet,
            other_environment=factories.create_environment(fleet.organization, "staging"),
            other_queue=factories.create_queue(fleet.environment, "other"),
            other_worker=factories.create_worker(fleet.queue, "worker-2"),
            foreign=factories.create_fleet(),
        )
        for owner in (fleet, world.foreign):
            telemetry = factories.create_telemetry(owner.organization)
            factories.point(owner.worker, telemetry_settings=telemetry)  # so that nobody can delete it
        sent = send("POST /api/v1/workers/{worker_id}/start", fleet, f"Bearer {fleet.token}")
        assert sent.status_code == 200, sent.content
        yield world
        transaction.set_rollback(True)


@pytest.fixture
def world(shared_world: World, db: None) -> World:
    cache.clear()
    counts.forget()
    return copy.deepcopy(shared_world)
