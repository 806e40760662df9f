"""Changes meet each other, and starts, at the same moment: each is whole, and none is lost."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.go_clients import GoClient, GoError
from workers.models import KeyRole, Worker, WorkerQueue

if TYPE_CHECKING:
    import psycopg

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="on SQLite writers take turns with all of the file"),
]
ROUNDS = 8


def call_beside(another: "psycopg.Connection[Any]", manager: GoClient, *asked: Any) -> None:
    """A call that begins before the other session commits what it has changed, and waits for it."""

    def call() -> None:
        try:
            manager.call(*asked)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(call)
        time.sleep(0.5)
        another.commit()
        made.result()


@pytest.fixture
def fleet() -> Fleet:
    return fresh_fleet()


def at_once(*calls: Any) -> list[int]:
    """What each of the calls is answered, 200 for whatever is served, when all are made at the same moment."""
    barrier = Barrier(len(calls))

    def make(call: Any) -> int:
        barrier.wait()
        try:
            call()
        except GoError as error:
            return int(str(error).partition("status ")[2][:3])
        finally:
            connection.close()
        return 200

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(make, calls))


def test_a_queue_is_deleted_or_started_in_but_never_both(fleet: Fleet, manager: GoClient) -> None:
    for number in range(ROUNDS):
        queue = factories.create_queue(fleet.environment, f"q{number}")
        path = f"/worker-queues/{queue.pk}"
        deleted, started = at_once(
            lambda path=path: manager.call("DELETE", path),
            lambda path=path: manager.call("POST", f"{path}/start", {}),
        )
        assert (deleted, started) in {(200, 404), (409, 200)}
        assert WorkerQueue.objects.filter(pk=queue.pk).exists() == (started == 200)
        assert Worker.objects.filter(queue=queue.pk).count() == (started == 200)


def test_of_two_that_take_a_name_one_has_it(fleet: Fleet, manager: GoClient) -> None:
    for number in range(ROUNDS):
        body = {"name": f"e{number}"}
        made = at_once(*[lambda body=body: manager.call("POST", "/environments", body)] * 2)
        assert sorted(made) == [200, 409]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_whoever_comes_second_to_a_name_is_told_so(
    fleet: Fleet, manager: GoClient, method: str, another: "psycopg.Connection[Any]", caplog: pytest.LogCaptureFixture
) -> None:
    other = factories.create_queue(fleet.environment, "other")
    another.execute(
        "INSERT INTO workers_workerqueue SELECT (jsonb_populate_record(q, jsonb_build_object('id', %s::text, 'name', 'taken'))).*"
        " FROM workers_workerqueue q WHERE name = 'default'",
        [str(uuid.uuid4())],
    )
    path = f"/environments/{fleet.environment.pk}/worker-queues"
    path = path if method == "POST" else f"/worker-queues/{other.pk}"

    with pytest.raises(GoError, match="Another worker queue of this environment has this name"):
        call_beside(another, manager, method, path, {"name": "taken"})
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_what_another_call_has_deleted_meanwhile_is_not_found(
    fleet: Fleet, manager: GoClient, another: "psycopg.Connection[Any]", caplog: pytest.LogCaptureFixture
) -> None:
    queue = factories.create_queue(fleet.environment, "other")
    another.execute("DELETE FROM workers_workerqueue WHERE id = %s", [queue.pk])

    with pytest.raises(GoError, match="status 404"):
        call_beside(another, manager, "POST", "/api-keys", {"name": "made", "queue_id": str(queue.pk)})
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_two_that_change_different_members_lose_nothing(fleet: Fleet, manager: GoClient) -> None:
    path = f"/worker-queues/{fleet.queue.pk}"
    for number in range(ROUNDS):
        changed = at_once(
            lambda number=number: manager.call("PATCH", path, {"tags": [str(number)]}),
            lambda number=number: manager.call("PATCH", path, {"settings": {"n": number}}),
        )
        assert changed == [200, 200]
        found = manager.call("GET", path)
        assert (found["tags"], found["settings"]) == ([str(number)], {"n": number})


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_whoever_waits_in_vain_for_a_row_is_asked_to_come_again(
    fleet: Fleet, another: "psycopg.Connection[Any]", method: str
) -> None:
    queue = factories.create_queue(fleet.environment, "locked")
    manager = GoClient(factories.issue_token(fleet.organization, role=KeyRole.MANAGER))
    another.execute("SELECT 1 FROM workers_workerqueue FOR UPDATE")
    with pytest.raises(GoError, match="status 503"):
        manager.call(method, f"/worker-queues/{queue.pk}", {"description": "x"} if method == "PATCH" else None)
    another.rollback()
    manager.call(method, f"/worker-queues/{queue.pk}", {"description": "x"} if method == "PATCH" else None)
