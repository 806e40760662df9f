"""The reference floor's two databases, each with one transaction for a start and one statement for a heartbeat."""

import json
import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from tests.bench.reference import tables

#: Of a process of the reference's server.
THREADS = 2
#: Seconds that a writer waits for SQLite's one lock, and the longest pause before it looks again.
PATIENCE, PAUSE = 10.0, 0.006


class Caller(NamedTuple):
    """Who calls, by a token that was verified, and when."""

    api_key_id: UUID
    digest: str
    now: datetime


class Postgresql:
    """A pool with a connection for each thread."""

    def __init__(self, url: str) -> None:
        settings = {"autocommit": True, "prepare_threshold": 0}
        self._pool = ConnectionPool(url, min_size=THREADS, max_size=THREADS, kwargs=settings, open=True)

    def start(self, worker_id: UUID, caller: Caller, system_info: Any) -> tuple[Any, ...] | None:
        """The worker's configuration, when its start is recorded; None when worker or key is not good."""
        key_id, digest, now = caller
        with self._pool.connection() as connection, connection.transaction():
            row = connection.execute(tables.READ, (key_id, digest, now, worker_id)).fetchone()
            if row:
                connection.execute(tables.NOTE, (now, worker_id))
                connection.execute(tables.RECORD, (worker_id, key_id, now, Jsonb(system_info)))
        return row

    def beat(self, worker_id: UUID, caller: Caller) -> bool:
        """Whether the heartbeat was noted."""
        key_id, digest, now = caller
        with self._pool.connection() as connection:
            return connection.execute(tables.BEAT, (now, worker_id, key_id, digest, now)).rowcount == 1

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Runs a statement for each row, in one transaction; to fill tables."""
        with self._pool.connection() as connection, connection.transaction():
            connection.cursor().executemany(statement, rows)

    def create(self) -> None:
        """Makes the tables."""
        with self._pool.connection() as connection:
            connection.execute(tables.TABLES.format_map(tables.POSTGRESQL), prepare=False)

    def close(self) -> None:
        self._pool.close()


class Sqlite:
    """A connection for each thread, as durable as the product's, whose waiting for the lock it has, too."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._threads = threading.local()

    def start(self, worker_id: UUID, caller: Caller, system_info: Any) -> tuple[Any, ...] | None:
        """As on PostgreSQL."""
        key_id, digest, now = _texts(caller)
        connection, worker = self._connection(), str(worker_id)
        _patiently(connection, "BEGIN IMMEDIATE")
        try:
            row: tuple[Any, ...] | None
            row = connection.execute(_READ, (key_id, digest, now, worker)).fetchone()
            if row:
                connection.execute(_NOTE, (now, worker))
                connection.execute(_RECORD, (worker, key_id, now, json.dumps(system_info)))
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return row

    def beat(self, worker_id: UUID, caller: Caller) -> bool:
        """As on PostgreSQL."""
        key_id, digest, now = _texts(caller)
        return _patiently(self._connection(), _BEAT, (now, str(worker_id), key_id, digest, now)).rowcount == 1

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """As on PostgreSQL."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            connection.executemany(_in_sqlite(statement), [[_text(value) for value in row] for row in rows])

    def create(self) -> None:
        """As on PostgreSQL."""
        self._connection().executescript(tables.TABLES.format_map(tables.SQLITE))

    def close(self) -> None:
        """Closes the connection of this thread."""
        self._connection().close()

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._threads, "connection"):
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            connection.executescript("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL;")
            _patiently(connection, "PRAGMA journal_mode = WAL")
            self._threads.connection = connection
        found: sqlite3.Connection = self._threads.connection
        return found


def _patiently(connection: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.001, PAUSE))  # noqa: S311  # no secret


def _texts(caller: Caller) -> tuple[str, str, str]:
    return str(caller.api_key_id), caller.digest, caller.now.isoformat()


def _text(value: Any) -> Any:
    match value:
        case UUID():
            return str(value)
        case datetime():
            return value.isoformat()
    return value


def _in_sqlite(statement: str) -> str:
    return statement.replace("%s", "?")


_READ, _NOTE, _RECORD, _BEAT = map(_in_sqlite, (tables.READ, tables.NOTE, tables.RECORD, tables.BEAT))


def open_database(url: str) -> Postgresql | Sqlite:
    """The database of `postgresql://...` or `sqlite:///path`."""
    return Sqlite(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else Postgresql(url)
