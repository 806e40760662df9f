"""Finds a pooler between us and PostgreSQL that `DATABASE_IS_POOLED` does not tell of, by how it behaves.

Behind one that lends a connection for one transaction, what belongs to a connection is somebody else's the next time:
prepared statements, cursors, and the limits that are sent when connecting. Every name and port may lead to one, so the
address tells nothing.
"""

import re
from collections.abc import Callable
from typing import Any

import psycopg
from django.core import checks
from django.db.backends.base.validation import BaseDatabaseValidation

ADVICE = "set DATABASE_IS_POOLED=true, and give the role its limits (docs/operate/scale.md, PgBouncer)"
#: How poolers and their hosts refuse the limits: PgBouncer, Neon, RDS Proxy.
REFUSES_OPTIONS = re.compile(r"startup (parameter|option|package)|command-line options", re.IGNORECASE)
LIMITS = ("lock_timeout", "statement_timeout")

_IN_FORCE = """
SELECT pg_catalog.pg_backend_pid(),
       (SELECT count(*) FROM pg_catalog.pg_settings
         WHERE name IN ('lock_timeout', 'statement_timeout') AND source IN ('client', 'session'))
"""


class UndeclaredPoolerError(psycopg.OperationalError):
    """DATABASE_URL leads to a pooler, and nobody said so; the message names the setting."""


def explain(error: psycopg.OperationalError) -> None:
    """Raises UndeclaredPoolerError for a connection that was refused as only a pooler refuses one."""
    if REFUSES_OPTIONS.search(str(error)):
        message = f"DATABASE_URL leads to a pooler, which refuses the limits that a connection is given: {ADVICE}"
        raise UndeclaredPoolerError(message) from error


def examine(connection: psycopg.Connection[Any], connect: Callable[[], psycopg.Connection[Any]]) -> None:
    """Raises UndeclaredPoolerError unless the connection has its limits and a server's process of its own."""
    connection.autocommit = True
    pid, limits = _ask(connection, _IN_FORCE)
    if limits < len(LIMITS):
        message = f"DATABASE_URL leads to a pooler, which drops the limits that a connection is given: {ADVICE}"
        raise UndeclaredPoolerError(message)
    if pid != connection.info.backend_pid and _is_shared(connection, pid, connect):
        message = f"DATABASE_URL leads to a pooler, which gives each transaction another connection: {ADVICE}"
        raise UndeclaredPoolerError(message)
    connection.autocommit = False


def _is_shared(connection: psycopg.Connection[Any], pid: int, connect: Callable[[], psycopg.Connection[Any]]) -> bool:
    """Whether another connection's transaction gets the server's process of this one, which then gets another."""
    other = connect()
    try:
        return pid in _ask(other, "SELECT pg_catalog.pg_backend_pid()") or pid not in _ask(
            connection, "SELECT pg_catalog.pg_backend_pid()"
        )
    finally:
        other.close()


def _ask(connection: psycopg.Connection[Any], statement: str) -> tuple[int, ...]:
    found: tuple[int, ...] = psycopg.Cursor(connection).execute(statement).fetchone() or ()
    return found


class LimitsOfRole(BaseDatabaseValidation):
    """Behind a declared pooler the role has to have the limits, since nothing can be sent to a connection."""

    def check(self, **_options: Any) -> list[checks.CheckMessage]:
        """controlplane.W001: runs with `check --database default`, before `migrate` and in `doctor`."""
        if not self.connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"]:
            return []
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_catalog.current_setting(name) FROM unnest(%s::text[]) AS limits (name)", [list(LIMITS)]
            )
            missing = [name for name, (value,) in zip(LIMITS, cursor.fetchall(), strict=True) if value == "0"]
        if not missing:
            return []
        role = self.connection.settings_dict["USER"] or "the role"
        text = f"Behind the pooler nothing limits a statement and its waiting: {' and '.join(missing)} of {role} is 0."
        return [
            checks.Warning(
                text, hint="ALTER ROLE ... SET, as docs/operate/scale.md has it (PgBouncer).", id="controlplane.W001"
            )
        ]
