"""The update lock has one holder, until it is given back or its time is over."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.support import factories
from tests.support.factories import Fleet
from tests.support.update_locks import acquire, assert_refused, assert_released, release, status
from workers.api_keys.access import KeyOutOfScopeError, UnknownObjectError
from workers.lifecycle.update_locks import (
    NotTheHolderError,
    UpdateLockHeldError,
    acquire_update_lock,
    held_lock,
    release_update_lock,
)
from workers.models import UpdateLock

pytestmark = pytest.mark.sqlite


MINUTE = timedelta(minutes=1)


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
