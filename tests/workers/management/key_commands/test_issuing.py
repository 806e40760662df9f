"""issue_api_key and rotate_api_key: what they print and where, and what they refuse."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import ACTOR, Fleet
from tests.support.key_commands import TOKEN, UNKNOWN, refusal, run
from tests.support.shared_fleet import *  # noqa: F403  # the fixtures
from workers.api_keys.issuing import revoke_api_key
from workers.api_keys.tokens import verify
from workers.models import ApiKey, Scope


def only_key(name: str) -> ApiKey:
    return ApiKey.objects.get(name=name)


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
        "role": "worker",
        "target": str(fleet.worker),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
    }
    assert done.stderr == ""


def test_issues_a_managers_key_but_for_one_worker(fleet: Fleet) -> None:
    done = run("issue_api_key", "--queue", fleet.queue.pk, "--name", "ci", "--role", "manager")
    assert only_key("ci").role == "manager"
    assert "role manager" in done.stderr
    successor = run("rotate_api_key", only_key("ci").pk, "--format", "json")
    assert json.loads(successor.stdout)["role"] == "manager"
    told = refusal("issue_api_key", "--worker", fleet.worker.pk, "--name", "no", "--role", "manager")
    assert "one worker has nothing in it" in told


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
