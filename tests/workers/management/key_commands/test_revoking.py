"""revoke_api_key: what it prints and refuses; no message repeats a token."""

import io
import json
import sys
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from tests.support.key_commands import TOKEN, UNKNOWN, Done, everything, refusal, run
from tests.support.servers import ControlPlane
from workers.api_keys.issuing import find_by_token
from workers.models import ApiKey


def report(monkeypatch: pytest.MonkeyPatch, content: str | bytes, errors: str = "strict") -> None:
    """Lets the next command read this from stdin, as a terminal in UTF-8 gives it."""
    data = content.encode() if isinstance(content, str) else content
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors=errors))


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
