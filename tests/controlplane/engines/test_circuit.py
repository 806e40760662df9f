"""While the database is away nothing queues behind it, and the circuit finds out by itself when it is back."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from django.test import Client

from controlplane.api.health import readiness_problems
from controlplane.engines.circuit import Circuit, circuit
from tests.support.calls import assert_refused, start
from tests.support.circuits import Probe, wait_until
from tests.support.factories import Fleet

pytestmark = pytest.mark.sqlite

#: Requests that arrive at once.
BURST = 40


@pytest.fixture
def asked() -> Probe:
    return Probe()


@pytest.fixture
def own(asked: Probe) -> Iterator[Circuit]:
    """A circuit of a process that serves requests."""
    own = Circuit(asked)
    own.is_used = True
    yield own
    asked.is_there = True
    wait_until(lambda: not own.is_looking())


def test_is_closed_while_nothing_was_found(own: Circuit) -> None:
    assert not own.is_open()
    assert own.may_connect()


def test_opens_at_once_and_closes_by_itself_as_soon_as_the_database_answers(own: Circuit, asked: Probe) -> None:
    asked.is_there = False
    own.found_away()
    assert own.is_open()
    wait_until(lambda: asked.asked > 2)
    assert own.is_open()
    asked.is_there = True
    wait_until(lambda: not own.is_open())


def test_after_a_false_alarm_a_burst_passes_though_no_request_came_meanwhile(own: Circuit) -> None:
    own.found_away()
    wait_until(lambda: not own.is_open())
    with ThreadPoolExecutor(BURST) as pool:
        assert not any(pool.map(lambda _: own.is_open(), range(BURST)))


def test_one_thread_finds_out_however_many_find_it_away(own: Circuit, asked: Probe) -> None:
    asked.is_there = False
    before = threading.active_count()
    for _ in range(BURST):
        own.found_away()
    assert threading.active_count() == before + 1
    asked.is_there = True
    wait_until(lambda: not own.is_looking())
    assert threading.active_count() == before


def test_a_suspicion_refuses_nobody_unless_it_proves_true(own: Circuit, asked: Probe) -> None:
    own.suspect()
    assert not own.is_open()
    wait_until(lambda: asked.asked == 1 and not own.is_looking())
    assert not own.is_open()
    asked.is_there = False
    own.suspect()
    wait_until(own.is_open)


def test_a_failure_of_the_look_itself_says_nothing_of_the_database(own: Circuit) -> None:
    def fail() -> None:
        raise RuntimeError

    own.probe = fail
    own.suspect()
    wait_until(lambda: not own.is_looking())
    assert not own.is_open()


def test_only_a_silent_database_keeps_threads_from_connecting(own: Circuit, asked: Probe) -> None:
    asked.is_there = False
    own.found_away()
    assert own.may_connect()
    own.found_away(is_silent=True)
    assert not own.may_connect()
    own.close()
    assert own.may_connect()


def test_a_command_goes_on_trying(asked: Probe) -> None:
    commands = Circuit(asked)
    commands.found_away(is_silent=True)
    assert not commands.is_open()
    assert commands.may_connect()
    assert asked.asked == 0


# --- In requests -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(probe: Probe) -> None:
    probe.is_there = False
    circuit.found_away()


def test_a_request_is_refused_without_asking_the_database(
    fleet: Fleet, opened: None, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
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


def test_is_served_again_as_soon_as_the_circuit_has_found_out(fleet: Fleet, opened: None, probe: Probe) -> None:
    probe.is_there = True
    wait_until(lambda: not circuit.is_open())
    assert start(fleet).status_code == 200
