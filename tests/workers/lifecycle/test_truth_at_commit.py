"""What a start answers was so when it was committed, whoever changes what at the same moment."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.lifecycle.heartbeats import LONGEST_WAIT
from workers.models import Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite

WRITING = "WITH guard"


@dataclass
class Stage:
    """A fleet whose worker has a connection of its own and a second queue to go to."""

    fleet: Fleet
    own: Any
    other: Any
    right: WorkerQueue
    session: Any

    def change(self, statement: str, **given: Any) -> None:
        ids = {
            "worker": self.fleet.worker.pk,
            "queue": self.fleet.queue.pk,
            "right": self.right.pk,
            "environment": self.fleet.environment.pk,
            "organization": self.fleet.organization.pk,
            "key": self.fleet.api_key.pk,
            "temporal": self.fleet.temporal.pk,
            "own": self.own.pk,
            "other": self.other.pk,
        }
        self.session.execute(statement, {**ids, **given})


@pytest.fixture
def stage(another: Any) -> Iterator[Stage]:
    fleet = fresh_fleet()
    fleet.api_key.delete()  # it is the worker's, which could not be deleted
    issued = factories.issue_key(fleet.organization)
    fleet.api_key, fleet.token = issued.row, issued.token.reveal()
    own, other = (
        factories.create_temporal(fleet.organization, name, secret=f"{name}-secret") for name in ("own", "other")
    )
    factories.point(fleet.worker, temporal_connection=own)
    yield Stage(fleet, own, other, factories.create_queue(fleet.environment, "right"), another)
    another.rollback()


@contextmanager
def before_writing(act: Callable[[], None]) -> Iterator[None]:
    """Does something once, between what a call reads and what it writes."""
    left = [act]

    def wrap(execute: Any, sql: str, *arguments: Any) -> Any:
        if left and sql.startswith((WRITING, 'UPDATE "workers_workerinstance"')):
            left.pop()()
        return execute(sql, *arguments)

    with connection.execute_wrapper(wrap):
        yield
    assert not left, "nothing was written"


#: What somebody changes, the status of the start that meets it, and the secret that it is then given.
EDITS: dict[str, tuple[str, int, str | None]] = {
    "moved": ("UPDATE workers_worker SET queue_id = %(right)s WHERE id = %(worker)s", 200, "own-secret"),
    "another connection of its own": (
        "UPDATE workers_worker SET temporal_connection_id = %(other)s WHERE id = %(worker)s",
        200,
        "other-secret",
    ),
    "no connection of its own any more": (
        "UPDATE workers_worker SET temporal_connection_id = NULL WHERE id = %(worker)s",
        200,
        None,
    ),
    "renamed": ("UPDATE workers_worker SET name = 'renamed' WHERE id = %(worker)s", 200, "own-secret"),
    "worker disabled": ("UPDATE workers_worker SET is_disabled = true WHERE id = %(worker)s", 403, None),
    "worker draining": ("UPDATE workers_worker SET is_draining = true WHERE id = %(worker)s", 409, None),
    "worker deleted": ("DELETE FROM workers_worker WHERE id = %(worker)s", 404, None),
    "queue disabled": ("UPDATE workers_workerqueue SET is_disabled = true WHERE id = %(queue)s", 409, None),
    "queue draining": ("UPDATE workers_workerqueue SET is_draining = true WHERE id = %(queue)s", 409, None),
    "queue renamed": ("UPDATE workers_workerqueue SET name = 'renamed' WHERE id = %(queue)s", 200, "own-secret"),
    "key revoked": ("UPDATE workers_apikey SET revoked_at = now() WHERE id = %(key)s", 401, None),
    "key expired": ("UPDATE workers_apikey SET expires_at = now() WHERE id = %(key)s", 401, None),
    "key narrowed": (
        "UPDATE workers_apikey SET scope = 'queue', queue_id = %(right)s WHERE id = %(key)s",
        403,
        None,
    ),
    "key narrowed to where it is": (
        "UPDATE workers_apikey SET scope = 'queue', queue_id = %(queue)s WHERE id = %(key)s",
        200,
        "own-secret",
    ),
    "key deleted": ("DELETE FROM workers_apikey WHERE id = %(key)s", 401, None),
    "secret made unreadable": (
        "UPDATE environments_temporalconnection SET sealed_api_key = 'cp1.x.AAAA' WHERE id = %(own)s",
        503,
        None,
    ),
    "host changed": (
        "UPDATE environments_temporalconnection SET host = 'elsewhere:7233' WHERE id = %(own)s",
        200,
        "own-secret",
    ),
}


def answered(stage: Stage, response: Any, edit: str) -> None:
    """What is right after the edit; what is recorded is what was answered."""
    _, status, secret = EDITS[edit]
    assert response.status_code == status, response.content
    if status != 200:
        assert not WorkerStart.objects.exists()
        assert not WorkerInstance.objects.exists()
        return
    answer, recorded, worker = response.json(), WorkerStart.objects.get(), Worker.objects.get()
    assert answer["temporal_api_key"] == (secret or stage.fleet.temporal_secret)
    assert answer["worker_queue_name"] == worker.queue.name
    assert answer["temporal_host"] == (worker.temporal_connection or stage.fleet.temporal).host
    assert recorded.task_queue_name == answer["task_queue_name"]
    assert recorded.temporal_connection_id == (worker.temporal_connection_id or stage.fleet.temporal.pk)
    assert recorded.worker_name == worker.name
    assert WorkerInstance.objects.get().queue_id == worker.queue_id


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_between_reading_and_writing_decides_the_start(stage: Stage, edit: str) -> None:
    def commit() -> None:
        stage.change(EDITS[edit][0])
        stage.session.commit()

    with before_writing(commit):
        response = start(stage.fleet)
    answered(stage, response, edit)


def in_thread(call: Callable[[], Any]) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(closing, call)
    pool.shutdown(wait=False)
    return future


#: Those whose rows no start may outrun: it waits for them, and for nothing else that a person does.
WAITED_FOR = {"moved", "renamed", "worker deleted"}


@pytest.mark.parametrize("edit", EDITS)
def test_a_start_waits_for_no_edit_but_one_that_moves_renames_or_deletes_its_worker(stage: Stage, edit: str) -> None:
    stage.change(EDITS[edit][0])
    future = in_thread(lambda: start(stage.fleet, client=Client()))
    if edit in WAITED_FOR:
        wait_until_somebody_waits(stage)
        stage.session.commit()
        answered(stage, future.result(timeout=10), edit)
    else:
        response = future.result(timeout=10)
        assert response.status_code == 200
        assert response.json()["temporal_api_key"] == "own-secret"


def wait_until_somebody_waits(stage: Stage) -> None:
    """Until another session waits for a lock, as PostgreSQL itself tells."""
    seen = threading.Event()
    for _ in range(500):
        (count,) = stage.session.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
        if count:
            return
        seen.wait(0.01)
    pytest.fail("nobody waits")


# --- Starts in a queue, registrations, heartbeats, goodbyes ---------------------------------------------------------------


def post(stage: Stage, path: str, body: Any) -> Any:
    key = f"Bearer {stage.fleet.token}"
    return Client(raise_request_exception=False).post(
        f"/api/v1/{path}", json.dumps(body), "application/json", HTTP_AUTHORIZATION=key
    )


def start_in_queue(stage: Stage) -> Any:
    return post(stage, f"worker-queues/{stage.fleet.queue.pk}/start", {})


def register(stage: Stage) -> Any:
    return post(stage, "workers/register", {"environment_name": stage.fleet.environment.name})


POINTED = "UPDATE workers_workerqueue SET temporal_connection_id = %(own)s WHERE id = %(queue)s"
#: The same for calls that make a worker in a queue.
EDITS_OF_QUEUES: dict[str, tuple[str, int, str | None]] = {
    "another connection": (POINTED, 200, "own-secret"),
    "renamed": (EDITS["queue renamed"][0], 200, None),
    "disabled": (EDITS["queue disabled"][0], 409, None),
    "draining": (EDITS["queue draining"][0], 409, None),
    "deleted": ("DELETE FROM workers_workerqueue WHERE id = %(queue)s", 404, None),
    "key revoked": (EDITS["key revoked"][0], 401, None),
    "key narrowed": (EDITS["key narrowed"][0], 403, None),
}


@pytest.mark.parametrize("call", [start_in_queue, register])
@pytest.mark.parametrize("edit", EDITS_OF_QUEUES)
def test_an_edit_between_reading_and_writing_decides_a_start_in_a_queue(
    stage: Stage, edit: str, call: Callable[[Stage], Any]
) -> None:
    statement, status, secret = EDITS_OF_QUEUES[edit]
    stage.fleet.worker.delete()

    def commit() -> None:
        stage.change(statement)
        stage.session.commit()

    with before_writing(commit):
        response = call(stage)
    assert response.status_code == status, response.content
    assert WorkerStart.objects.count() == Worker.objects.count() == (status == 200)
    if status == 200:
        answer = response.json()
        assert answer["temporal_api_key"] == (secret or stage.fleet.temporal_secret)
        queue = WorkerQueue.objects.select_related("environment").get(pk=stage.fleet.queue.pk)
        assert WorkerStart.objects.get().task_queue_name == queue.task_queue_name


def heartbeat(stage: Stage) -> Any:
    return post(stage, f"workers/{stage.fleet.worker.pk}/heartbeat", {"status": "busy"})


def disconnect(stage: Stage) -> Any:
    return post(stage, f"workers/{stage.fleet.worker.pk}/disconnect", {"reason": "shutdown"})


#: What is committed while a call waits for its process's row, and how the call is answered.
MEANWHILE: dict[str, tuple[str, int, int]] = {
    "key revoked": (EDITS["key revoked"][0], 401, 204),
    "key narrowed": (EDITS["key narrowed"][0], 403, 204),
    "worker disabled": (EDITS["worker disabled"][0], 409, 204),
    "queue disabled": (EDITS["queue disabled"][0], 409, 204),
    "described": ("UPDATE workers_worker SET description = 'x' WHERE id = %(worker)s", 204, 204),
}


@pytest.mark.parametrize("edit", MEANWHILE)
@pytest.mark.parametrize("call", [heartbeat, disconnect])
def test_a_call_that_waits_for_its_process_looks_again(stage: Stage, edit: str, call: Callable[[Stage], Any]) -> None:
    """A goodbye has told what it had to tell, so its key and its worker no longer matter."""
    statement, beats, leaves = MEANWHILE[edit]
    assert start(stage.fleet).status_code == 200
    stage.session.execute("SELECT FROM workers_workerinstance FOR UPDATE")
    stage.change(statement)
    future = in_thread(lambda: call(stage))
    wait_until_somebody_waits(stage)
    threading.Event().wait(LONGEST_WAIT)
    stage.session.commit()
    assert future.result(timeout=10).status_code == (beats if call is heartbeat else leaves)


def test_starts_of_one_worker_at_once_leave_one_current_and_all_recorded(stage: Stage) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: closing(lambda: start(stage.fleet, client=Client()).status_code), range(24)))
    assert statuses == [200] * 24
    assert WorkerStart.objects.count() == WorkerInstance.objects.count() == 24
    assert WorkerInstance.objects.filter(is_current=True).count() == 1


def closing(call: Callable[[], Any]) -> Any:
    try:
        return call()
    finally:
        connection.close()
