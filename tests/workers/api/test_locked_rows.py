"""A call that waits for somebody's lock says so, and no other call hears of it."""

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection

from controlplane.engines.circuit import Circuit
from tests.support import factories
from tests.support.calls import fresh_fleet, shared_client, start
from tests.support.circuits import Probe
from tests.support.factories import Fleet
from workers.models import WorkerQueue

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="on SQLite writers wait for all of the file"),
]

#: Calls, and the table whose rows each of them has to wait for.
CALLS = {
    "start": ("workers/{worker}/start", "workers_worker"),
    "start in a limited queue": ("worker-queues/{queue}/start", "workers_workerqueue"),
    "heartbeat": ("workers/{worker}/heartbeat", "workers_workerinstance"),
    "goodbye": ("workers/{worker}/disconnect", "workers_workerinstance"),
    "update lock": ("worker-queues/{queue}/workers/{worker}/update-lock", "workers_workerqueue"),
}


@pytest.fixture
def fleet() -> Fleet:
    fleet = fresh_fleet()
    WorkerQueue.objects.update(max_workers=5)
    assert start(fleet, {"system_info": {"hostname": "h"}}).status_code == 200
    return fleet


@pytest.fixture
def another() -> Iterator[psycopg.Connection[Any]]:
    """A transaction of somebody else."""
    url = psycopg.conninfo.make_conninfo(os.environ["DATABASE_URL"], dbname=connection.settings_dict["NAME"])
    with psycopg.connect(url) as somebody:
        yield somebody
        somebody.rollback()


@pytest.mark.parametrize(("path", "table"), CALLS.values(), ids=CALLS)
def test_whoever_waits_in_vain_is_told_that_somebody_holds_the_rows(  # noqa: PLR0913, PLR0917  # fixtures
    fleet: Fleet, another: psycopg.Connection[Any], used: Circuit, probe: Probe, path: str, table: str
) -> None:
    another.execute(f"SELECT 1 FROM {table} FOR UPDATE")  # noqa: S608
    token = factories.issue_token(fleet.organization)
    response = shared_client().post(
        f"/api/v1/{path.format(worker=fleet.worker.pk, queue=fleet.queue.pk)}",
        '{"status": "active", "worker_id": "builder"}',
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {token}",
    )
    assert (response.status_code, response.json()) == (
        503,
        {"detail": "Somebody else holds the rows that this call needs: try again."},
    )
    assert int(response["Retry-After"]) > 0
    assert not used.is_open()
    other = factories.create_fleet()
    another.rollback()
    assert start(other).status_code == 200


def test_a_page_says_it_too(fleet: Fleet, another: psycopg.Connection[Any], admin_client: Any) -> None:
    another.execute("SELECT 1 FROM environments_organization FOR UPDATE")
    response = admin_client.post(f"/admin/environments/organization/{fleet.organization.pk}/change/", {"name": "x"})
    assert response.status_code == 503
    assert "Somebody else is changing this" in response.content.decode()
