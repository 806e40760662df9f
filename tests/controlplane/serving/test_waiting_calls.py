"""One tenant's waiting calls, slow bodies and changes leave threads for the workers of others."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from contextlib import ExitStack

import pytest

from controlplane.serving import bulkhead as module
from controlplane.serving.bulkhead import (
    PATIENCE,
    PAUSE,
    Bulkhead,
    Kind,
    TooManyBodiesError,
    bulkhead,
)
from tests.support.calls import start
from tests.support.factories import Fleet


def key_of(organization: str) -> str:
    payload = urlsafe_b64encode(json.dumps({"org": organization}).encode()).decode().rstrip("=")
    return f"Bearer e30.{payload}.c2ln"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is called has been held up."""
    monkeypatch.setattr(module, "HELD_UP", -1.0)


def wait_in_vain(own: Bulkhead, authorization: str, status: int = 503) -> None:
    with own.worker(authorization) as call:
        call.status = status


def may_take_the_last(own: Bulkhead, authorization: str, threads: int) -> bool:
    """Whether it has a thread while all but one are in use."""
    with ExitStack() as stack:
        for _ in range(threads - 1):
            stack.enter_context(own.worker(key_of("another")))
        return stack.enter_context(own.worker(authorization)).has_thread


@pytest.mark.parametrize("threads", [2, 4, 8])
@pytest.mark.parametrize("status", [500, 503])
def test_the_last_thread_is_for_tenants_that_wait_for_nothing(at_once: None, threads: int, status: int) -> None:
    own = Bulkhead(threads)
    assert may_take_the_last(own, key_of("stuck"), threads)
    wait_in_vain(own, key_of("stuck"), status)
    assert not may_take_the_last(own, key_of("stuck"), threads)
    assert may_take_the_last(own, key_of("other"), threads)
    with own.worker(key_of("stuck")) as call:
        assert call.has_thread  # there is more than one left


@pytest.mark.parametrize("status", [200, 204, 404, 409, 422])
def test_a_call_that_only_took_long_changes_nothing(at_once: None, status: int) -> None:
    own = Bulkhead(4)
    wait_in_vain(own, key_of("slow"), status)
    assert may_take_the_last(own, key_of("slow"), 4)


def test_an_error_that_held_up_nobody_changes_nothing() -> None:
    own = Bulkhead(4)
    wait_in_vain(own, key_of("quick"))
    assert may_take_the_last(own, key_of("quick"), 4)


def test_waiting_in_vain_is_forgotten(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Bulkhead(4)
    wait_in_vain(own, key_of("stuck"))
    monkeypatch.setattr(module, "LATELY", -1.0)
    assert may_take_the_last(own, key_of("stuck"), 4)


def test_people_and_readers_count_among_what_is_in_use(at_once: None) -> None:
    own = Bulkhead(4)
    wait_in_vain(own, key_of("stuck"))
    assert own.enter(Kind.PEOPLE)
    assert own.enter(Kind.READERS)
    with own.worker(key_of("other")), own.worker(key_of("stuck")) as call:
        assert not call.has_thread


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Bearer a.b.c", "Bearer a..c", "UserKey é.é.é"])
def test_what_is_no_key_is_nobodys(at_once: None, authorization: str) -> None:
    own = Bulkhead(4)
    wait_in_vain(own, authorization)
    assert not may_take_the_last(own, authorization, 4)
    assert may_take_the_last(own, key_of("other"), 4)


def test_an_organization_is_found_in_a_real_key(fleet: Fleet) -> None:
    assert module.organization_in(f"Bearer {fleet.token}") == fleet.organization.pk


def test_a_call_that_is_not_to_take_the_last_thread_is_503(
    fleet: Fleet, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulkhead, "_in_vain", {})
    wait_in_vain(bulkhead, f"Bearer {fleet.token}")
    with ExitStack() as stack:
        for _ in range(module.THREADS - 1):
            stack.enter_context(bulkhead.worker(key_of("another")))
        response = start(fleet)
        assert response.status_code == 503
        assert int(response["Retry-After"]) > 0
    assert start(fleet).status_code == 200


def test_a_change_waits_for_a_place_while_two_threads_are_left_for_workers() -> None:
    bulkhead, entered = Bulkhead(8, 4), []

    def change() -> None:
        if place := bulkhead.enter_patiently(Kind.READERS):
            entered.append(place)
            time.sleep(PAUSE)
            place.leave()

    changes = [threading.Thread(target=change) for _ in range(6)]
    for each in changes:
        each.start()
    assert sum(each.is_alive() for each in changes) > 2
    assert bulkhead.enter_patiently(Kind.READERS) is None
    assert bulkhead.enter(Kind.READERS) is None
    for each in changes:
        each.join()
    assert len(entered) == len(changes)


def test_a_change_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead(8, 4)
    monkeypatch.setattr(module, "HELD_UP", 0.1)
    for _ in range(2):
        assert bulkhead.enter(Kind.READERS)
    began = time.monotonic()
    assert bulkhead.enter_patiently(Kind.READERS) is None
    assert time.monotonic() - began >= 0.1


def test_bodies_of_one_organization_hold_half_of_the_threads_and_of_each_further_one_a_thread() -> None:
    bulkhead = Bulkhead(8)
    with ExitStack() as sent:
        for _ in range(4):
            sent.enter_context(bulkhead.body("acme"))
        with pytest.raises(TooManyBodiesError):
            sent.enter_context(bulkhead.body("acme"))
        sent.enter_context(bulkhead.body("globex"))
        with pytest.raises(TooManyBodiesError):
            sent.enter_context(bulkhead.body("globex"))
    for organization_id in ("acme", "globex"):
        with bulkhead.body(organization_id):
            pass


def test_a_body_waits_a_moment_for_one_that_is_about_to_end() -> None:
    bulkhead = Bulkhead(2)
    with ExitStack() as sent:
        sent.enter_context(bulkhead.body("acme"))
        threading.Timer(PAUSE, sent.close).start()
        with bulkhead.body("acme"):
            pass


def test_people_and_readers_compute_one_after_the_other_but_do_not_wait_for_long() -> None:
    bulkhead, order = Bulkhead(8), []

    def compute(name: str, seconds: float) -> None:
        with bulkhead.turn():
            order.append(f"{name} begins")
            time.sleep(seconds)
            order.append(f"{name} ends")

    for seconds, expected in (
        (PATIENCE / 4, ["first begins", "first ends", "second begins", "second ends"]),
        (PATIENCE * 3, ["first begins", "second begins", "second ends", "first ends"]),
    ):
        order.clear()
        first = threading.Thread(target=compute, args=("first", seconds))
        first.start()
        while not order:
            time.sleep(0.001)
        compute("second", 0.0)
        first.join()
        assert order == expected
