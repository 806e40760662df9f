"""Callers of every kind."""

import pytest

from tests.support import factories
from tests.support.callers import World, send
from tests.support.sharing import made_once, own_copy


def make_world() -> World:
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
    return world


shared_world = made_once(make_world)


@pytest.fixture
def world(shared_world: World, db: None) -> World:
    return own_copy(shared_world)
