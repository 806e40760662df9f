"""Notices that the database is older than what was served: restored from a backup, or copied.

What such a database says of keys, roles and secrets was true once. A revoked API key is good again in it, so nothing is
served until an operator has run `accept_restore`.

Two things tell. A mark in the database says which one it was made in: in PostgreSQL the cluster, the database and the
mark's own table, which a restored dump makes anew, in SQLite the file. And whoever serves remembers the latest events
of the audit trail, which never loses one: that tells of a recovery in place, and with SQLite, where they are kept in a
file beside the database's, of a copy that was put in its place. A failover that loses nothing is neither.
"""

import json
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import connection

from controlplane.models import DatabaseMark
from controlplane.startup import private_files
from environments.models import AuditEvent

#: How many events of the audit trail are remembered: those of one moment may be committed in any order.
REMEMBERED = 20
ADVICE = "Run python manage.py accept_restore (docs/operate/operations.md, Backup)."
RESTORED = f"This database was restored or copied: what was revoked since may be good again in it. {ADVICE}"

_IDENTITY = """
SELECT (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
       %s::pg_catalog.regclass::pg_catalog.oid
"""
_CONTROL = """
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())
"""
_MAY_CONTROL = """
SELECT bool_and(coalesce(pg_catalog.has_function_privilege(pg_catalog.to_regprocedure(name), 'EXECUTE'), false))
FROM (VALUES ('pg_catalog.pg_control_system()'), ('pg_catalog.pg_control_checkpoint()')) AS functions (name)
"""


def identify() -> tuple[str, int | None]:
    """Which database this is, and PostgreSQL's timeline where it may be asked."""
    if connection.vendor != "postgresql":
        return f"file {_path().stat().st_ino}", None
    with connection.cursor() as cursor:
        database, table = _row(cursor, _IDENTITY, [DatabaseMark._meta.db_table])
        (may_ask,) = _row(cursor, _MAY_CONTROL)
        cluster, timeline = _row(cursor, _CONTROL) if may_ask else ("", None)
    return f"cluster {cluster} database {database} table {table}", timeline


def mark(now: datetime) -> DatabaseMark:
    """Says from now on that this database is the one to serve."""
    identity, timeline = identify()
    values = {"identity": identity, "timeline": timeline, "doubt": "", "marked_at": now}
    return DatabaseMark.objects.update_or_create(pk=1, defaults=values)[0]


def mark_new_database(now: datetime) -> None:
    """Marks a database that has no mark; one that has keeps it, whatever it says."""
    if DatabaseMark._meta.db_table in connection.introspection.table_names() and not DatabaseMark.objects.exists():
        mark(now)


def changed_timeline() -> tuple[int, int] | None:
    """PostgreSQL's timeline when the mark was made and now, when these differ: the server was recovered or replaced."""
    before = DatabaseMark.objects.values_list("timeline", flat=True).first()
    after = identify()[1]
    return (before, after) if before and after and before != after else None


class Memory:
    """The latest events of the audit trail that somebody has seen; they are looked for in the database from then on."""

    def __init__(self) -> None:
        self._seen = _read()
        self._marked_at: datetime | None = None

    def problem(self) -> str:
        """Why the database must not be served, in words for an operator; empty when it may be. Changes nothing."""
        found = DatabaseMark.objects.first()
        if found is None or found.identity != identify()[0]:
            return RESTORED
        if self._marked_at and found.marked_at > self._marked_at:  # somebody has accepted what is missing
            self._seen = set()
        self._marked_at = found.marked_at
        lost = len(self._seen) - AuditEvent.objects.filter(pk__in=self._seen).count()
        doubt = f"Events that were seen in its audit trail are missing: {lost} of the latest." if lost else found.doubt
        return f"The database went back in time. {doubt} {ADVICE}" if doubt else ""

    def keep(self) -> str:
        """The same, which all processes know from then on; what is there is remembered unless something is missing."""
        problem = self.problem()
        if not problem:
            self._remember(set(AuditEvent.objects.order_by("-occurred_at").values_list("pk", flat=True)[:REMEMBERED]))
        elif problem != RESTORED:
            doubt = "A process found events of its audit trail missing."
            DatabaseMark.objects.filter(doubt="").update(doubt=doubt)
        return problem

    def _remember(self, latest: set[UUID]) -> None:
        if latest != self._seen:
            self._seen = latest
            _write(latest)


def forget() -> None:
    """Lets what was seen and is missing be missing."""
    if path := _file():
        path.unlink(missing_ok=True)


def _row(cursor: Any, statement: str, parameters: list[Any] | None = None) -> tuple[Any, ...]:
    cursor.execute(statement, parameters)
    found: tuple[Any, ...] = cursor.fetchone()
    return found


def _path() -> Path:
    return Path(connection.settings_dict["NAME"]).resolve()


def _file() -> Path | None:
    """Where SQLite's events are kept beside the database; PostgreSQL's have no place that all machines share."""
    return _path().with_name(f"{_path().name}-seen") if connection.vendor == "sqlite" else None


def _read() -> set[UUID]:
    with suppress(OSError, ValueError, TypeError, AttributeError):
        if path := _file():
            return {UUID(text) for text in json.loads(path.read_text())}
    return set()


def _write(seen: set[UUID]) -> None:
    """Replaces the file at once; in a folder that takes no files none is kept."""
    if path := _file():
        new = path.with_name(f"{path.name}-{os.getpid()}")
        with suppress(OSError):
            new.unlink(missing_ok=True)
            private_files.create(new)
            new.write_text(json.dumps(sorted(map(str, seen))))
            new.replace(path)
