"""Changes of tables that are in use: starts and heartbeats go on meanwhile, and never fail because of one."""

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

from django.db import migrations
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.migrations.utils import resolve_relation

from environments.database.tenancy import SameOrganization

#: For all locks of a migration together. Shorter than what a start waits for a lock (2 s), since starts queue behind
#: the migration; and than the time after which PostgreSQL ends one of those who wait for each other (1 s), so that it
#: is always the migration that gives way.
LOCKS_WITHIN = timedelta(milliseconds=500)
#: The order in which a start of the release before touches tables, which serves while this one migrates. Whoever waits
#: for a lock of a migration holds what comes before: were that locked later, each would wait for the other. Heartbeats,
#: and starts in a queue, touch keys, workers, queues and processes in other orders; so no migration changes more than
#: one of these. The drill `upgrade` runs that release. A start of this one is two statements, each of which holds its
#: locks for as long as it runs; its order is the one that the next release's migrations have to keep.
ORDER = (
    "workers_apikey",
    "workers_worker",
    "environments_organization",
    "environments_temporalconnection",
    "environments_litellmconnection",
    "environments_telemetrysettings",
    "environments_datakey",
    "workers_workerqueue",
    "environments_environment",
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


class AddFieldUnlessThere(migrations.AddField):
    """Adds a column, unless it is there from before it had a migration of its own."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        table = to_state.apps.get_model(app_label, self.model_name)._meta.db_table
        with schema_editor.connection.cursor() as cursor:
            columns = schema_editor.connection.introspection.get_table_description(cursor, table)
        if self.name not in {column.name for column in columns}:
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class AddIndexMeanwhile(migrations.AddIndex):
    """Makes an index while its table is written, which takes as long as the table is long; in no transaction.

    What an attempt left that was interrupted, as by a lock that it waited for too long, is removed first, and so is an
    index of that name from before it had a migration of its own.
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


class DropIndexMeanwhile(migrations.RunSQL):
    """Drops an index that Django made by itself, while its table is written; in no transaction.

    It goes by its name: Django, told that the field has none, would drop all that are on the same column. Without
    `columns` taking it back leaves it dropped.
    """

    def __init__(self, name: str, columns: str = "", state_operations: Sequence[Operation] = ()) -> None:
        self.name = name
        made_again = f"CREATE INDEX {name} ON {columns}" if columns else self.noop
        super().__init__(f"DROP INDEX IF EXISTS {name}", made_again, state_operations)

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {self.name}")
        else:
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class AddConstraintUnchecked(migrations.AddConstraint):
    """Adds a foreign key of ours without looking at the rows that are there, which may be many.

    New rows are looked at; a later migration, in no `SchemaChange`, validates the others.
    """

    constraint: SameOrganization

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        schema_editor.execute(f"{self.constraint.create_sql(model, schema_editor)} NOT VALID")


def locks_of(migration: migrations.Migration, state: ProjectState) -> dict[str, str]:
    """The lock of each older table that a migration changes or newly refers to, in the order to take them in."""
    found: dict[tuple[str, str], str] = {}
    for operation in migration.operations:
        for model, mode in _locks_of(operation, migration.app_label, state):
            if model in state.models and found.get(model) != CHANGED:
                found[model] = mode
    locks = {state.apps.get_model(*model)._meta.db_table: mode for model, mode in found.items()}
    return {
        table: locks[table] for table in sorted(locks, key=lambda name: (name in ORDER and ORDER.index(name) + 1, name))
    }


def _locks_of(operation: Operation, app_label: str, state: ProjectState) -> Iterator[tuple[tuple[str, str], str]]:
    name = getattr(operation, "model_name", "").lower()
    if name:
        yield (app_label, name), CHANGED
    fields = [field for _, field in getattr(operation, "fields", ())]
    fields.append(getattr(operation, "field", None))
    if isinstance(operation, AddConstraintUnchecked):
        fields.append(state.models[app_label, name].fields[operation.constraint.pointer])
    for field in fields:
        if field is not None and field.remote_field and getattr(field, "db_constraint", True):
            yield resolve_relation(field.remote_field.model, app_label, name), REFERRED_TO
