"""`migrate` gives way to whoever uses a table for long, says so, and goes on where it stopped."""

import os
import subprocess
import sys

import psycopg
import pytest

from tests.support.databases import fresh_database
from tests.support.processes import ROOT

pytestmark = [pytest.mark.sqlite, pytest.mark.processes]

SCRIPT = """
import sys, django
django.setup()
from django.core.management import CommandError, call_command
from controlplane.management.commands import migrate
migrate.ATTEMPTS = 2
try:
    call_command("migrate", *sys.argv[1:], verbosity=0)
except CommandError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def url() -> str:
    if not os.environ["DATABASE_URL"].startswith("postgresql:"):
        pytest.skip("SQLite has one lock for all tables")
    return fresh_database("migrate")


def migrate(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603


def test_gives_up_a_table_that_is_read_for_long_and_goes_on_when_it_is_run_again(url: str) -> None:
    assert migrate(url, "auth", "0011").returncode == 0
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


def test_another_error_is_not_tried_again(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE environments_organization (id text)")
    done = migrate(url)
    assert done.returncode != 0
    assert "already exists" in done.stderr
    assert "Attempt" not in done.stderr
