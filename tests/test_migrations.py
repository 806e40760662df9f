"""Migrations run forward, back and forward again on a database of their own, on the engine of the run."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.db.migrations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterModelTable,
    CreateModel,
    DeleteModel,
    Migration,
    RemoveField,
    RenameField,
    RenameModel,
)
from django.db.migrations.loader import MigrationLoader

from controlplane.releases import EARLIER, OUR_APPS
from environments.database.schema_changes import (
    CHANGED,
    ORDER,
    AddConstraintUnchecked,
    AddIndexMeanwhile,
    DropIndexMeanwhile,
    SchemaChange,
    locks_of,
)
from tests.databases import fresh_database
from tests.processes import ROOT
from workers.lifecycle import circumstances, starts

pytestmark = [pytest.mark.sqlite, pytest.mark.xdist_group("migrations")]  # together, since they share what takes long

#: Migrates and prints, after each step, what the database holds of ours: tables, triggers, functions, indexes.
SCRIPT = """
import json, sys
import django
django.setup()
from django.core.management import call_command
from django.apps import apps
from django.db import connection

def ours():
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT 'table ' || table_name FROM information_schema.tables WHERE table_schema = 'public' UNION "
                "SELECT 'trigger ' || trigger_name FROM information_schema.triggers UNION "
                "SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace UNION "
                "SELECT 'constraint ' || conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
            )
        else:
            cursor.execute("SELECT type || ' ' || name || ' ' || COALESCE(sql, '') FROM sqlite_master")
        rows = [row for row, in cursor.fetchall()]
    return sorted(row for row in rows if "environments_" in row or "workers_" in row)

steps = [("migrate",), ("migrate", "workers", "zero"), ("migrate", "environments", "zero"), ("migrate",)]
answers = []
for step in steps:
    call_command(*step, verbosity=0, interactive=False)
    answers.append(ours())
print(json.dumps(answers))
"""


def run(*command: str, database_url: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, *command], cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def steps() -> Any:
    return json.loads(run("-c", SCRIPT, database_url=fresh_database("migrations")).stdout)


def test_forward_from_nothing_makes_tables_and_triggers(steps: Any) -> None:
    everything = " ".join(steps[0])
    for name in (
        "workers_worker",
        "environments_organization",
        "workers_workerstart_append_only",
        "environments_auditevent_append_only",
    ):
        assert name in everything


def test_back_to_nothing_leaves_nothing_of_the_workers(steps: Any) -> None:
    assert not [row for row in steps[1] if "workers_" in row]
    assert [row for row in steps[1] if "environments_" in row]


def test_back_to_nothing_leaves_nothing_at_all(steps: Any) -> None:
    assert steps[2] == []


def test_forward_again_makes_the_same_as_the_first_time(steps: Any) -> None:
    assert steps[3] == steps[0]


def test_the_migrations_are_complete() -> None:
    done = run("manage.py", "makemigrations", "--check", "--dry-run", database_url=os.environ["DATABASE_URL"])
    assert "No changes detected" in done.stdout


@pytest.mark.django_db
def test_every_constraint_of_the_models_is_in_the_database() -> None:
    for app in ("environments", "workers"):
        for model in apps.get_app_config(app).get_models():
            with connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    cursor.execute(
                        "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass UNION "
                        "SELECT indexname FROM pg_indexes WHERE tablename = %s",
                        [model._meta.db_table, model._meta.db_table],
                    )
                else:
                    cursor.execute(
                        "SELECT name || ' ' || sql FROM sqlite_master WHERE tbl_name = %s", [model._meta.db_table]
                    )
                found = " ".join(str(row[0]) for row in cursor.fetchall())
            missing = [item.name for item in (*model._meta.constraints, *model._meta.indexes) if item.name not in found]
            assert not missing, (model, missing)


# --- While the release before runs on --------------------------------------------------------------------------------------


#: The models whose rows are as many as what ever happened.
GROWING = {"workerstart", "workerinstance", "auditevent"}
#: The tables that starts, starts in a queue and heartbeats touch in different orders.
IN_ANY_ORDER = {"workers_apikey", "workers_worker", "workers_workerqueue", "workers_workerinstance"}


def newer() -> dict[tuple[str, str], Migration]:
    """Our migrations that the release before does not have, by app and name."""
    loader = MigrationLoader(None)
    known = {key for leaf in EARLIER[-1].last_migrations.items() for key in loader.graph.forwards_plan(leaf)}
    keys = sorted(key for key in set(loader.disk_migrations) - known if key[0] in OUR_APPS)
    return {key: loader.disk_migrations[key] for key in keys}


def test_the_release_before_can_write_rows_without_knowing_the_new_columns() -> None:
    operations = [(key, operation) for key, migration in newer().items() for operation in migration.operations]
    made = {(app, operation.name_lower) for (app, _), operation in operations if isinstance(operation, CreateModel)}
    added = [(key, operation) for key, operation in operations if isinstance(operation, AddField)]
    columns = [(key, operation) for key, operation in added if (key[0], operation.model_name_lower) not in made]
    assert [
        f"{key}: {operation.model_name}.{operation.name} needs null=True or db_default"
        for key, operation in columns
        if not (operation.field.null or operation.field.generated or operation.field.has_db_default())
    ] == []


def test_the_release_before_finds_everything_that_it_knows() -> None:
    """What is not needed any more leaves the models in one release and the database in the next."""
    taking = (RemoveField, RenameField, RenameModel, DeleteModel, AlterModelTable)
    operations = [(key, operation) for key, migration in newer().items() for operation in migration.operations]
    assert [f"{key}: {operation}" for key, operation in operations if isinstance(operation, taking)] == []


@pytest.mark.django_db
def test_every_table_that_a_start_touches_has_its_place_in_the_order_of_locks() -> None:
    """In which order the release before touches them, the drill `upgrade` tries."""
    text = " ".join(statement._compile()[0] for statement in (circumstances._OF_WORKER, starts._START))
    touched = dict.fromkeys(re.findall(r'(?:FROM|JOIN|INTO) "?(\w+)"?', text))
    assert set(touched) - {"workers_pulse", "workers_outage"} == set(ORDER)


def test_a_migration_of_tables_in_use_gives_way_to_starts() -> None:
    loader = MigrationLoader(None)
    for key, migration in newer().items():
        locks = locks_of(migration, loader.project_state(key, at_end=False))
        if isinstance(migration, SchemaChange):
            growing = {
                (operation.index if isinstance(operation, AddIndex) else operation.constraint).name
                for operation in migration.operations
                if isinstance(operation, (AddIndex, AddConstraint)) and operation.model_name in GROWING
                if not isinstance(operation, AddConstraintUnchecked)
            }
            changed = {table for table, mode in locks.items() if mode == CHANGED} & IN_ANY_ORDER
            assert len(changed) <= 1, f"{key} changes {changed}: somebody touches them the other way round"
            assert not growing, (
                f"{key} holds starts up for as long as {growing} takes: AddIndexMeanwhile and AddConstraintUnchecked do not"
            )
            continue
        if all(isinstance(operation, (AddIndexMeanwhile, DropIndexMeanwhile)) for operation in migration.operations):
            assert not migration.atomic
            continue
        assert not locks, f"{key} changes {set(locks)}: let it be a SchemaChange"
