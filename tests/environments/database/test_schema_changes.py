"""A change of tables in use takes all its locks at once or none, and does what Django would have done."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError, connection, models
from django.db.migrations import AddField, CreateModel, Migration, RunPython
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from environments.database.schema_changes import AddIndexMeanwhile, SchemaChange, locks_of

pytestmark = pytest.mark.sqlite

PROBE = AddField("organization", "probe", models.CharField(max_length=9, default="50%", db_default="50%"))
PROBES = [PROBE, AddField("Environment", "probe", models.IntegerField(null=True))]


def change(*operations: Operation) -> Migration:
    kind = type("Change", (SchemaChange,), {"operations": list(operations)})
    return kind("probe", "environments")


def state() -> ProjectState:
    return MigrationLoader(connection).project_state()


def apply(migration: Migration) -> None:
    with connection.schema_editor(atomic=True) as editor:
        migration.apply(state(), editor)


def columns(table: str) -> set[str]:
    with connection.cursor() as cursor:
        return {column.name for column in connection.introspection.get_table_description(cursor, table)}


def test_does_what_django_would_and_can_be_taken_back(transactional_db: None) -> None:
    migration = change(*PROBES)
    before = state()
    apply(migration)
    try:
        assert "probe" in columns("environments_organization") & columns("environments_environment")
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO environments_organization (id, name, created_at) VALUES ('a', 'a', '2026-01-01')"
            )
            cursor.execute("SELECT probe FROM environments_organization")
            assert cursor.fetchall() == [("50%",)]
    finally:
        with connection.schema_editor(atomic=True) as editor:
            migration.unapply(before, editor)
    assert "probe" not in columns("environments_organization") | columns("environments_environment")


def test_gives_up_within_a_moment_what_somebody_reads_and_leaves_everything_as_it_was(another: Any) -> None:
    another.execute("LOCK TABLE environments_organization IN ACCESS SHARE MODE")
    began = time.monotonic()
    with pytest.raises(OperationalError, match="statement timeout"):
        apply(change(*PROBES))
    assert 0.4 < time.monotonic() - began < 1.9, "half a second for the locks, not two for each"
    assert "probe" not in columns("environments_environment")


def test_holds_no_lock_while_django_makes_the_sql(another: Any) -> None:
    """The last operation looks from another session."""
    locks = """
        SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'
        AND relation = 'environments_organization'::regclass
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
    seen = []

    class Observer(AddField):
        def database_forwards(self, *arguments: Any) -> None:
            seen.append(another.execute(locks).fetchone())
            super().database_forwards(*arguments)

    with pytest.raises(InterruptedError), connection.schema_editor(atomic=True) as editor:
        change(PROBE, Observer("environment", "probe", models.IntegerField(null=True))).apply(state(), editor)
        raise InterruptedError
    assert seen == [(0,)]


def test_restores_the_limit_of_statements(another: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        before = cursor.fetchone()
        with pytest.raises(InterruptedError), connection.schema_editor(atomic=True) as editor:
            change(*PROBES).apply(state(), editor)
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == before
            raise InterruptedError


@pytest.mark.django_db
def test_locks_what_it_changes_and_what_it_newly_refers_to() -> None:
    to_key = models.ForeignKey("environments.DataKey", models.CASCADE)
    made = CreateModel("Made", [("id", models.UUIDField(primary_key=True)), ("data_key", to_key)])
    migration = change(made, AddField("made", "user", models.ForeignKey("auth.User", models.CASCADE)), *PROBES)
    assert list(locks_of(migration, state()).items()) == [
        ("auth_user", "SHARE ROW EXCLUSIVE"),
        ("environments_environment", "ACCESS EXCLUSIVE"),
        ("environments_organization", "ACCESS EXCLUSIVE"),
        ("environments_datakey", "SHARE ROW EXCLUSIVE"),
    ]


def test_refuses_to_move_rows_while_it_holds_locks(another: Any) -> None:
    with pytest.raises(TypeError, match="moves rows"):
        apply(change(RunPython(RunPython.noop)))


# --- Indexes of tables that grow without end --------------------------------------------------------------------------------


INDEX = models.Index(fields=["name", "created_at"], name="probe_by_name")
WRITE = "INSERT INTO environments_organization (id, name, created_at) VALUES (%s, 'probe', '2026-01-01')"
WAITING = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('probe_by_name')"


def meanwhile(*operations: Operation) -> Migration:
    kind = type("Meanwhile", (Migration,), {"operations": list(operations), "atomic": False})
    return kind("probe", "environments")


def apply_meanwhile(*operations: Operation) -> None:
    with connection.schema_editor(atomic=False) as editor:
        meanwhile(*operations).apply(state(), editor)


def indexes() -> set[str]:
    with connection.cursor() as cursor:
        return set(connection.introspection.get_constraints(cursor, "environments_organization"))


@pytest.fixture
def without_index(transactional_db: None) -> Any:
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX IF EXISTS probe_by_name")


def test_an_index_is_made_and_taken_back_on_both_databases(without_index: None) -> None:
    migration, before = meanwhile(AddIndexMeanwhile("organization", INDEX)), state()
    with connection.schema_editor(atomic=False) as editor:
        migration.apply(state(), editor)
    assert "probe_by_name" in indexes()
    with connection.schema_editor(atomic=False) as editor:
        migration.unapply(before, editor)
    assert "probe_by_name" not in indexes()


def test_an_index_that_is_there_already_is_made_anew(without_index: None) -> None:
    apply_meanwhile(AddIndexMeanwhile("organization", INDEX))
    apply_meanwhile(AddIndexMeanwhile("organization", INDEX))
    assert "probe_by_name" in indexes()


def test_rows_are_written_while_an_index_is_made(without_index: None, another: Any) -> None:
    """The making waits for a transaction that wrote; whoever wants to write does not wait for the making."""
    another.execute(WRITE, ["a"])

    def make() -> None:
        try:
            apply_meanwhile(AddIndexMeanwhile("organization", INDEX))
        finally:
            connection.close()

    with ThreadPoolExecutor() as pool, connection.cursor() as cursor:
        making = pool.submit(make)
        is_waiting = False
        while not is_waiting and not making.done():
            cursor.execute(WAITING)
            is_waiting = bool(cursor.fetchall())
        cursor.execute("SET lock_timeout = '500ms'")
        cursor.execute(WRITE, ["b"])
        cursor.execute("RESET lock_timeout")
        assert not making.done()
        another.rollback()
        making.result()
        cursor.execute(VALID)
        assert cursor.fetchall() == [(True,)]


def test_what_an_interrupted_attempt_left_is_made_anew(without_index: None, another: Any) -> None:
    another.execute(WRITE, ["a"])
    with pytest.raises(OperationalError, match="lock timeout"):
        apply_meanwhile(AddIndexMeanwhile("organization", INDEX))
    with connection.cursor() as cursor:
        cursor.execute(VALID)
        assert cursor.fetchall() == [(False,)]
        another.rollback()
        apply_meanwhile(AddIndexMeanwhile("organization", INDEX))
        cursor.execute(VALID)
        assert cursor.fetchall() == [(True,)]
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() != ("0",)
