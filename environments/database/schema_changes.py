"""Changes of tables that are in use: starts and heartbeats go on meanwhile, and never fail because of one."""

import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import groupby
from typing import Any

from django.db import migrations
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.migrations.utils import resolve_relation

#: For all locks of a migration together. Shorter than what a start waits for a lock (2 s), since starts queue behind
#: the migration; and than the time after which PostgreSQL ends one of those who wait for each other (1 s), so that it
#: is always the migration that gives way.
LOCKS_WITHIN = timedelta(milliseconds=500)
#: The order in which a start touches tables; it serves while the next release migrates. Whoever waits for a lock of a
#: migration holds what comes before: were that locked later, each would wait for the other. Heartbeats and starts in a
#: queue touch some of these in other orders; so no migration changes more than one of those. A start is two statements,
#: each of which holds its locks for as long as it runs. The drill `upgrade` tries a change beside them.
ORDER = (
    "workers_worker",
    "workers_workerqueue",
    "environments_environment",
    "environments_organization",
    "workers_apikey",
    "environments_temporalconnection",
    "environments_litellmconnection",
    "environments_telemetrysettings",
    "environments_datakey",
    "workers_workerinstance",
    "workers_workerstart",
)
#: The locks of PostgreSQL that a change takes: of a table that is changed, and of one that a foreign key will refer to,
#: which may be read meanwhile.
CHANGED, REFERRED_TO = "ACCESS EXCLUSIVE", "SHARE ROW EXCLUSIVE"


class SchemaChange(migrations.Migration):
    """A migration that takes its locks at once, or none; `manage.py migrate` then tries again.

    On PostgreSQL its SQL is made before the locks are taken, and only run while they are held: Django takes a hundred
    times as long to make it. So an operation has to be made of SQL. What moves rows is a migration of its own, and so
    is an index of a table that grows without end: see `AddIndexMeanwhile`.
    """

    def apply(self, project_state: ProjectState, schema_editor: Any, collect_sql: bool = False) -> ProjectState:  # noqa: FBT001, FBT002  # Django's
        if collect_sql or schema_editor.connection.vendor != "postgresql":
            return super().apply(project_state, schema_editor, collect_sql)
        if any(isinstance(operation, migrations.RunPython) for operation in self.operations):
            message = f"{self}: what moves rows is a migration of its own, which holds no locks on whole tables."
            raise TypeError(message)
        locks = locks_of(self, project_state)
        with schema_editor.connection.schema_editor(collect_sql=True, atomic=False) as maker:
            state = super().apply(project_state, maker)
        give_way_at = time.monotonic() + LOCKS_WITHIN.total_seconds()
        for mode, tables in groupby(locks, key=lambda table: locks[table]):
            left = max(1, round(1000 * (give_way_at - time.monotonic())))
            names = ", ".join(schema_editor.quote_name(table) for table in tables)
            schema_editor.execute(f"SET LOCAL statement_timeout = {left}", params=None)
            schema_editor.execute(f"LOCK TABLE {names} IN {mode} MODE", params=None)
        if locks:
            schema_editor.execute("SET LOCAL statement_timeout TO DEFAULT", params=None)
        for statement in maker.collected_sql:
            schema_editor.execute(statement, params=None)
        return state


def lift_statement_timeout(schema_editor: Any) -> None:
    """Lets what runs in no transaction take its time, until `RESET statement_timeout`.

    Behind a pooler the next statement may run on another connection, and this one then be somebody else's without any
    limit: there the role's stays, and what takes longer wants the server itself (docs/operate/scale.md).
    """
    if not schema_editor.connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"]:
        schema_editor.execute("SET statement_timeout = 0")


class AddIndexMeanwhile(migrations.AddIndex):
    """Makes an index while its table is written, which takes as long as the table is long; in no transaction.

    What an attempt left that was interrupted, as by a lock that it waited for too long, is removed first.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        name = schema_editor.quote_name(self.index.name)
        if schema_editor.connection.vendor != "postgresql":
            schema_editor.execute(f"DROP INDEX IF EXISTS {name}")
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        lift_statement_timeout(schema_editor)
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        schema_editor.add_index(to_state.apps.get_model(app_label, self.model_name), self.index, concurrently=True)
        schema_editor.execute("RESET statement_timeout")


def locks_of(migration: migrations.Migration, state: ProjectState) -> dict[str, str]:
    """The lock of each older table that a migration changes or newly refers to, in the order to take them in."""
    found: dict[tuple[str, str], str] = {}
    for operation in migration.operations:
        for model, mode in _locks_of(operation, migration.app_label):
            if model in state.models and found.get(model) != CHANGED:
                found[model] = mode
    locks = {state.apps.get_model(*model)._meta.db_table: mode for model, mode in found.items()}
    return {
        table: locks[table] for table in sorted(locks, key=lambda name: (name in ORDER and ORDER.index(name) + 1, name))
    }


def _locks_of(operation: Operation, app_label: str) -> Iterator[tuple[tuple[str, str], str]]:
    name = getattr(operation, "model_name", "").lower()
    if name:
        yield (app_label, name), CHANGED
    fields = [field for _, field in getattr(operation, "fields", ())]
    fields.append(getattr(operation, "field", None))
    for field in fields:
        if field is not None and field.remote_field and getattr(field, "db_constraint", True):
            yield resolve_relation(field.remote_field.model, app_label, name), REFERRED_TO
