"""The running control plane keeps its pulse, and tells its own absence from that of its workers."""

import json
import sqlite3
import time
from datetime import timedelta

import psycopg
from django.utils import timezone

from tests.support.servers import ControlPlane


def execute(control_plane: ControlPlane, statement: str, *values: object) -> list[tuple[object, ...]]:
    """Runs a statement, its parameters written `%s`, in the control plane's own database."""
    url = control_plane.database_url
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=20)
        try:
            cursor = connection.execute(statement.replace("%s", "?"), [str(value) for value in values])
            rows = cursor.fetchall()
            connection.commit()
            return rows
        finally:
            connection.close()
    with psycopg.connect(url) as server:
        found = server.execute(statement, list(values))  # type: ignore[arg-type]
        return found.fetchall() if found.description else []


def status_of_the_worker(control_plane: ControlPlane, key: str) -> str:
    path = f"/api/v1/worker-queues/{control_plane.queue_id}/workers?status=all"
    status, _, body = control_plane.request("GET", path, headers={"Authorization": f"Bearer {key}"})
    assert status == 200, body
    return next(row["status"] for row in json.loads(body) if row["worker_id"] == control_plane.worker_id)


def test_silence_during_our_own_absence_makes_no_worker_offline(control_plane: ControlPlane) -> None:
    issued = control_plane.manage(
        "issue_api_key", "--queue", control_plane.queue_id, "--name", "outage", "--format", "json"
    )
    key = json.loads(issued.stdout)["api_key"]
    headers = {"Authorization": f"Bearer {control_plane.api_key}"}
    path = f"/api/v1/workers/{control_plane.worker_id}/start"
    assert control_plane.request("POST", path, json={}, headers=headers)[0] == 200
    assert execute(control_plane, "SELECT id FROM workers_pulse") == [(1,)]

    control_plane.process.stop()
    now = timezone.now().replace(tzinfo=None)
    long_ago = now - timedelta(minutes=10)
    execute(control_plane, "DELETE FROM workers_outage")  # of other tests that stopped it for long
    execute(control_plane, "UPDATE workers_pulse SET beat_at = %s", long_ago)
    heard = "UPDATE workers_workerinstance SET last_heartbeat_at = %s"
    execute(control_plane, heard, long_ago - timedelta(seconds=20))
    control_plane.start()

    assert status_of_the_worker(control_plane, key) == "active"
    deadline = time.monotonic() + 20
    outage = "SELECT id FROM workers_outage"
    while not execute(control_plane, outage) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert execute(control_plane, outage)
    assert status_of_the_worker(control_plane, key) == "active"

    recovered = "UPDATE workers_outage SET recovered_at = %s"
    execute(control_plane, recovered, now - timedelta(minutes=4))
    assert status_of_the_worker(control_plane, key) == "offline"
    execute(control_plane, "DELETE FROM workers_outage")
