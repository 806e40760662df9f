"""Which release a database is at, and which upgrades are refused."""

import re
import tomllib

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from controlplane import releases
from controlplane.releases import CURRENT, EARLIER, OUR_APPS, Release, planned_upgrade
from tests.processes import ROOT

pytestmark = pytest.mark.sqlite

LAST = {app: max(key[1] for key in MigrationLoader(None).disk_migrations if key[0] == app) for app in OUR_APPS}


def forget(app: str, after: str = "") -> None:
    """As if the migrations after this one had never been applied."""
    MigrationRecorder.Migration.objects.filter(app=app, name__gt=after).delete()


@pytest.fixture
def before(db: None) -> Release:
    """A database at the release before this code's."""
    for app in OUR_APPS:
        forget(app, EARLIER[-1].last_migrations.get(app, ""))
    return EARLIER[-1]


def test_the_number_is_that_of_the_package_and_of_the_changelog() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == CURRENT
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == CURRENT


def test_every_release_ends_with_migrations_that_are_here() -> None:
    known = set(MigrationLoader(None).disk_migrations)
    assert all(set(release.last_migrations.items()) <= known for release in EARLIER)


def test_no_release_is_named_twice() -> None:
    numbers = [*(release.number for release in EARLIER), CURRENT]
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
    MigrationRecorder(connection).record_applied("environments", LAST["environments"])
    upgrade = planned_upgrade()
    assert (upgrade.at, upgrade.steps, upgrade.problem) == (before.number, (CURRENT,), "")


def test_a_skipped_release_is_refused_and_named(before: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    between = Release("0.0.9", "v0.0.9", {**before.last_migrations, "workers": LAST["workers"]})
    monkeypatch.setattr(releases, "EARLIER", (*EARLIER, between))
    upgrade = planned_upgrade()
    assert (upgrade.at, upgrade.steps) == (before.number, ("0.0.9", CURRENT))
    assert "upgrade to 0.0.9 first" in upgrade.problem


@pytest.mark.django_db
def test_a_database_from_before_all_releases_is_refused() -> None:
    forget("workers")
    forget("controlplane")
    forget("environments", "0001_initial")
    assert f"upgrade to {EARLIER[0].number} first" in planned_upgrade().problem


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
