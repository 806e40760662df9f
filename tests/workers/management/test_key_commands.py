"""issue_api_key, rotate_api_key and revoke_api_key: what they print and where, and what they refuse."""

import io
import json
import re
import sys
from datetime import timedelta
from io import StringIO
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import ACTOR, Fleet
from tests.support.servers import ControlPlane
from workers.api_keys.issuing import find_by_token, revoke_api_key
from workers.api_keys.tokens import verify
from workers.models import ApiKey, Scope

#: What every API key looks like on the wire: three parts of base64url.
TOKEN = re.compile(r"[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}")
UNKNOWN = UUID("00000000-0000-4000-8000-000000000000")


class Done(NamedTuple):
    """What a command wrote."""

    stdout: str
    stderr: str


def run(command: str, *arguments: Any) -> Done:
    stdout, stderr = StringIO(), StringIO()
    call_command(command, *map(str, arguments), stdout=stdout, stderr=stderr)
    return Done(stdout.getvalue(), stderr.getvalue())


def refusal(command: str, *arguments: Any) -> str:
    """The message of a command that fails with exit code 1, prints no key and changes nothing."""
    before = everything()
    stdout, stderr = StringIO(), StringIO()
    with pytest.raises(CommandError) as caught, transaction.atomic():
        call_command(command, *map(str, arguments), stdout=stdout, stderr=stderr)
    assert caught.value.returncode == 1
    assert stdout.getvalue() == ""
    assert everything() == before
    message = str(caught.value)
    assert not TOKEN.search(message + stderr.getvalue())
    return message


def everything() -> list[dict[str, Any]]:
    return [*ApiKey.objects.order_by("pk").values(), *AuditEvent.objects.order_by("pk").values()]


def report(monkeypatch: pytest.MonkeyPatch, content: str | bytes, errors: str = "strict") -> None:
    """Lets the next command read this from stdin, as a terminal in UTF-8 gives it."""
    data = content.encode() if isinstance(content, str) else content
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors=errors))


def only_key(name: str) -> ApiKey:
    return ApiKey.objects.get(name=name)


# --- issue_api_key -----------------------------------------------------------------------------------------------------


def test_issue_prints_the_key_alone_on_stdout(fleet: Fleet) -> None:
    done = run("issue_api_key", "--worker", fleet.worker.pk, "--name", "ci")
    assert TOKEN.fullmatch(done.stdout.removesuffix("\n"))
    assert not TOKEN.search(done.stderr)
    assert str(only_key("ci").pk) in done.stderr


def test_an_issued_key_starts_the_worker(fleet: Fleet) -> None:
    token = run("issue_api_key", "--worker", fleet.worker.pk, "--name", "ci").stdout.strip()
    assert start(fleet, token=token).status_code == 200


def test_issue_prints_json(fleet: Fleet) -> None:
    done = run("issue_api_key", "--worker", fleet.worker.pk, "--name", "ci", "--format", "json")
    row = only_key("ci")
    shown = json.loads(done.stdout)
    token = shown.pop("api_key")
    assert verify(token).api_key_id == row.pk
    assert shown == {
        "id": str(row.pk),
        "name": "ci",
        "organization_id": fleet.organization.id,
        "scope": "worker",
        "target": str(fleet.worker),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
    }
    assert done.stderr == ""


@pytest.mark.parametrize("scope", Scope.values)
def test_issues_a_key_of_each_scope(scope: str, fleet: Fleet) -> None:
    target = getattr(fleet, scope)
    token = run("issue_api_key", f"--{scope}", target.pk, "--name", "ci").stdout.strip()
    row = only_key("ci")
    assert (row.scope, row.target, row.organization) == (scope, target, fleet.organization)
    assert start(fleet, token=token).status_code == 200


def test_a_key_of_another_queue_does_not_start_the_worker(fleet: Fleet) -> None:
    other = factories.create_queue(fleet.environment, "other")
    token = run("issue_api_key", "--queue", other.pk, "--name", "ci").stdout.strip()
    assert start(fleet, token=token).status_code == 403


@pytest.mark.parametrize("days", [1, 90, 730])
def test_issue_takes_the_lifetime_in_days(days: int, fleet: Fleet) -> None:
    run("issue_api_key", "--worker", fleet.worker.pk, "--name", "ci", "--days", days)
    row = only_key("ci")
    assert row.expires_at is not None
    assert row.expires_at - row.created_at == timedelta(days=days)


def test_a_key_lives_90_days_unless_told_otherwise(fleet: Fleet) -> None:
    run("issue_api_key", "--worker", fleet.worker.pk, "--name", "ci")
    row = only_key("ci")
    assert row.expires_at is not None
    assert row.expires_at - row.created_at == timedelta(days=90)


def test_issues_a_key_that_never_expires_with_its_reason(fleet: Fleet) -> None:
    done = run("issue_api_key", "--worker", fleet.worker.pk, "--name", "ci", "--never-expires", "no clock on board")
    row = only_key("ci")
    assert (row.expires_at, row.no_expiry_reason) == (None, "no clock on board")
    assert start(fleet, token=done.stdout.strip()).status_code == 200


def test_issue_says_in_the_audit_trail_which_command_it_was(fleet: Fleet) -> None:
    run("issue_api_key", "--worker", fleet.worker.pk, "--name", "ci")
    event = AuditEvent.objects.get(object_id=only_key("ci").pk)
    assert (event.actor, event.action) == ("command:issue_api_key", "api_key.issued")


@pytest.mark.parametrize("scope", Scope.values)
def test_issue_refuses_a_target_that_does_not_exist(scope: str, fleet: Fleet) -> None:
    unknown = "nobody" if scope == "organization" else UNKNOWN
    assert f"There is no {scope} {unknown}." in refusal("issue_api_key", f"--{scope}", unknown, "--name", "ci")


@pytest.mark.parametrize("days", ["0", "-1", "731", "999999999", "9" * 30])
def test_issue_refuses_a_lifetime_out_of_range(days: str, fleet: Fleet) -> None:
    message = refusal("issue_api_key", "--worker", fleet.worker.pk, "--name", "ci", f"--days={days}")
    assert "730 days" in message


@pytest.mark.parametrize("name", ["", "  ", "n" * 201, f" {'n' * 200}"])
def test_issue_refuses_a_name_that_is_none_or_too_long(name: str, fleet: Fleet) -> None:
    assert "200 characters" in refusal("issue_api_key", "--worker", fleet.worker.pk, f"--name={name}")


@pytest.mark.parametrize("reason", ["", "  "])
def test_issue_refuses_no_expiry_without_a_reason(reason: str, fleet: Fleet) -> None:
    arguments = ("--worker", fleet.worker.pk, "--name", "ci", f"--never-expires={reason}")
    assert "reason" in refusal("issue_api_key", *arguments)


def test_issue_refuses_a_reason_that_is_too_long(fleet: Fleet) -> None:
    arguments = ("--worker", fleet.worker.pk, "--name", "ci", "--never-expires", "r" * 301)
    assert "300 characters" in refusal("issue_api_key", *arguments)


def test_issue_refuses_two_targets_and_none(fleet: Fleet) -> None:
    both = ("--worker", fleet.worker.pk, "--queue", fleet.queue.pk)
    assert "not allowed with" in refusal("issue_api_key", *both, "--name", "ci")
    assert "is required" in refusal("issue_api_key", "--name", "ci")


# --- rotate_api_key ----------------------------------------------------------------------------------------------------


def test_rotate_prints_the_successor_alone_on_stdout(fleet: Fleet) -> None:
    done = run("rotate_api_key", fleet.api_key.pk)
    assert TOKEN.fullmatch(done.stdout.removesuffix("\n"))
    assert not TOKEN.search(done.stderr)
    assert str(fleet.api_key.pk) in done.stderr


def test_rotate_prints_json_that_names_both(fleet: Fleet) -> None:
    shown = json.loads(run("rotate_api_key", fleet.api_key.pk, "--format", "json").stdout)
    fleet.api_key.refresh_from_db()
    assert shown["id"] == str(fleet.api_key.replaced_by_id)
    assert shown["replaces"] == str(fleet.api_key.pk)
    assert verify(shown["api_key"]).api_key_id == fleet.api_key.replaced_by_id


def test_both_keys_start_the_worker_during_the_grace_period(fleet: Fleet) -> None:
    successor = run("rotate_api_key", fleet.api_key.pk).stdout.strip()
    assert start(fleet).status_code == 200
    assert start(fleet, token=successor).status_code == 200


def test_the_old_key_ends_after_the_grace_period(fleet: Fleet) -> None:
    before = timezone.now()
    run("rotate_api_key", fleet.api_key.pk, "--grace-hours", 2)
    fleet.api_key.refresh_from_db()
    assert fleet.api_key.expires_at is not None
    assert timedelta() <= fleet.api_key.expires_at - before - timedelta(hours=2) < timedelta(minutes=1)


def test_no_grace_period_ends_the_old_key_at_once(fleet: Fleet) -> None:
    successor = run("rotate_api_key", fleet.api_key.pk, "--grace-hours", 0).stdout.strip()
    assert start(fleet).status_code == 401
    assert start(fleet, token=successor).status_code == 200


def test_a_successor_keeps_scope_name_and_lifetime(fleet: Fleet) -> None:
    key = factories.issue_key(fleet.queue, name="fleet", lifetime=timedelta(days=10), age=timedelta(days=3)).row
    run("rotate_api_key", key.pk)
    successor = ApiKey.objects.get(replaces=key)
    assert (successor.scope, successor.queue, successor.name) == (Scope.QUEUE, fleet.queue, "fleet")
    assert successor.expires_at is not None
    assert successor.expires_at - successor.created_at == timedelta(days=10)


@pytest.mark.parametrize("hours", ["-1", "721", "9" * 30])
def test_rotate_refuses_a_grace_period_out_of_range(hours: str, fleet: Fleet) -> None:
    assert "0 to 720" in refusal("rotate_api_key", fleet.api_key.pk, f"--grace-hours={hours}")


def test_rotate_refuses_an_unknown_key(fleet: Fleet) -> None:
    assert str(UNKNOWN) in refusal("rotate_api_key", UNKNOWN)


def test_rotate_refuses_a_revoked_key(fleet: Fleet) -> None:
    revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=timezone.now())
    assert "issue a new one" in refusal("rotate_api_key", fleet.api_key.pk)


def test_rotate_refuses_an_expired_key(fleet: Fleet) -> None:
    key = factories.issue_key(fleet.worker, lifetime=timedelta(days=1), age=timedelta(days=2)).row
    assert "issue a new one" in refusal("rotate_api_key", key.pk)


def test_rotate_points_from_a_rotated_key_to_its_successor(fleet: Fleet) -> None:
    run("rotate_api_key", fleet.api_key.pk)
    successor = ApiKey.objects.get(replaces=fleet.api_key)
    assert str(successor.pk) in refusal("rotate_api_key", fleet.api_key.pk)


# --- revoke_api_key ----------------------------------------------------------------------------------------------------


def test_revokes_by_id(fleet: Fleet) -> None:
    done = run("revoke_api_key", fleet.api_key.pk, "--reason", "laptop lost")
    assert done.stdout == f"revoked: {fleet.api_key.pk}\n"
    assert start(fleet).status_code == 401
    fleet.api_key.refresh_from_db()
    assert fleet.api_key.revoke_reason == "laptop lost"


def test_revokes_several_ids_at_once(fleet: Fleet) -> None:
    keys = [fleet.api_key, factories.issue_key(fleet.worker).row]
    done = run("revoke_api_key", *(key.pk for key in keys), "--reason", "laptop lost", "--format", "json")
    ids = [str(key.pk) for key in keys]
    assert json.loads(done.stdout) == {"revoked": ids, "revoked_before": [], "unknown": []}


def test_revoking_again_changes_nothing(fleet: Fleet) -> None:
    run("revoke_api_key", fleet.api_key.pk, "--reason", "first")
    before = everything()
    done = run("revoke_api_key", fleet.api_key.pk, "--reason", "second")
    assert done.stdout == f"revoked before: {fleet.api_key.pk}\n"
    assert everything() == before


def test_revokes_the_leaked_keys_on_stdin(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    other = factories.issue_key(fleet.queue)
    report(monkeypatch, f"{fleet.token}\n\n   \n  {other.token.reveal()}\t\r\n")
    done = run("revoke_api_key", "--stdin", "--reason", "found in a public repository", "--format", "json")
    ids = [str(fleet.api_key.pk), str(other.row.pk)]
    assert json.loads(done.stdout) == {"revoked": ids, "revoked_before": [], "unknown": []}
    assert not TOKEN.search(done.stdout + done.stderr)
    assert start(fleet).status_code == start(fleet, token=other.token.reveal()).status_code == 401


def test_revokes_a_leaked_key_that_is_expired(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    expired = factories.issue_key(fleet.worker, lifetime=timedelta(days=1), age=timedelta(days=2))
    report(monkeypatch, expired.token.reveal())
    run("revoke_api_key", "--stdin", "--reason", "leaked")
    assert ApiKey.objects.get(pk=expired.row.pk).revoked_at


def test_a_report_with_unknown_lines_revokes_the_others_and_fails(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = f"{fleet.token[:-4]}AAAA"
    report(monkeypatch, f"{stranger}\n\n{fleet.token}\n{'x' * 100_000}\n\x00\nschlüssel\n")
    stdout = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("revoke_api_key", "--stdin", "--reason", "leaked", "--format", "json", stdout=stdout)
    assert caught.value.returncode == 1
    assert json.loads(stdout.getvalue()) == {
        "revoked": [str(fleet.api_key.pk)],
        "revoked_before": [],
        "unknown": ["line 1", "line 4", "line 5", "line 6"],
    }
    assert not TOKEN.search(str(caught.value))
    assert str(caught.value) == "Not known here: line 1, line 4, line 5, line 6."


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_report_that_is_not_utf_8_revokes_what_it_names(
    errors: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leak report is whatever somebody found; one odd line must not save the keys in the others."""
    report(monkeypatch, b"caf\xe9 \xff\n" + fleet.token.encode() + b"\n", errors)
    with pytest.raises(CommandError, match=r"^Not known here: line 1\.$"):
        run("revoke_api_key", "--stdin", "--reason", "leaked")
    assert start(fleet).status_code == 401


def test_a_key_twice_in_a_report_is_revoked_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    report(monkeypatch, f"{fleet.token}\n{fleet.token}")
    done = run("revoke_api_key", "--stdin", "--reason", "leaked")
    assert done.stdout == f"revoked: {fleet.api_key.pk}\nrevoked before: {fleet.api_key.pk}\n"


def test_an_empty_report_changes_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything()
    report(monkeypatch, "\n\n")
    assert run("revoke_api_key", "--stdin", "--reason", "leaked") == Done("", "")
    assert everything() == before


def test_unknown_ids_are_named_and_the_others_revoked(fleet: Fleet) -> None:
    unknown = uuid4()
    with pytest.raises(CommandError, match=str(unknown)):
        run("revoke_api_key", unknown, fleet.api_key.pk, "--reason", "leaked")
    assert start(fleet).status_code == 401


def test_revoke_wants_ids_or_stdin(fleet: Fleet) -> None:
    assert "--stdin" in refusal("revoke_api_key", "--reason", "leaked")
    assert "--stdin" in refusal("revoke_api_key", fleet.api_key.pk, "--stdin", "--reason", "leaked")


@pytest.mark.parametrize("reason", ["", "  "])
def test_revoke_wants_a_reason(reason: str, fleet: Fleet) -> None:
    assert "--reason" in refusal("revoke_api_key", fleet.api_key.pk, f"--reason={reason}")


def test_a_long_reason_is_kept_as_far_as_it_fits(fleet: Fleet) -> None:
    run("revoke_api_key", fleet.api_key.pk, "--reason", "r" * 1_000)
    fleet.api_key.refresh_from_db()
    assert fleet.api_key.revoke_reason == "r" * 300


# --- Tokens in messages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("revoke_api_key", ["{token}", "--reason", "leaked"]),
        ("rotate_api_key", ["{token}"]),
        ("issue_api_key", ["--worker", "{token}", "--name", "ci"]),
        ("issue_api_key", ["--organization", "{token}", "--name", "ci"]),
    ],
)
def test_a_key_in_place_of_an_id_is_not_repeated(command: str, arguments: list[str], fleet: Fleet) -> None:
    """The message lands in a terminal's history or a CI log; `refusal` looks for the token in it."""
    assert find_by_token(fleet.token) == fleet.api_key
    assert refusal(command, *(argument.format(token=fleet.token) for argument in arguments))


def test_a_refused_command_exits_with_1_and_no_traceback(control_plane: ControlPlane) -> None:
    commands = (
        ("issue_api_key", "--worker", str(UNKNOWN), "--name", "ci"),
        ("rotate_api_key", str(UNKNOWN)),
        ("revoke_api_key", "--stdin", "--reason", "leaked"),
    )
    for command in commands:
        done = control_plane.manage(*command, input=f"{control_plane.api_key}x\n", check=False)
        assert done.returncode == 1, done
        assert done.stdout == ""
        assert done.stderr.startswith("CommandError: ")
        assert "Traceback" not in done.stderr
        assert control_plane.api_key not in done.stderr


def test_a_revocation_that_is_broken_off_prints_just_what_was_done(another: Any) -> None:
    """The second key is held by another session; the first one is revoked, and that is told and on record."""
    fleet = fresh_fleet()
    first, second, third = (factories.issue_key(fleet.worker, name=f"key-{number}").row for number in range(3))
    another.execute("SELECT id FROM workers_apikey WHERE id = %s FOR UPDATE", [second.pk])
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = 50")
    stdout = StringIO()
    arguments = map(str, (first.pk, second.pk, third.pk, "--reason=leaked", "--format=json"))
    with pytest.raises(CommandError, match="only what is printed was done"):
        call_command("revoke_api_key", *arguments, stdout=stdout)
    connection.close()
    another.rollback()
    assert json.loads(stdout.getvalue()) == {"revoked": [str(first.pk)], "revoked_before": [], "unknown": []}
    assert list(ApiKey.objects.exclude(revoked_at=None)) == [first]
    assert [event.object_id for event in AuditEvent.objects.filter(action="api_key.revoked")] == [str(first.pk)]
