"""`manage.py accept_restore`: no key and no session of then is good any more, and only then the database is served."""

import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from controlplane.models import DatabaseMark
from controlplane.serving.restoration import RESTORED, Memory, mark
from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from tests.support.notifications import create_target
from workers.models import ApiKey, NotificationTarget

pytestmark = pytest.mark.django_db


@pytest.fixture
def fleet() -> Fleet:
    """A fleet with a second key, a session and two people, in a database that was restored."""
    fleet = fresh_fleet()
    factories.issue_key(fleet.queue)
    session = SessionStore()
    session["of"] = "then"
    session.save()
    create_target(fleet.organization)
    User.objects.create_user("ada")
    User.objects.create_user("removed")
    mark(timezone.now())
    DatabaseMark.objects.update(identity="another")
    return fleet


def run(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("accept_restore", *arguments, "--format=json", stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_it_revokes_all_keys_ends_all_sessions_and_lets_the_database_be_served(fleet: Fleet) -> None:
    assert Memory().problem() == RESTORED
    counts = {"keys_revoked": 2, "keys_kept": 0, "people_made_inactive": 0, "sessions_ended": 1, "targets_disabled": 1}
    assert run() == {"is_dry_run": False, **counts}
    assert start(fleet).status_code == 401
    assert not NotificationTarget.objects.get().is_enabled
    assert AuditEvent.objects.get(action="notification_target.updated").changes == {"is_enabled": [True, False]}
    assert not Session.objects.exists()
    assert Memory().problem() == ""
    event = AuditEvent.objects.get(action="database.restore_accepted")
    assert event.actor == "command:accept_restore"
    assert {name: value for name, (_, value) in event.changes.items()} == counts | {
        "reason": "the database was restored from a backup"
    }


def test_each_key_goes_on_record(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.api_keys.issuing.BATCH", 1)
    run("--reason", "disk broken")
    revoked = AuditEvent.objects.filter(action="api_key.revoked").values_list("object_id", flat=True)
    assert sorted(revoked) == sorted(str(pk) for pk in ApiKey.objects.values_list("pk", flat=True))
    assert set(ApiKey.objects.values_list("revoke_reason", flat=True)) == {"disk broken"}


def test_a_key_that_was_revoked_before_keeps_its_reason(fleet: Fleet) -> None:
    ApiKey.objects.filter(pk=fleet.api_key.pk).update(revoked_at=timezone.now(), revoke_reason="lost")
    assert run()["keys_revoked"] == 1
    assert ApiKey.objects.get(pk=fleet.api_key.pk).revoke_reason == "lost"


def test_keys_are_kept_with_a_reason_only(fleet: Fleet) -> None:
    with pytest.raises(CommandError, match="--reason"):
        run("--keep-keys", "--reason", " ")
    assert Memory().problem() == RESTORED
    assert run("--keep-keys", "--reason", "pg_upgrade")["keys_kept"] == 2
    assert NotificationTarget.objects.get().is_enabled
    assert start(fleet).status_code == 200
    assert Memory().problem() == ""
    event = AuditEvent.objects.get(action="database.restore_accepted")
    assert event.changes["reason"] == [None, "pg_upgrade"]


def test_a_dry_run_counts_and_changes_nothing(fleet: Fleet) -> None:
    before = AuditEvent.objects.count()
    counts = {"keys_revoked": 2, "keys_kept": 0, "people_made_inactive": 1, "sessions_ended": 1, "targets_disabled": 1}
    assert run("--dry-run", "--sign-in", "ada") == {"is_dry_run": True, **counts}
    assert (AuditEvent.objects.count(), Session.objects.count()) == (before, 1)
    assert Memory().problem() == RESTORED
    assert start(fleet).status_code == 200


def test_nobody_may_sign_in_but_who_is_named(fleet: Fleet) -> None:
    with pytest.raises(CommandError, match="nobody"):
        run("--sign-in", "ada", "--sign-in", "nobody")
    assert ApiKey.objects.filter(revoked_at=None).count() == 2
    assert run("--sign-in", "ada")["people_made_inactive"] == 1
    assert list(User.objects.filter(is_active=True).values_list("username", flat=True)) == ["ada"]
    event = AuditEvent.objects.get(action="user.updated")
    assert (event.object_name, event.changes) == ("removed", {"is_active": [True, False]})


def test_it_can_be_run_when_nothing_was_noticed(fleet: Fleet) -> None:
    mark(timezone.now())
    assert run()["keys_revoked"] == 2
    assert run()["keys_revoked"] == 0
    assert connection.vendor != "postgresql" or DatabaseMark.objects.get().timeline == 1
