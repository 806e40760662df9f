"""The run's own ground: the chosen database, fresh ones beside it, and secrets that are nobody's."""

import os

import pytest
from django.conf import settings
from django.db import connection

from controlplane.startup import env
from tests.support.databases import fresh_database

pytestmark = pytest.mark.sqlite


@pytest.mark.django_db
def test_runs_on_the_chosen_database():
    assert connection.vendor == os.environ.get("TEST_DATABASE", "sqlite")


@pytest.mark.django_db
def test_sqlite_runs_in_a_file_with_a_write_ahead_log():
    if connection.vendor != "sqlite":
        pytest.skip("SQLite only")
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_fresh_database_is_on_the_same_engine_under_a_new_name():
    first, second = (env.database(fresh_database("example")) for _ in range(2))

    assert first["ENGINE"] == second["ENGINE"] == settings.DATABASES["default"]["ENGINE"]
    assert first["NAME"] != second["NAME"]


def test_no_developer_s_secrets_are_read():
    assert not env.env_file().exists()
    assert list(settings.ENCRYPTION_KEYS) == ["ek-test1"]
