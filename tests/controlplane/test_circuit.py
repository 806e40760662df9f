"""While the database is away one request at a time finds out whether it is back, and nothing queues behind it."""

import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from django.db import OperationalError
from django.test import Client

from controlplane import circuit as module
from controlplane.circuit import Circuit, circuit
from controlplane.health import readiness_problems
from controlplane.server import THREADS
from tests.factories import Fleet
from tests.workers import assert_refused, fresh_fleet, start


@pytest.fixture
def own() -> Circuit:
    return Circuit()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request may find out at once."""
    monkeypatch.setattr(module, "PAUSE", 0.0)


@pytest.fixture
def opened() -> Iterator[None]:
    circuit.found_away(OperationalError())
    yield
    circuit.close()


def lock_error() -> OperationalError:
    error = OperationalError()
    error.__cause__ = psycopg.errors.LockNotAvailable()
    return error


def test_admits_everything_while_the_database_is_there(own: Circuit) -> None:
    assert all(own.admit().is_granted for _ in range(10))
    assert not own.is_refusing()


def test_one_failure_refuses_everything_for_a_moment(own: Circuit) -> None:
    own.found_away(OperationalError())
    assert not any(own.admit().is_granted for _ in range(10))
    assert own.is_refusing()


def test_after_the_moment_one_request_at_a_time_finds_out(own: Circuit, quick: None) -> None:
    own.found_away(OperationalError())
    assert [own.admit().is_granted for _ in range(5)] == [True, False, False, False, False]


def test_is_closed_when_the_one_that_finds_out_is_answered(own: Circuit, quick: None) -> None:
    own.found_away(OperationalError())
    own.settle(own.admit())
    assert all(own.admit().is_granted for _ in range(5))


def test_stays_open_when_the_one_that_finds_out_fails_too(own: Circuit, quick: None) -> None:
    own.found_away(OperationalError())
    admission = own.admit()
    own.found_away(OperationalError())
    own.settle(admission)
    assert [own.admit().is_granted for _ in range(2)] == [True, False]


def test_an_answer_to_a_request_from_before_says_nothing(own: Circuit) -> None:
    before = own.admit()
    own.found_away(OperationalError())
    own.settle(before)
    assert not own.admit().is_granted


def test_one_that_never_ends_is_followed_by_another(own: Circuit, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_TRIAL", 0.0)
    own.found_away(OperationalError())
    assert all(own.admit().is_granted for _ in range(2))


def test_a_lock_refuses_nobody_else_until_it_holds_up_all_threads(own: Circuit) -> None:
    for _ in range(THREADS - 1):
        own.found_away(lock_error())
        assert own.admit().is_granted
    own.found_away(lock_error())
    assert not own.admit().is_granted


def test_locks_long_ago_are_forgotten(own: Circuit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.01)
    for _ in range(THREADS * 2):
        own.found_away(lock_error())
        time.sleep(0.01)
    assert own.admit().is_granted


# --- In requests -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(db: None) -> Fleet:
    return fresh_fleet()


def test_a_request_is_refused_without_asking_the_database(
    fleet: Fleet, opened: None, django_assert_num_queries: object
) -> None:
    with django_assert_num_queries(0):  # type: ignore[operator]
        response = start(fleet)
    assert_refused(response, 503)
    assert response.json() == {"detail": "The database is not available."}
    assert int(response["Retry-After"]) > 0


def test_a_page_of_the_console_is_refused_too(fleet: Fleet, opened: None) -> None:
    response = Client().get("/admin/login/")
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert b"The database is not available" in response.content


def test_what_needs_no_database_is_served(fleet: Fleet, opened: None) -> None:
    assert Client().get("/livez").status_code == 200
    with closing(Client().get("/static/controlplane/icon.svg")) as icon:
        assert icon.status_code == 200


def test_is_not_ready_as_long_as_it_refuses(fleet: Fleet, opened: None) -> None:
    assert readiness_problems() == ["The database is not available."]
    assert Client().get("/readyz").status_code == 503
    circuit.close()
    assert readiness_problems() == []


def test_the_first_request_after_the_moment_brings_it_back(fleet: Fleet, quick: None, opened: None) -> None:
    assert start(fleet).status_code == 200
    assert circuit.admit().trial_until is None
