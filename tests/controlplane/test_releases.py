"""Which release a database is at, and which upgrades are refused."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from controlplane import releases
from controlplane.releases import CURRENT, OUR_APPS, Release, planned_upgrade
from tests.support.processes import ROOT

pytestmark = pytest.mark.sqlite

LAST = {app: max(key[1] for key in MigrationLoader(None).disk_migrations if key[0] == app) for app in OUR_APPS}


def forget(app: str, after: str = "") -> None:
    """As if the migrations after this one had never been applied."""
    MigrationRecorder.Migration.objects.filter(app=app, name__gt=after).delete()


#: Made up, so that this code's own migrations bring what they do not have.
BEFORE = Release("0.0.8", "v0.0.8", {"environments": LAST["environments"]})
BETWEEN = Release("0.0.9", "v0.0.9", {**BEFORE.last_migrations, "workers": LAST["workers"]})


@pytest.fixture
def before(db: None, monkeypatch: pytest.MonkeyPatch) -> Release:
    """A database at the release before this code's."""
    monkeypatch.setattr(releases, "EARLIER", (BEFORE,))
    for app in OUR_APPS:
        forget(app, BEFORE.last_migrations.get(app, ""))
    return BEFORE


# --- The number ----------------------------------------------------------------------------------------------------------


def test_the_package_has_no_number_of_its_own_and_reads_this_one() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in package["project"]
    module, _, name = package["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(".")
    assert getattr(import_module(module), name) == CURRENT


def test_the_changelog_and_what_is_deployed_name_it() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = next(name for name in re.findall(r"^## (\S+)", changelog, re.MULTILINE) if name != "Unreleased")
    assert newest == CURRENT
    assert f"image: controlplane:{CURRENT}\n" in (ROOT / "deploy" / "kubernetes.yaml").read_text()
    assert f"git clone --branch v{CURRENT} " in (ROOT / "docs" / "operate" / "deploy.md").read_text()


def test_the_command_line_tells_it_where_nothing_is_set_up(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "CONTROL_PLANE_ENV_FILE": str(tmp_path / "none")}
    command = [sys.executable, "manage.py", "--version"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{CURRENT}\n", "")


@pytest.mark.filterwarnings("ignore:Overriding get_action_choices")  # unfold 0.110 has not followed Django 6.1
@pytest.mark.parametrize("path", ["/admin/", "/admin/workers/worker/", "/admin/account/"])
def test_each_page_of_the_console_tells_it_at_its_foot(path: str, admin_client: Client) -> None:
    page = admin_client.get(path).content.decode()
    assert f">Control plane {CURRENT}</footer>" in page


def test_strangers_are_not_told(client: Client, db: None) -> None:
    assert CURRENT not in client.get("/admin/login/").content.decode()


# --- The database --------------------------------------------------------------------------------------------------------


def test_releases_come_in_order_and_end_with_migrations_that_are_here() -> None:
    known = set(MigrationLoader(None).disk_migrations)
    assert all(set(release.last_migrations.items()) <= known for release in releases.EARLIER)
    numbers = [*(release.number for release in releases.EARLIER), CURRENT]
    assert sorted(set(numbers)) == numbers


@pytest.mark.django_db
def test_a_migrated_database_is_at_this_release() -> None:
    upgrade = planned_upgrade()
    assert (upgrade.at, upgrade.steps, upgrade.pending, upgrade.problem) == (CURRENT, (), (), "")


@pytest.mark.django_db
def test_an_empty_database_takes_every_release() -> None:
    MigrationRecorder.Migration.objects.all().delete()
    upgrade = planned_upgrade()
    assert (upgrade.at, upgrade.problem) == (None, "")
    assert set(LAST.items()) <= set(upgrade.pending)


def test_the_release_before_may_be_upgraded(before: Release) -> None:
    upgrade = planned_upgrade()
    assert (upgrade.at, upgrade.steps, upgrade.problem) == (before.number, (CURRENT,), "")
    assert set(upgrade.pending) >= set(LAST.items()) - set(before.last_migrations.items())


def test_an_upgrade_that_was_broken_off_may_go_on(before: Release) -> None:
    MigrationRecorder(connection).record_applied("workers", LAST["workers"])
    upgrade = planned_upgrade()
    assert (upgrade.at, upgrade.steps, upgrade.problem) == (before.number, (CURRENT,), "")


def test_a_skipped_release_is_refused_and_named(before: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "EARLIER", (BEFORE, BETWEEN))
    upgrade = planned_upgrade()
    assert (upgrade.at, upgrade.steps) == (before.number, ("0.0.9", CURRENT))
    assert "upgrade to 0.0.9 first" in upgrade.problem


def test_a_database_from_before_all_releases_is_refused(before: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "EARLIER", (BETWEEN,))
    assert "upgrade to 0.0.9 first" in planned_upgrade().problem


def test_a_first_migration_that_was_broken_off_may_go_on(before: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "EARLIER", ())
    assert planned_upgrade().problem == ""


@pytest.mark.django_db
def test_a_newer_database_is_refused_and_its_migration_named() -> None:
    MigrationRecorder(connection).record_applied("workers", "9999_tomorrow")
    upgrade = planned_upgrade()
    assert "workers.9999_tomorrow" in upgrade.problem
    assert "newer than this code" in upgrade.problem


@pytest.mark.django_db
def test_a_migration_of_a_package_is_pending_and_no_step() -> None:
    forget("sessions")
    upgrade = planned_upgrade()
    assert (upgrade.at, upgrade.steps, upgrade.pending) == (CURRENT, (), (("sessions", "0001_initial"),))
