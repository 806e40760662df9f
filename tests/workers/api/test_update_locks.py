"""The update lock: one holder at a time, until it gives the lock back or its time is over."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.support import factories
from tests.support.calls import assert_error_shape, fresh_fleet, shared_client
from tests.support.factories import Fleet
from workers.api_keys.access import KeyOutOfScopeError, UnknownObjectError
from workers.lifecycle.update_locks import (
    NotTheHolderError,
    UpdateLockHeldError,
    acquire_update_lock,
    held_lock,
    release_update_lock,
)
from workers.models import ApiKey, UpdateLock, WorkerQueue

pytestmark = pytest.mark.sqlite

MINUTE = timedelta(minutes=1)
AT_ONCE = 20


@pytest.fixture
def fleet(db: None) -> Fleet:
    return with_the_queues_key(fresh_fleet())


@pytest.fixture
def committed_fleet(transactional_db: None) -> Fleet:
    return with_the_queues_key(fresh_fleet())


def with_the_queues_key(fleet: Fleet) -> Fleet:
    issued = factories.issue_key(fleet.queue)
    fleet.token, fleet.api_key = issued.token.reveal(), issued.row
    return fleet


def call(  # noqa: PLR0913  # the parts of a request that tests vary
    method: str,
    fleet: Fleet,
    holder: str,
    body: Any = None,
    *,
    token: str = "",
    queue_id: Any = None,
    client: Client | None = None,
) -> Any:
    path = f"/api/v1/worker-queues/{queue_id or fleet.queue.pk}/workers/{quote(holder, safe='/')}/update-lock"
    data = b"" if method == "DELETE" else body if isinstance(body, bytes) else json.dumps(body).encode()
    authorization = f"Bearer {token or fleet.token}"
    return (client or shared_client()).generic(
        method, path, data, "application/json" if data else "", HTTP_AUTHORIZATION=authorization
    )


def acquire(fleet: Fleet, holder: str = "build-7", seconds: Any = None, **options: Any) -> Any:
    body = {"worker_id": holder} | ({} if seconds is None else {"lock_duration_seconds": seconds})
    return call("POST", fleet, holder, options.pop("body", body), **options)


def release(fleet: Fleet, holder: str = "build-7", **options: Any) -> Any:
    return call("DELETE", fleet, holder, **options)


def status(fleet: Fleet, *, token: str = "", queue_id: Any = None) -> Any:
    return shared_client().get(
        f"/api/v1/worker-queues/{queue_id or fleet.queue.pk}/update-lock-status",
        HTTP_AUTHORIZATION=f"Bearer {token or fleet.token}",
    )


def assert_refused(response: Any, expected: int) -> None:
    assert response.status_code == expected, response.content[:500]
    assert_error_shape(response)


def assert_released(response: Any) -> None:
    assert response.status_code == 204, response.content[:500]
    assert response.content == b""


# --- Taking and giving back ---------------------------------------------------------------------------------------------


def test_a_free_lock_is_taken(fleet: Fleet) -> None:
    before = timezone.now()
    response = acquire(fleet)
    assert response.status_code == 200
    lock = response.json()
    row = UpdateLock.objects.get()
    assert lock == {
        "lock_id": str(row.pk),
        "worker_id": "build-7",
        "queue_id": str(fleet.queue.pk),
        "acquired_at": lock["acquired_at"],
        "expires_at": lock["expires_at"],
        "locked": True,
    }
    acquired_at, expires_at = (datetime.fromisoformat(lock[name]) for name in ("acquired_at", "expires_at"))
    assert before <= acquired_at <= timezone.now()
    assert acquired_at.tzinfo is not None
    assert expires_at - acquired_at == timedelta(seconds=300)


def test_its_holder_prolongs_it(fleet: Fleet) -> None:
    first, second = (acquire(fleet, seconds=seconds).json() for seconds in (60, 600))
    assert (second["lock_id"], second["acquired_at"]) == (first["lock_id"], first["acquired_at"])
    assert second["expires_at"] > first["expires_at"]
    assert UpdateLock.objects.count() == 1


def test_another_is_refused(fleet: Fleet) -> None:
    acquire(fleet, "build-7")
    before = UpdateLock.objects.values().get()
    response = acquire(fleet, "build-8")
    assert_refused(response, 409)
    assert "build-7" not in response.json()["detail"]
    assert UpdateLock.objects.values().get() == before


def test_one_queues_lock_does_not_hold_up_another_queue(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    token = factories.issue_token(fleet.environment)
    assert acquire(fleet, "build-7").status_code == 200
    assert acquire(fleet, "build-8", queue_id=other.pk, token=token).status_code == 200
    assert UpdateLock.objects.count() == 2


def test_its_holder_gives_it_back_for_another_to_take(fleet: Fleet) -> None:
    first = acquire(fleet, "build-7").json()
    assert_released(release(fleet, "build-7"))
    assert not UpdateLock.objects.exists()
    second = acquire(fleet, "build-8")
    assert second.status_code == 200
    assert second.json()["lock_id"] != first["lock_id"]


def test_another_cannot_give_it_back(fleet: Fleet) -> None:
    acquire(fleet, "build-7")
    assert_refused(release(fleet, "build-8"), 403)
    assert UpdateLock.objects.get().holder == "build-7"


def test_giving_back_what_nobody_holds_is_harmless(fleet: Fleet) -> None:
    assert_released(release(fleet))
    acquire(fleet)
    assert_released(release(fleet))
    assert_released(release(fleet))


def test_a_repeated_request_is_harmless(fleet: Fleet) -> None:
    assert [acquire(fleet).status_code for _ in range(3)] == [200, 200, 200]
    assert UpdateLock.objects.count() == 1


# --- Status -------------------------------------------------------------------------------------------------------------


def test_the_status_of_a_free_lock(fleet: Fleet) -> None:
    assert status(fleet).json() == {
        "locked": False,
        "queue_id": str(fleet.queue.pk),
        "worker_id": None,
        "lock_id": None,
        "acquired_at": None,
        "expires_at": None,
        "ttl_seconds": None,
        "lock_coordination_available": True,
    }


def test_the_status_of_a_held_lock(fleet: Fleet) -> None:
    lock = acquire(fleet, "build-7", 120).json()
    shown = status(fleet).json()
    ttl = shown.pop("ttl_seconds")
    assert type(ttl) is int
    assert 100 <= ttl <= 120
    assert shown == lock | {"lock_coordination_available": True}


def test_the_status_of_an_expired_lock_is_that_of_a_free_one(fleet: Fleet) -> None:
    free = status(fleet).json()
    acquire(fleet)
    UpdateLock.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert status(fleet).json() == free


def test_the_status_after_a_release_is_that_of_a_free_one(fleet: Fleet) -> None:
    free = status(fleet).json()
    acquire(fleet)
    release(fleet)
    assert status(fleet).json() == free


# --- Expiry -------------------------------------------------------------------------------------------------------------


def take(fleet: Fleet, holder: str, now: datetime, duration: timedelta = MINUTE) -> UpdateLock:
    return acquire_update_lock(fleet.queue.pk, holder=holder, duration=duration, api_key=fleet.api_key, now=now)


def give_back(fleet: Fleet, holder: str, now: datetime) -> None:
    release_update_lock(fleet.queue.pk, holder=holder, api_key=fleet.api_key, now=now)


def test_an_expired_lock_is_free_for_another(fleet: Fleet) -> None:
    now = timezone.now()
    first = take(fleet, "a", now)
    with pytest.raises(UpdateLockHeldError):
        take(fleet, "b", now + MINUTE - timedelta(microseconds=1))
    second = take(fleet, "b", now + MINUTE)
    assert (second.holder, second.acquired_at, second.expires_at) == ("b", now + MINUTE, now + 2 * MINUTE)
    assert second.pk != first.pk
    assert UpdateLock.objects.count() == 1


def test_a_former_holder_takes_an_expired_lock_anew(fleet: Fleet) -> None:
    now = timezone.now()
    first = take(fleet, "a", now)
    second = take(fleet, "a", now + MINUTE)
    assert second.pk != first.pk
    assert second.acquired_at == now + MINUTE


def test_prolonging_counts_from_now(fleet: Fleet) -> None:
    now = timezone.now()
    take(fleet, "a", now)
    lock = take(fleet, "a", now + MINUTE / 2, 5 * MINUTE)
    assert (lock.acquired_at, lock.expires_at) == (now, now + MINUTE / 2 + 5 * MINUTE)
    with pytest.raises(UpdateLockHeldError):
        take(fleet, "b", now + 5 * MINUTE)


def test_the_holder_of_an_expired_lock_cannot_end_its_successors(fleet: Fleet) -> None:
    now = timezone.now()
    take(fleet, "a", now)
    take(fleet, "b", now + 2 * MINUTE)
    with pytest.raises(NotTheHolderError):
        give_back(fleet, "a", now + 2 * MINUTE)
    assert UpdateLock.objects.get().holder == "b"


def test_anybody_may_give_back_an_expired_lock(fleet: Fleet) -> None:
    now = timezone.now()
    take(fleet, "a", now)
    give_back(fleet, "b", now + MINUTE)
    assert held_lock(fleet.queue, now + MINUTE) is None


@pytest.mark.parametrize("action", [take, give_back])
def test_the_domain_refuses_what_the_key_does_not_reach(fleet: Fleet, action: Callable[..., Any]) -> None:
    fleet.api_key = factories.issue_key(fleet.worker).row
    with pytest.raises(KeyOutOfScopeError):
        action(fleet, "a", timezone.now())
    fleet.api_key = factories.create_fleet().api_key
    with pytest.raises(UnknownObjectError):
        action(fleet, "a", timezone.now())
    assert not UpdateLock.objects.exists()


# --- Holders and durations ----------------------------------------------------------------------------------------------

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


# --- Keys ---------------------------------------------------------------------------------------------------------------


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


# --- At once ------------------------------------------------------------------------------------------------------------


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
