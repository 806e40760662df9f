"""A database that is older than what was served is told from all others, however it came to be so."""

import io
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from controlplane.models import DatabaseMark
from controlplane.serving.restoration import RESTORED, Memory, changed_timeline, forget, mark
from environments import audit
from environments.models import AuditEvent
from tests.support.factories import ACTOR

pytestmark = pytest.mark.django_db
TABLE = DatabaseMark._meta.db_table


def execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def only_on(vendor: str) -> None:
    if connection.vendor != vendor:
        pytest.skip(f"{vendor} only")


def happen() -> UUID:
    """Something that goes on record."""
    return audit.record("tests.happened", DatabaseMark(), actor=ACTOR, now=timezone.now()).pk


def lose(*events: UUID) -> None:
    """The trail is as it was before these, as after a recovery in place."""
    AuditEvent.objects.filter(pk__in=events)._raw_delete(using="default")  # type: ignore[attr-defined]  # no stubs


@pytest.fixture(autouse=True)
def clean() -> None:
    forget()
    mark(timezone.now())


def test_a_new_database_is_marked_by_migrate_and_keeps_its_mark() -> None:
    assert Memory().problem() == ""
    before = DatabaseMark.objects.get().marked_at
    call_command("migrate", verbosity=0)
    assert DatabaseMark.objects.get().marked_at == before
    DatabaseMark.objects.all().delete()
    assert Memory().problem() == RESTORED
    call_command("migrate", verbosity=0)
    assert Memory().problem() == ""


# --- What PostgreSQL's tools do ------------------------------------------------------------------------------------------


def made_anew(_folder: Path) -> None:
    """As `pg_restore --clean` and a schema that was dropped leave it."""
    execute(
        f"CREATE TABLE another (LIKE {TABLE} INCLUDING ALL)",
        f"INSERT INTO another SELECT * FROM {TABLE}",  # noqa: S608
        f"DROP TABLE {TABLE}",
        f"ALTER TABLE another RENAME TO {TABLE}",
    )


def of_another_cluster(_folder: Path) -> None:
    execute(f"UPDATE {TABLE} SET identity = replace(identity, 'cluster ', 'cluster 9')")  # noqa: S608


def of_another_database(_folder: Path) -> None:
    execute(f"UPDATE {TABLE} SET identity = replace(identity, 'database ', 'database 9')")  # noqa: S608


def loaded_from_json(folder: Path) -> None:
    """As `dumpdata` of one and `loaddata` into another leave it."""
    of_another_database(folder)
    out = io.StringIO()
    call_command("dumpdata", "controlplane.databasemark", stdout=out)
    mark(timezone.now())
    (path := folder / "mark.json").write_text(out.getvalue())
    call_command("loaddata", path, verbosity=0)


@pytest.mark.parametrize("restore", [made_anew, of_another_cluster, of_another_database, loaded_from_json])
def test_a_restored_or_copied_database_is_told(restore: Callable[[Path], None], tmp_path: Path) -> None:
    only_on("postgresql")
    restore(tmp_path)
    assert Memory().problem() == RESTORED
    mark(timezone.now())
    assert Memory().problem() == ""


@pytest.mark.django_db(transaction=True)
def test_upkeep_is_no_restore() -> None:
    only_on("postgresql")
    execute(f"VACUUM FULL {TABLE}", f"REINDEX TABLE {TABLE}", f"ANALYZE {TABLE}", f"UPDATE {TABLE} SET id = 1")  # noqa: S608
    assert Memory().problem() == ""


def test_another_timeline_is_noticed_and_is_no_restore() -> None:
    only_on("postgresql")
    assert changed_timeline() is None
    DatabaseMark.objects.update(timeline=7)
    assert changed_timeline() == (7, 1)
    assert Memory().problem() == ""


# --- What was seen and is gone -------------------------------------------------------------------------------------------


def test_a_trail_that_grows_is_no_restore() -> None:
    memory = Memory()
    for _ in range(50):
        happen()
        assert memory.keep() == ""


def test_a_lost_event_closes_every_process_until_it_is_accepted() -> None:
    memory, event = Memory(), happen()
    assert memory.keep() == ""
    lose(event)
    assert "went back in time" in memory.keep()
    other = Memory()
    assert "accept_restore" in other.problem()
    mark(timezone.now() + timedelta(seconds=1))
    forget()
    assert memory.keep() == Memory().problem() == ""


def test_whoever_only_looks_changes_nothing() -> None:
    memory, event = Memory(), happen()
    memory.keep()
    lose(event)
    assert memory.problem()
    assert DatabaseMark.objects.get().doubt == ""


# --- What is done to SQLite's file ---------------------------------------------------------------------------------------


@pytest.fixture
def database(transactional_db: None, tmp_path: Path) -> Path:
    """A backup of the database as it is now."""
    only_on("sqlite")
    mark(timezone.now())
    copy = tmp_path / "copy.sqlite3"
    with closing(sqlite3.connect(connection.settings_dict["NAME"])) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def put_in_place(copy: Path) -> None:
    """As `cp` does, which keeps the file."""
    path = Path(connection.settings_dict["NAME"])
    connection.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(copy.read_bytes())


def test_a_backup_that_is_put_over_the_file_is_told_by_what_was_seen(database: Path) -> None:
    happen()
    assert Memory().keep() == ""
    put_in_place(database)
    assert "went back in time" in Memory().problem()


def test_a_file_that_was_exchanged_is_told(database: Path) -> None:
    path = Path(connection.settings_dict["NAME"])
    connection.close()
    shutil.copyfile(path, aside := path.with_name("aside"))
    aside.replace(path)
    assert Memory().problem() == RESTORED


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', "\0", '["x"]'])
def test_an_odd_file_of_what_was_seen_says_nothing(content: str) -> None:
    only_on("sqlite")
    seen = Path(f"{connection.settings_dict['NAME']}-seen")
    seen.write_text(content)
    assert Memory().keep() == ""
    happen()
    assert Memory().keep() == ""
    assert seen.stat().st_mode & 0o077 == 0


def test_a_link_beside_the_database_is_not_followed(tmp_path: Path) -> None:
    only_on("sqlite")
    (victim := tmp_path / "victim").write_text("mine")
    Path(f"{connection.settings_dict['NAME']}-seen").symlink_to(victim)
    happen()
    assert Memory().keep() == ""
    assert victim.read_text() == "mine"
