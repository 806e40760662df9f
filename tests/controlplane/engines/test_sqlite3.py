"""SQLite's writers take turns: each looks for the lock often, and gives up in bounded time."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction

from controlplane.engines.sqlite3.base import DatabaseWrapper
from controlplane.startup import env

pytestmark = pytest.mark.sqlite

PATIENCE = 0.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "database.sqlite3"


@pytest.fixture
def database(path: Path, db: None) -> Iterator[DatabaseWrapper]:
    """A database of its own, known to Django as `own`, with little patience."""
    settings = {**connections["default"].settings_dict, **env.database(f"sqlite:///{path}")}
    settings["OPTIONS"]["timeout"] = PATIENCE
    wrapper = DatabaseWrapper(settings, "own")
    connections["own"] = wrapper
    execute(wrapper, "CREATE TABLE seen (number INTEGER)")
    yield wrapper
    wrapper.close()
    del connections["own"]


@contextmanager
def lock(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else's transaction holds the lock for writing."""
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    yield writer
    writer.close()


def execute(database: DatabaseWrapper, statement: str) -> list[tuple[object, ...]]:
    with database.cursor() as cursor:
        return list(cursor.execute(statement))


def insert(database: DatabaseWrapper) -> None:
    execute(database, "INSERT INTO seen VALUES (1)")


def insert_in_transaction(database: DatabaseWrapper) -> None:
    with transaction.atomic(using="own"):
        insert(database)


@pytest.mark.parametrize("write", [insert, insert_in_transaction])
def test_a_writer_gets_the_lock_as_soon_as_it_is_free(database: DatabaseWrapper, path: Path, write: object) -> None:
    with lock(path) as writer:
        threading.Timer(0.2, writer.rollback).start()
        write(database)  # type: ignore[operator]
    assert execute(database, "SELECT number FROM seen") == [(1,)]


@pytest.mark.parametrize("write", [insert, insert_in_transaction])
def test_a_writer_gives_up_in_bounded_time_and_has_written_nothing(
    database: DatabaseWrapper, path: Path, write: object
) -> None:
    with lock(path):
        before = time.monotonic()
        with pytest.raises(OperationalError, match="locked"):
            write(database)  # type: ignore[operator]
        assert PATIENCE <= time.monotonic() - before < PATIENCE + 1
    assert execute(database, "SELECT number FROM seen") == []
    write(database)  # type: ignore[operator]
    assert execute(database, "SELECT number FROM seen") == [(1,)]


def test_looks_for_the_lock_often(database: DatabaseWrapper, path: Path) -> None:
    tries = 0

    def insert_once() -> None:
        nonlocal tries
        tries += 1
        database.connection.execute("INSERT INTO seen VALUES (1)")

    database.ensure_connection()
    with lock(path), pytest.raises(sqlite3.OperationalError):
        database.connection.patiently(insert_once)
    assert tries > 20


def test_readers_do_not_wait_for_a_writer(database: DatabaseWrapper, path: Path) -> None:
    with lock(path):
        before = time.monotonic()
        execute(database, "SELECT number FROM seen")
        assert time.monotonic() - before < PATIENCE


def test_another_error_is_told_at_once(database: DatabaseWrapper) -> None:
    before = time.monotonic()
    with pytest.raises(DatabaseError, match="no such table"):
        execute(database, "SELECT 1 FROM unknown")
    assert time.monotonic() - before < PATIENCE
