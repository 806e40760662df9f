"""The command that is run before `migrate`: what it prints, and that it fails when a release would be skipped."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from controlplane import releases
from controlplane.releases import CURRENT, Release

pytestmark = pytest.mark.sqlite


def checked(**options: Any) -> str:
    stdout = StringIO()
    call_command("check_upgrade", stdout=stdout, **options)
    return stdout.getvalue().strip()


@pytest.mark.django_db
def test_says_that_nothing_is_pending() -> None:
    assert checked() == f"code {CURRENT}, database {CURRENT}, no migrations pending"


@pytest.mark.django_db
def test_names_what_is_pending_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "EARLIER", (Release("0.0.9", "v0.0.9", {"environments": "0001_initial"}),))
    since = MigrationRecorder.Migration.objects.filter(app="workers")
    pending = [f"workers.{name}" for name in since.order_by("name").values_list("name", flat=True)]
    since.delete()
    assert pending[0] == "workers.0001_initial"
    assert f"database 0.0.9, pending: {', '.join(pending)}" in checked()
    assert json.loads(checked(format="json")) == {
        "code": CURRENT,
        "database": "0.0.9",
        "is_allowed": True,
        "problem": None,
        "pending": pending,
        "unknown": [],
    }


@pytest.mark.django_db
def test_fails_after_it_printed_what_it_found() -> None:
    MigrationRecorder(connection).record_applied("workers", "9999_tomorrow")
    stdout = StringIO()
    with pytest.raises(CommandError, match="newer than this code"):
        call_command("check_upgrade", format="json", stdout=stdout)
    found = json.loads(stdout.getvalue())
    assert (found["is_allowed"], found["unknown"]) == (False, ["workers.9999_tomorrow"])
