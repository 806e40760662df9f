"""A silent PostgreSQL is one that is away: its processes stand still, while its connections stay open."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection, connections, transaction

from controlplane.engines.circuit import Circuit
from controlplane.engines.postgresql.base import DatabaseWrapper
from controlplane.engines.troubles import Trouble, trouble_of
from tests.support.circuits import Probe, wait_until

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL only")
LONGEST = 0.5


@pytest.fixture
def database(db: None) -> Iterator[DatabaseWrapper]:
    """Connections of its own, with short bounds."""
    options = {**connection.settings_dict["OPTIONS"], "longest_answer": LONGEST}
    wrapper = DatabaseWrapper({**connection.settings_dict, "OPTIONS": options}, "silent")
    wrapper.inc_thread_sharing()
    connections["silent"] = wrapper
    wrapper.connect()
    yield wrapper
    wrapper.close()
    del connections["silent"]


@contextmanager
def silent(database: DatabaseWrapper) -> Iterator[None]:
    """The server's process for this connection stands still."""
    pid = database.connection.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ask(database: DatabaseWrapper, statement: str = "SELECT 1") -> Any:
    with database.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def test_a_statement_that_is_not_answered_is_given_up(database: DatabaseWrapper) -> None:
    with silent(database):
        before = time.monotonic()
        with pytest.raises(OperationalError):
            ask(database)
        assert LONGEST <= time.monotonic() - before < LONGEST + 1
        assert database.connection.closed


def test_nobody_connects_to_a_silent_server_but_the_one_that_finds_out(
    database: DatabaseWrapper, used: Circuit, probe: Probe
) -> None:
    probe.is_there = False
    with silent(database), pytest.raises(OperationalError):
        ask(database)
    database.close()
    with pytest.raises(OperationalError, match="a moment ago"):
        ask(database)
    assert used.is_open()
    probe.is_there = True
    wait_until(lambda: not used.is_open())
    assert ask(database) == 1


def test_a_slow_statement_of_a_server_that_answers_others_is_its_callers_trouble(
    database: DatabaseWrapper, used: Circuit
) -> None:
    with pytest.raises(OperationalError) as raised, transaction.atomic(using="silent"):
        ask(database, "SELECT pg_sleep(5)")
    assert trouble_of(raised.value) is Trouble.BUSY
    assert not used.is_open()
    database.close()
    assert ask(database) == 1


def test_the_check_of_an_idle_connection_asks_nothing(database: DatabaseWrapper) -> None:
    with silent(database):
        before = time.monotonic()
        assert database.is_usable()
        assert time.monotonic() - before < LONGEST


def test_a_connection_that_is_not_idle_is_asked(database: DatabaseWrapper) -> None:
    database.connection.pgconn.send_query(b"BEGIN; SELECT 1/0")
    assert not database.is_usable()


def test_a_connection_that_was_cut_is_replaced_at_once(database: DatabaseWrapper) -> None:
    database.health_check_enabled, database.health_check_done = True, False
    with psycopg.connect(os.environ["DATABASE_URL"]) as server:
        # It only signals unless it is given some time: then it waits until the process is gone.
        server.execute("SELECT pg_terminate_backend(%s, 10000)", [database.connection.info.backend_pid])
    assert ask(database) == 1


def test_a_command_waits_as_long_as_the_server_does(database: DatabaseWrapper) -> None:
    database.close()
    database.settings_dict["OPTIONS"]["longest_answer"] = None
    database.connect()
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [LONGEST * 2])


def test_requests_have_the_bound(db: None) -> None:
    with transaction.atomic():
        connection.ensure_connection()
        assert connection.connection.longest_answer == 3
