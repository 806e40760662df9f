"""SQLite, whose writers take turns more evenly.

SQLite's own waiting looks for the lock ever more rarely, up to every tenth of a second: with many writers some are then
overtaken for seconds. Looking often and at odd times gives each the same chance.
"""

import random
import sqlite3
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base

from controlplane.engines.troubles import ErrorWrapper, Trouble, trouble_in_code
from controlplane.engines.turns import turns
from controlplane.startup import private_files

#: Longest pause, in seconds, before looking again.
PAUSE = 0.006


class PatientCursor(base.SQLiteCursorWrapper):
    """A cursor that waits for the lock, as long as its connection has patience; `executemany` may be half done."""

    connection: "PatientConnection"

    def execute(self, *arguments: Any) -> Any:
        return self.connection.patiently(super().execute, *arguments)


class PatientConnection(sqlite3.Connection):
    """A connection that tries again what found the database locked; inside of a transaction nothing does."""

    patience = 0.0

    def patiently[**P, R](self, action: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Does it; sqlite3.OperationalError when the database is still locked after `patience` seconds.

        The error's `is_stuck` tells that nobody has written all the while, so that one holder keeps everybody waiting.
        """
        deadline = time.monotonic() + self.patience
        version = None
        while True:
            try:
                return action(*arguments, **named)
            except sqlite3.OperationalError as error:
                is_locked = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
                if not is_locked or self.in_transaction:
                    raise
                if time.monotonic() > deadline:
                    error.is_stuck = version == self._version()  # type: ignore[attr-defined]
                    raise
            version = version or self._version()
            with turns.left():
                time.sleep(random.uniform(0.001, PAUSE))  # noqa: S311  # no secret

    def _version(self) -> int:
        """Another one whenever another connection has committed something."""
        return int(self.execute("PRAGMA data_version").fetchone()[0])


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's engine with this waiting: OPTIONS has `timeout`, in seconds, as always."""

    @cached_property
    def wrap_database_errors(self) -> ErrorWrapper:
        return ErrorWrapper(self)

    def trouble_in(self, error: sqlite3.Error) -> Trouble:
        """What an error says that was just raised here."""
        if getattr(error, "is_stuck", False):
            return Trouble.AWAY
        code = getattr(error, "sqlite_errorcode", None)
        return Trouble.OURS if code is None else trouble_in_code(code, str(error))

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if not self.is_in_memory_db():
            private_files.create(Path(conn_params["database"]))
        patience = conn_params["timeout"]
        connection = super().get_new_connection({**conn_params, "factory": PatientConnection})
        connection.patience = patience
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def create_cursor(self, name: str | None = None) -> Any:  # noqa: ARG002  # Django's signature
        return self.connection.cursor(factory=PatientCursor)
