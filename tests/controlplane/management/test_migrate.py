"""`migrate` gives way to whoever uses a table for long, says so, and goes on where it stopped."""

import os
import subprocess
from collections.abc import Callable, Iterator

import psycopg
import pytest
from django.db import connection

from tests.support.commands import Commands
from tests.support.databases import MakeDatabase, fresh_database

pytestmark = [
    pytest.mark.sqlite,
    pytest.mark.processes,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one lock for all tables"),
]

SCRIPT = """
import sys
from django.core.management import CommandError, call_command
from controlplane.management.commands import migrate
migrate.ATTEMPTS = 2
try:
    call_command("migrate", *{arguments!r}, verbosity=0)
except CommandError as error:
    sys.exit(str(error))
"""
type Migrate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def migrate() -> Iterator[Migrate]:
    commands = Commands()

    def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        url = f"{url}?options=-c%20lock_timeout%3D200ms"  # instead of two seconds
        code = SCRIPT.format(arguments=arguments)
        return commands.run("shell", "--no-imports", "--command", code, environ={**os.environ, "DATABASE_URL": url})

    yield run
    commands.close()


def test_gives_up_a_table_that_is_read_for_long_and_goes_on_when_it_is_run_again(
    migrate: Migrate, migrated_database: MakeDatabase
) -> None:
    url = migrated_database("migrate")
    assert migrate(url, "auth", "0011").returncode == 0  # undoes those after it
    with psycopg.connect(url) as backup:
        backup.execute("LOCK TABLE auth_user IN ACCESS SHARE MODE")
        done = migrate(url)
    assert done.returncode == 1
    assert done.stderr.count("somebody uses a table") == 2
    assert "run this again" in done.stderr
    assert "Traceback" not in done.stderr
    with psycopg.connect(url) as connection:
        applied = {name for (name,) in connection.execute("SELECT app || '.' || name FROM django_migrations")}
        assert "auth.0011_update_proxy_permissions" in applied
        assert "auth.0012_alter_user_first_name_max_length" not in applied
    again = migrate(url)
    assert (again.returncode, again.stderr) == (0, "")


def test_another_error_is_not_tried_again(migrate: Migrate) -> None:
    url = fresh_database("migrate")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE environments_organization (id text)")
    done = migrate(url)
    assert done.returncode != 0
    assert "already exists" in done.stderr
    assert "Attempt" not in done.stderr
