"""What each error of the database says, made by the database itself: only what concerns everybody opens the circuit."""

import gc
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connection, connections, transaction
from django.db.models import F

from controlplane.engines.circuit import Circuit
from controlplane.engines.sqlite3.base import DatabaseWrapper
from controlplane.engines.troubles import SQLSTATES, Trouble, trouble_in_sqlstate, trouble_of
from controlplane.startup import env
from environments.models import Organization
from tests.support.calls import fresh_fleet
from tests.support.circuits import Probe, wait_until
from tests.support.factories import Fleet, create_organization
from workers.models import Worker, WorkerQueue

AWAY, LOCKED, BUSY, INVALID, GONE, CONFLICT, OURS = Trouble

ON_POSTGRESQL = pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL only")


@pytest.fixture
def watched(used: Circuit, probe: Probe) -> Circuit:
    """The process's circuit, which would stay open once it is."""
    probe.is_there = False
    return used


def run(*statements: str, using: str = "default") -> None:
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def trouble_with(action: Callable[[], Any]) -> Trouble | None:
    with pytest.raises(DatabaseError) as raised:
        action()
    return trouble_of(raised.value)


# --- PostgreSQL ----------------------------------------------------------------------------------------------------------

#: SQLSTATEs as the server sends them, and what each says.
STATES = {
    "08000": AWAY, "08003": AWAY, "08006": AWAY, "57P01": AWAY, "57P02": AWAY, "57P03": AWAY,
    "53000": AWAY, "53100": AWAY, "53200": AWAY, "53300": AWAY, "58000": AWAY, "58030": AWAY, "25006": AWAY,
    "57014": BUSY, "40001": LOCKED, "40P01": LOCKED, "40003": LOCKED, "55P03": LOCKED, "55006": BUSY, "53400": BUSY,
    "25P03": BUSY, "57P05": BUSY, "XX000": BUSY, "XX001": BUSY, "F0000": BUSY,
    "54000": INVALID, "54001": INVALID, "54011": INVALID, "54023": INVALID, "22P02": INVALID, "22003": INVALID,
    "2201B": INVALID, "22021": INVALID, "21000": INVALID, "0A000": INVALID,
    "23503": GONE, "23505": CONFLICT, "23514": CONFLICT, "23P01": CONFLICT,
    "42601": OURS, "42P01": OURS, "42703": OURS, "42501": OURS, "P0001": OURS,
}  # fmt: skip


@ON_POSTGRESQL
@pytest.mark.django_db
@pytest.mark.parametrize("state", sorted(set(STATES) - {"55P03"}))
def test_a_sqlstate_of_the_server_opens_only_where_it_concerns_everybody(watched: Circuit, state: str) -> None:
    found = trouble_with(lambda: run(f"DO $$ BEGIN RAISE EXCEPTION SQLSTATE '{state}'; END $$"))
    assert found is STATES[state]
    assert watched.is_open() == (found is AWAY)


def test_the_longest_beginning_of_a_sqlstate_counts() -> None:
    for beginning, trouble in SQLSTATES.items():
        rest = "".join(chr(ord("Z") - number) for number in range(5 - len(beginning)))
        assert trouble_in_sqlstate(beginning + rest) is trouble
    assert trouble_in_sqlstate("ZZZZZ") is BUSY


#: What a person can make of a statement.
OF_ONE_PERSON = {
    "too slow": (BUSY, ["SET LOCAL statement_timeout = 20", "SELECT pg_sleep(1)"]),
    "too much on disk": (
        BUSY,
        [
            "SET LOCAL temp_file_limit = 64",
            "SET LOCAL work_mem = 64",
            "SELECT g FROM generate_series(1, 100000) g ORDER BY md5(g::text)",
        ],
    ),
    "too complex": (INVALID, [f"SELECT {'+'.join('1' * 60_000)}"]),
    "too many columns": (INVALID, [f"SELECT {','.join('1' * 2_000)}"]),
    "no number": (INVALID, ["SELECT 'x'::int"]),
    "too large a number": (INVALID, ["SELECT 99999999999::int"]),
    "no pattern": (INVALID, ["SELECT 'a' ~ '('"]),
    "no text": (INVALID, [r"SELECT E'\xff'"]),
    "two rows for one": (INVALID, ["SELECT (SELECT generate_series(1, 2))"]),
}


@ON_POSTGRESQL
@pytest.mark.django_db
@pytest.mark.parametrize("name", OF_ONE_PERSON)
def test_what_a_person_makes_of_a_statement_is_that_persons_trouble(watched: Circuit, name: str) -> None:
    expected, statements = OF_ONE_PERSON[name]
    assert trouble_with(lambda: run(*statements)) is expected
    assert not watched.is_open()


@ON_POSTGRESQL
@pytest.mark.django_db
def test_more_parameters_than_a_statement_has_room_for_are_invalid(watched: Circuit) -> None:
    assert trouble_with(lambda: Worker.objects.filter(name__in=map(str, range(70_000))).count()) is INVALID
    assert not watched.is_open()


@ON_POSTGRESQL
@pytest.mark.django_db
def test_what_follows_an_error_in_a_pipeline_is_not_a_lost_connection(watched: Circuit) -> None:
    def both() -> None:
        with connection.wrap_database_errors, connection.connection.pipeline():
            connection.connection.execute("SELECT 1/0")
            connection.connection.execute("SELECT 1").fetchall()

    connection.ensure_connection()
    assert trouble_with(both) in {BUSY, INVALID}
    assert not watched.is_open()


@ON_POSTGRESQL
def test_a_deadlock_is_the_trouble_of_whom_it_is_told(transactional_db: None, watched: Circuit) -> None:
    first, second = (create_organization(name) for name in ("first", "second"))
    barrier, found = threading.Barrier(2), []

    def lock(rows: list[Organization]) -> None:
        try:
            with transaction.atomic():
                for row in rows:
                    Organization.objects.filter(pk=row.pk).update(name=F("name"))
                    with suppress(threading.BrokenBarrierError):
                        barrier.wait(5)
        except OperationalError as error:
            found.append(trouble_of(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=lock, args=[rows]) for rows in ([first, second], [second, first])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [LOCKED]
    assert not watched.is_open()


@ON_POSTGRESQL
def test_a_row_that_somebody_has_locked_opens_nothing_but_has_the_circuit_look(
    transactional_db: None, another: psycopg.Connection[Any], used: Circuit, probe: Probe
) -> None:
    create_organization("first")
    lock = "SELECT 1 FROM environments_organization FOR UPDATE"
    another.execute(lock)
    assert trouble_with(lambda: run("SET LOCAL lock_timeout = 20", lock)) is LOCKED
    wait_until(lambda: probe.asked == 1 and not used.is_looking())
    assert not used.is_open()


@ON_POSTGRESQL
def test_a_connection_that_was_cut_opens_it(transactional_db: None, watched: Circuit) -> None:
    with connection.cursor() as cursor:
        assert trouble_with(lambda: cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")) is AWAY
    connection.close()
    assert watched.is_open()


@ON_POSTGRESQL
@pytest.mark.django_db
def test_a_server_that_cannot_be_reached_opens_it(watched: Circuit) -> None:
    settings = {**connection.settings_dict, "PORT": "1"}
    connections["unreachable"] = type(connection._connections["default"])(settings, "unreachable")  # type: ignore[attr-defined]
    try:
        assert trouble_with(connections["unreachable"].ensure_connection) is AWAY
    finally:
        del connections["unreachable"]
    assert watched.is_open()


# --- SQLite --------------------------------------------------------------------------------------------------------------

COUNT = "WITH RECURSIVE counted(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM counted WHERE number < {count})"

INSERT = "INSERT INTO seen VALUES (2)"
#: Some hundred kilobytes.
FILL = f"INSERT INTO seen {COUNT.format(count=9_000)} SELECT number + 10 FROM counted"  # noqa: S608  # as it stands here
SLOW = f"{COUNT.format(count=99_999_999)} SELECT sum(number) FROM counted"  # noqa: S608  # as it stands here


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "database.sqlite3"


@pytest.fixture
def own(path: Path, db: None) -> Iterator[DatabaseWrapper]:
    """A SQLite database of its own, known to Django as `own`, whose writers have little patience."""
    settings = {**connections["default"].settings_dict, **env.database(f"sqlite:///{path}")}
    settings["OPTIONS"]["timeout"] = 0.2
    wrapper = DatabaseWrapper(settings, "own")
    connections["own"] = wrapper
    run("CREATE TABLE seen (number INTEGER UNIQUE)", "INSERT INTO seen VALUES (1)", using="own")
    yield wrapper
    wrapper.close()
    del connections["own"]


def damage(own: DatabaseWrapper, path: Path, at: int) -> None:
    run(FILL, using="own")
    own.close()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * 5_000)


def no_file(own: DatabaseWrapper, path: Path) -> None:
    own.close()
    path.rename(path.with_suffix(".away"))
    path.mkdir()


def full(own: DatabaseWrapper, path: Path) -> None:  # as the others
    own.connection.execute("PRAGMA max_page_count = 1")  # it has no room to grow


def read_only(own: DatabaseWrapper, path: Path) -> None:  # as the others
    own.connection.execute("PRAGMA query_only = 1")


#: What happens to the file, and the statement that meets it.
FOR_EVERYBODY: dict[str, tuple[Callable[[DatabaseWrapper, Path], None], str]] = {
    "no file": (no_file, INSERT),
    "no database": (lambda own, path: damage(own, path, 0), INSERT),
    "damaged": (lambda own, path: damage(own, path, 4_096), "SELECT sum(number) FROM seen"),
    "read-only": (read_only, INSERT),
    "full": (full, FILL),
}


@pytest.mark.filterwarnings("ignore:unclosed database")  # Django forgets the connection that it cannot set up
@pytest.mark.parametrize("name", FOR_EVERYBODY)
def test_a_file_that_serves_nobody_opens_it(own: DatabaseWrapper, path: Path, watched: Circuit, name: str) -> None:
    spoil, statement = FOR_EVERYBODY[name]
    spoil(own, path)
    assert trouble_with(lambda: run(statement, using="own")) is AWAY
    assert watched.is_open()
    own.close()
    gc.collect()


def small(own: DatabaseWrapper, limit: int, most: int) -> None:
    own.connection.setlimit(limit, most)


def interrupt(own: DatabaseWrapper) -> None:
    own.connection.set_progress_handler(lambda: 1, 100)


NOTHING: Callable[[DatabaseWrapper], None] = lambda own: None  # noqa: E731, ARG005
MANY = "SELECT 1 WHERE 1 IN (" + ",".join(["%s"] * 40) + ")"
#: What a person can make of a statement, and what is ours.
OF_ONE: dict[str, tuple[Trouble, Callable[[DatabaseWrapper], None], str]] = {
    "too many variables": (INVALID, lambda own: small(own, sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 10), MANY),
    "too deep": (INVALID, NOTHING, f"SELECT {'+'.join('1' * 1_200)}"),
    "too many terms": (INVALID, NOTHING, "SELECT 1" + " UNION SELECT 1" * 600),
    "too many columns": (INVALID, NOTHING, f"SELECT {','.join('1' * 3_000)}"),
    "too long a pattern": (INVALID, NOTHING, f"SELECT 'a' LIKE '{'_' * 60_000}'"),
    "too long a text": (
        INVALID,
        lambda own: small(own, sqlite3.SQLITE_LIMIT_LENGTH, 1_000),
        "SELECT hex(zeroblob(900))",
    ),
    "no JSON": (INVALID, NOTHING, "SELECT json('{')"),
    "no pattern": (INVALID, NOTHING, "SELECT 'a' REGEXP '('"),
    "interrupted": (BUSY, interrupt, SLOW),
    "the same row": (CONFLICT, NOTHING, "INSERT INTO seen VALUES (1)"),
    "no table": (OURS, NOTHING, "SELECT 1 FROM unknown"),
    "no column": (OURS, NOTHING, "SELECT unknown FROM seen"),
    "no SQL": (OURS, NOTHING, "SELEC"),
}


@pytest.mark.parametrize("name", OF_ONE)
def test_what_one_statement_meets_in_sqlite_is_its_callers_trouble(
    own: DatabaseWrapper, watched: Circuit, name: str
) -> None:
    expected, prepare, statement = OF_ONE[name]
    prepare(own)

    def ask() -> None:
        with own.cursor() as cursor:
            cursor.execute(statement, [1] * 40 if "%s" in statement else None)

    assert trouble_with(ask) is expected
    assert not watched.is_open()


def test_a_lock_that_one_holder_keeps_from_everybody_opens_it(
    own: DatabaseWrapper, path: Path, watched: Circuit
) -> None:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert trouble_with(lambda: run(INSERT, using="own")) is AWAY
    assert watched.is_open()
    holder.close()


def test_a_lock_that_others_get_in_turn_does_not(own: DatabaseWrapper, path: Path, watched: Circuit) -> None:
    """Somebody writes all the while, so that this caller has no luck; others have."""
    is_over = threading.Event()
    has_lock = threading.Event()

    def write() -> None:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        number = 100
        while not is_over.is_set():
            holder.execute("INSERT INTO seen VALUES (?)", [number := number + 1])
            has_lock.set()
            is_over.wait(0.01)
            holder.execute("COMMIT")
            holder.execute("BEGIN IMMEDIATE")
        holder.close()

    thread = threading.Thread(target=write)
    thread.start()
    has_lock.wait()
    found = None
    while found is None:  # it may be lucky, too
        try:
            run("DELETE FROM seen WHERE number < 0", using="own")
        except OperationalError as error:
            found = trouble_of(error)
    is_over.set()
    thread.join()
    assert found is LOCKED
    assert not watched.is_open()


# --- Both ----------------------------------------------------------------------------------------------------------------


def test_a_row_that_refers_to_one_that_is_gone(transactional_db: None, watched: Circuit) -> None:
    fleet: Fleet = fresh_fleet()

    def move() -> None:
        with transaction.atomic():
            Worker.objects.filter(pk=fleet.worker.pk).update(organization_id="gone")

    with pytest.raises(IntegrityError) as raised:
        move()
    assert trouble_of(raised.value) is GONE
    assert not watched.is_open()
    assert WorkerQueue.objects.count() == 1


@pytest.mark.parametrize("error", [ValueError(), OSError(), RuntimeError()])
def test_what_is_not_the_databases_is_none(error: Exception) -> None:
    assert trouble_of(error) is None
