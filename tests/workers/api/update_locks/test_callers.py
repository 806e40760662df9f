"""Who may take the update lock, for how long, and what many at once are answered."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.update_locks import (
    acquire,
    assert_refused,
    assert_released,
    call,
    release,
    status,
    with_the_queues_key,
)
from workers.models import ApiKey, UpdateLock, WorkerQueue

pytestmark = pytest.mark.sqlite


AT_ONCE = 20


@pytest.fixture
def committed_fleet(transactional_db: None) -> Fleet:
    return with_the_queues_key(fresh_fleet())


HOLDERS = {
    "UUID": str(uuid4()),
    "slashes": "host/a/b",
    "slash at the end": "host/",
    "two slashes": "host//a",
    "like the path": "x/update-lock",
    "like a status": "update-lock-status",
    "spaces": "build 7",
    "a space": " ",
    "colon": "host:4711",
    "query": "a?b=c&d",
    "fragment": "a#b",
    "percent": "100%",
    "encoded slash": "a%2Fb",
    "umlauts": "größe",
    "emoji": "🦊",
    "Chinese": "工人",
    "right to left": "עובד",
    "quotes": "'\"<>`",
    "dots": "..",
    "one letter": "x",
    "200 characters": "x" * 200,
    "200 emoji": "🦊" * 200,
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_any_printable_text_may_hold_it(fleet: Fleet, holder: str) -> None:
    response = acquire(fleet, holder, body={"worker_id": "w"})
    assert response.status_code == 200, response.content[:500]
    assert response.json()["worker_id"] == holder
    assert status(fleet).json()["worker_id"] == holder
    assert_refused(acquire(fleet, f"{holder}x"[-200:] if len(holder) < 200 else "other"), 409)
    assert_refused(release(fleet, "somebody else"), 403)
    assert_released(release(fleet, holder))
    assert status(fleet).json()["locked"] is False


NOBODY = {
    "201 characters": "x" * 201,
    "5,000 characters": "x" * 5_000,
    "NUL": "a\0b",
    "newline": "a\n",
    "escape": "\x1b[31m",
    "no-break space": "a\u00a0b",
    "byte order mark": "\ufeffa",
    "right-to-left override": "a\u202eb",
    "zero-width space": "a\u200bb",
}


@pytest.mark.parametrize("holder", NOBODY.values(), ids=NOBODY)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_other_text_is_nobody(fleet: Fleet, method: str, holder: str) -> None:
    assert_refused(call(method, fleet, holder, {"worker_id": "w"}), 404)
    assert not UpdateLock.objects.exists()


def test_an_empty_holder_is_nobody(fleet: Fleet) -> None:
    assert_refused(call("POST", fleet, "", {"worker_id": "w"}), 404)


@pytest.mark.parametrize("seconds", [60, 61, 300, 599, 600])
def test_durations_of_one_to_ten_minutes_are_taken(fleet: Fleet, seconds: int) -> None:
    lock = acquire(fleet, seconds=seconds).json()
    length = datetime.fromisoformat(lock["expires_at"]) - datetime.fromisoformat(lock["acquired_at"])
    assert length == timedelta(seconds=seconds)


@pytest.mark.parametrize("seconds", [59, 601, 0, -300, 10**30, 300.5, "", "long", [300], {}, True])
def test_other_durations_are_validation_errors(fleet: Fleet, seconds: Any) -> None:
    response = acquire(fleet, seconds=seconds)
    assert_refused(response, 422)
    assert response.json()["detail"][0]["loc"] == ["body", "lock_duration_seconds"]
    assert not UpdateLock.objects.exists()


def test_a_duration_of_null_is_none(fleet: Fleet) -> None:
    lock = acquire(fleet, body={"worker_id": "build-7", "lock_duration_seconds": None}).json()
    length = datetime.fromisoformat(lock["expires_at"]) - datetime.fromisoformat(lock["acquired_at"])
    assert length == timedelta(seconds=300)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"worker_id":null}', b'{"worker_id":{}}', b'{"worker_id":[]}'])
def test_the_body_has_to_name_the_worker(fleet: Fleet, body: bytes) -> None:
    assert_refused(acquire(fleet, body=body), 422)
    assert not UpdateLock.objects.exists()


def test_the_worker_in_the_path_is_the_holder(fleet: Fleet) -> None:
    assert acquire(fleet, "in-the-path", body={"worker_id": "in-the-body"}).json()["worker_id"] == "in-the-path"


@pytest.mark.parametrize(
    ("level", "expected"), [("organization", 200), ("environment", 200), ("queue", 200), ("worker", 403)]
)
def test_a_workers_key_does_not_reach_the_lock(fleet: Fleet, level: str, expected: int) -> None:
    token = factories.issue_token(getattr(fleet, level))
    assert acquire(fleet, token=token).status_code == expected
    assert status(fleet, token=token).status_code == expected
    assert release(fleet, token=token).status_code == (204 if expected == 200 else 403)


def test_another_key_does_not_make_its_caller_the_holder_of_that_name(fleet: Fleet) -> None:
    other = factories.issue_token(fleet.environment)
    assert acquire(fleet, "a").status_code == 200
    before = UpdateLock.objects.values().get()
    assert_refused(acquire(fleet, "a", token=other), 409)
    assert_refused(release(fleet, "a", token=other), 403)
    assert_refused(acquire(fleet, "b"), 409)
    assert UpdateLock.objects.values().get() == before
    assert_released(release(fleet, "a"))


def test_a_rotated_key_goes_on_with_the_lock_as_its_successor(fleet: Fleet) -> None:
    acquire(fleet, "a")
    successor = factories.issue_key(fleet.queue)
    ApiKey.objects.filter(pk=fleet.api_key.pk).update(replaced_by=successor.row)
    assert acquire(fleet, "a", token=successor.token.reveal()).status_code == 200
    assert_released(release(fleet, "a", token=successor.token.reveal()))


PLACE = {"hostname": "worker", "pid": 1}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (PLACE | {"container_id": "aaa"}, 200),
        ({}, 200),
        (PLACE | {"container_id": "bbb"}, 409),
        (PLACE | {"container_id": "aaa", "process_started_at": "later"}, 409),
        ({"hostname": "another", "pid": 1, "container_id": "aaa"}, 409),
    ],
    ids=["itself", "untold", "another container", "a later process", "another host"],
)
def test_a_holder_that_tells_of_its_process_is_no_other_one(fleet: Fleet, told: Any, expected: int) -> None:
    def body(info: Any) -> dict[str, Any]:
        return {"worker_id": "build-7", "system_info": info}

    assert acquire(fleet, body=body(PLACE | {"container_id": "aaa"})).status_code == 200
    assert acquire(fleet, body=body(told)).status_code == expected
    assert_released(release(fleet))


def test_a_lock_of_another_organization_is_unknown(fleet: Fleet) -> None:
    other = with_the_queues_key(factories.create_fleet())
    acquire(other, "build-7")
    for response in (
        acquire(fleet, queue_id=other.queue.pk),
        release(fleet, queue_id=other.queue.pk),
        status(fleet, queue_id=other.queue.pk),
    ):
        assert_refused(response, 404)
    assert UpdateLock.objects.get().holder == "build-7"


def at_once(run: Callable[[int], int]) -> Counter[int]:
    """How often each status came back from threads that begin together."""
    barrier = Barrier(AT_ONCE)

    def one(number: int) -> int:
        try:
            barrier.wait(30)
            return run(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Counter(pool.map(one, range(AT_ONCE)))


def test_of_twenty_at_once_exactly_one_gets_it(committed_fleet: Fleet) -> None:
    found = at_once(lambda number: acquire(committed_fleet, f"build-{number}", client=Client()).status_code)
    assert found == {200: 1, 409: AT_ONCE - 1}
    assert UpdateLock.objects.count() == 1


def test_of_twenty_at_once_exactly_one_gets_an_expired_one(committed_fleet: Fleet) -> None:
    acquire(committed_fleet, "former")
    UpdateLock.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    found = at_once(lambda number: acquire(committed_fleet, f"build-{number}", client=Client()).status_code)
    assert found == {200: 1, 409: AT_ONCE - 1}
    assert UpdateLock.objects.get().holder != "former"


def test_twenty_requests_of_one_holder_at_once_are_all_answered(committed_fleet: Fleet) -> None:
    assert at_once(lambda _number: acquire(committed_fleet, client=Client()).status_code) == {200: AT_ONCE}
    assert UpdateLock.objects.count() == 1


def test_twenty_that_take_it_and_give_it_back_leave_it_free(committed_fleet: Fleet) -> None:
    def run(number: int) -> int:
        holder, client = f"build-{number}", Client()
        taken = acquire(committed_fleet, holder, client=client).status_code
        given_back = release(committed_fleet, holder, client=client).status_code
        assert given_back in ({204} if taken == 200 else {204, 403})
        return int(taken)

    found = at_once(run)
    assert set(found) <= {200, 409}
    assert found[200] >= 1
    assert not UpdateLock.objects.exists()


def test_a_lock_goes_with_its_queue(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    acquire(fleet, queue_id=other.pk, token=factories.issue_token(fleet.environment))
    ApiKey.objects.filter(queue=other).delete()
    WorkerQueue.objects.filter(pk=other.pk).delete()
    assert not UpdateLock.objects.exists()
    assert UUID(str(fleet.queue.pk)) == WorkerQueue.objects.get().pk
