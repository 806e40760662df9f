"""Migrations run forward, back and forward again on a database of their own, on the engine of the run."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, models
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
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from controlplane.releases import EARLIER, OUR_APPS
from environments.database.schema_changes import CHANGED, ORDER, AddIndexMeanwhile, SchemaChange, locks_of
from tests.drills.next_release import write_migrations
from tests.support.databases import fresh_database
from tests.support.processes import ROOT
from workers.lifecycle import circumstances, starts

pytestmark = [
    pytest.mark.sqlite,
    pytest.mark.processes,
    pytest.mark.xdist_group("migrations"),
]  # together, since they share what takes long

#: Migrates and prints, after each step, what the database holds of ours: tables, triggers, functions, indexes.
SCRIPT = """
import json, sys
import django
django.setup()
from django.core.management import call_command
from django.apps import apps
from django.db import connection, models

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
IN_ANY_ORDER = {f"workers_{name}" for name in ("apikey", "worker", "workerqueue", "workerinstance", "workerstart")}
#: What is not needed any more leaves the models in one release and the database in the next.
TAKING = (RemoveField, RenameField, RenameModel, DeleteModel, AlterModelTable)


def newer() -> list[Migration]:
    """Our migrations that the latest release does not have; those of the first one have nobody to consider."""
    loader = MigrationLoader(None)
    last = EARLIER[-1].last_migrations.items() if EARLIER else ()
    known = {key for leaf in last for key in loader.graph.forwards_plan(leaf)}
    found = (loader.disk_migrations[key] for key in sorted(set(loader.disk_migrations) - known) if key[0] in OUR_APPS)
    return [migration for migration in found if not migration.initial]


def problems_of(migration: Migration, state: ProjectState) -> list[str]:
    """What would make the release before fail, or wait, while it serves."""
    return [*_problems_of_rows(migration), *_problems_of_locks(migration, state)]


def _problems_of_rows(migration: Migration) -> Iterator[str]:
    made = {operation.name_lower for operation in migration.operations if isinstance(operation, CreateModel)}
    for operation in migration.operations:
        if isinstance(operation, TAKING):
            yield f"{operation} takes away what the release before knows"
        if isinstance(operation, AddField) and operation.model_name_lower not in made:
            field = operation.field
            if not (field.null or field.generated or field.has_db_default()):
                yield f"{operation.name} needs null=True or db_default"


def _problems_of_locks(migration: Migration, state: ProjectState) -> Iterator[str]:
    locks = locks_of(migration, state)
    operations = migration.operations
    if all(isinstance(operation, AddIndexMeanwhile) for operation in operations):
        if migration.atomic:
            yield "AddIndexMeanwhile needs atomic = False"
    elif isinstance(migration, SchemaChange):
        slow = [o for o in operations if isinstance(o, (AddIndex, AddConstraint)) and o.model_name in GROWING]
        if slow:
            yield f"{slow} hold starts up for as long as they take: AddIndexMeanwhile does not"
        changed = {table for table, mode in locks.items() if mode == CHANGED} & IN_ANY_ORDER
        if len(changed) > 1:
            yield f"it changes {changed}: somebody touches them the other way round"
    elif locks:
        yield f"it changes {set(locks)}: let it be a SchemaChange"


def change(*operations: Operation, base: type[Migration] = SchemaChange, **attributes: Any) -> Migration:
    return type("Change", (base,), {"operations": list(operations), **attributes})("change", "workers")


def test_no_migration_since_the_latest_release_disturbs_it() -> None:
    loader = MigrationLoader(None)
    for migration in newer():
        state = loader.project_state((migration.app_label, migration.name), at_end=False)
        assert problems_of(migration, state) == [], migration


def test_the_change_that_the_drill_makes_keeps_the_rules(tmp_path: Path) -> None:
    state = MigrationLoader(None).project_state()
    paths = write_migrations(tmp_path, "0001_initial")
    migrations = [runpy.run_path(str(path))["Migration"](path.stem, "workers") for path in paths]
    assert [problems_of(migration, state) for migration in migrations] == [[], []]


NULLABLE = models.IntegerField(null=True)
INDEX = models.Index(fields=["started_at"], name="probe")
DISTURBING = {
    "needs null=True or db_default": change(AddField("worker", "probe", models.IntegerField(default=0))),
    "takes away what the release before knows": change(RemoveField("worker", "labels")),
    "AddIndexMeanwhile does not": change(AddIndex("workerstart", INDEX)),
    "the other way round": change(AddField("worker", "probe", NULLABLE), AddField("apikey", "probe", NULLABLE)),
    "let it be a SchemaChange": change(AddField("worker", "probe", NULLABLE), base=Migration),
    "needs atomic = False": change(AddIndexMeanwhile("workerstart", INDEX), base=Migration),
}


@pytest.mark.parametrize("problem", DISTURBING)
def test_a_change_that_disturbs_the_release_before_is_found(problem: str) -> None:
    (found,) = problems_of(DISTURBING[problem], MigrationLoader(None).project_state())
    assert problem in found


@pytest.mark.django_db
def test_migrations_lock_tables_in_the_order_in_which_a_start_touches_them() -> None:
    text = " ".join(statement._compile()[0] for statement in (circumstances._OF_WORKER, starts._START))
    touched = dict.fromkeys(re.findall(r'(?:FROM|JOIN|INTO) "?(\w+)"?', text))
    assert [table for table in touched if table not in {"workers_pulse", "workers_outage"}] == list(ORDER)
