from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from environments.models import AuditEvent
from tests.support import factories
from tests.support.factories import ACTOR, Fleet
from workers.api_keys import tokens
from workers.api_keys.issuing import (
    DEFAULT_GRACE_PERIOD,
    DEFAULT_LIFETIME,
    LONGEST_GRACE_PERIOD,
    LONGEST_LIFETIME,
    ApiKeyError,
    find_by_token,
    issue_api_key,
    revoke_api_key,
    rotate_api_key,
)
from workers.models import ApiKey, Scope

NOW = timezone.now()


# --- Issue -----------------------------------------------------------------------------------------------------------


def test_the_limits_are_those_of_the_design() -> None:
    assert timedelta(days=90) == DEFAULT_LIFETIME
    assert timedelta(days=730) == LONGEST_LIFETIME
    assert timedelta(hours=24) == DEFAULT_GRACE_PERIOD
    assert timedelta(days=30) == LONGEST_GRACE_PERIOD


def test_a_key_lives_90_days_by_default(fleet: Fleet) -> None:
    row = issue_api_key(fleet.worker, name="key", actor=ACTOR, now=NOW).row
    assert row.expires_at == NOW + timedelta(days=90)
    assert row.created_by == ACTOR.name
    assert (row.scope, row.worker, row.queue, row.environment) == (Scope.WORKER, fleet.worker, None, None)


@pytest.mark.parametrize("level", ["worker", "queue", "environment", "organization"])
def test_a_key_is_for_what_it_was_issued_for(fleet: Fleet, level: str) -> None:
    target = getattr(fleet, level)
    row = ApiKey.objects.get(pk=factories.issue_key(target).row.pk)
    assert row.scope == level
    assert row.target == target
    assert row.organization_id == fleet.organization.id


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(days=730, seconds=1)])
def test_refuses_a_lifetime_beyond_the_limits(fleet: Fleet, lifetime: timedelta) -> None:
    before = ApiKey.objects.count()
    with pytest.raises(ApiKeyError):
        factories.issue_key(fleet.worker, lifetime=lifetime)
    assert ApiKey.objects.count() == before


def test_takes_the_longest_lifetime(fleet: Fleet) -> None:
    assert factories.issue_key(fleet.worker, lifetime=LONGEST_LIFETIME).row.expires_at is not None


@pytest.mark.parametrize("reason", ["", " ", "\n\t"])
def test_a_key_that_never_expires_needs_a_written_reason(fleet: Fleet, reason: str) -> None:
    with pytest.raises(ApiKeyError, match="reason"):
        factories.issue_key(fleet.worker, lifetime=None, no_expiry_reason=reason)


def test_keeps_the_reason_why_a_key_never_expires(fleet: Fleet) -> None:
    row = factories.issue_key(fleet.worker, lifetime=None, no_expiry_reason="air gap").row
    assert (row.expires_at, row.no_expiry_reason) == (None, "air gap")
    assert AuditEvent.objects.filter(object_id=str(row.pk)).get().changes["no_expiry_reason"] == [None, "air gap"]


def test_stores_the_hash_and_never_the_key(fleet: Fleet) -> None:
    issued = factories.issue_key(fleet.worker)
    token = issued.token.reveal()
    stored = ApiKey.objects.filter(pk=issued.row.pk).values().get()
    assert stored["token_hash"] == tokens.digest(token)
    assert not any(part in str(stored) for part in token.split("."))
    assert token not in repr(issued)


def test_issuing_is_audited_with_who_and_for_what(fleet: Fleet) -> None:
    row = factories.issue_key(fleet.queue, name="ci").row
    event = AuditEvent.objects.get(object_id=str(row.pk))
    assert (event.action, event.actor, event.organization_id) == ("api_key.issued", ACTOR.name, fleet.organization.id)
    assert event.changes["scope"] == [None, "queue"]


# --- Rotate ----------------------------------------------------------------------------------------------------------


def rotate(fleet: Fleet, **kwargs: timedelta) -> ApiKey:
    return rotate_api_key(fleet.api_key.pk, actor=ACTOR, now=timezone.now(), **kwargs).row


@pytest.mark.parametrize("level", ["worker", "queue", "environment", "organization"])
def test_the_successor_has_the_same_scope_name_and_lifetime(fleet: Fleet, level: str) -> None:
    old = factories.issue_key(getattr(fleet, level), lifetime=timedelta(days=7), age=timedelta(days=3)).row
    now = timezone.now()
    new = rotate_api_key(old.pk, actor=ACTOR, now=now).row
    assert new.pk != old.pk
    assert (new.scope, new.target, new.name) == (level, getattr(fleet, level), old.name)
    assert new.expires_at == now + timedelta(days=7)
    old.refresh_from_db()
    assert old.replaced_by == new
    assert old.expires_at == now + timedelta(hours=24)
    assert old.revoked_at is None


def test_the_successors_hash_is_another_one(fleet: Fleet) -> None:
    assert rotate(fleet).token_hash != fleet.api_key.token_hash


def test_a_grace_period_never_prolongs_the_old_key(fleet: Fleet) -> None:
    old = factories.issue_key(fleet.worker, lifetime=timedelta(hours=1)).row
    rotate_api_key(old.pk, actor=ACTOR, now=timezone.now(), grace_period=timedelta(days=30))
    assert ApiKey.objects.get(pk=old.pk).expires_at == old.expires_at


def test_a_key_without_expiry_ends_after_the_grace_period_and_its_successor_has_none(fleet: Fleet) -> None:
    old = factories.issue_key(fleet.worker, lifetime=None, no_expiry_reason="air gap").row
    now = timezone.now()
    new = rotate_api_key(old.pk, actor=ACTOR, now=now).row
    assert (new.expires_at, new.no_expiry_reason) == (None, "air gap")
    assert ApiKey.objects.get(pk=old.pk).expires_at == now + timedelta(hours=24)


@pytest.mark.parametrize("grace_period", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
def test_refuses_a_grace_period_beyond_the_limits(fleet: Fleet, grace_period: timedelta) -> None:
    with pytest.raises(ApiKeyError):
        rotate(fleet, grace_period=grace_period)
    assert ApiKey.objects.count() == 1


def test_refuses_to_rotate_twice_and_names_the_successor(fleet: Fleet) -> None:
    successor = rotate(fleet)
    with pytest.raises(ApiKeyError, match=str(successor.pk)):
        rotate(fleet)
    assert ApiKey.objects.count() == 2


@pytest.mark.parametrize(
    "change", [{"revoked_at": NOW}, {"expires_at": NOW - timedelta(days=1)}], ids=["revoked", "expired"]
)
def test_refuses_to_rotate_a_key_that_is_over(fleet: Fleet, change: dict[str, object]) -> None:
    ApiKey.objects.update(**change)
    with pytest.raises(ApiKeyError, match="revoked or expired"):
        rotate(fleet)


def test_rotating_is_audited_for_both_keys(fleet: Fleet) -> None:
    successor = rotate(fleet)
    assert AuditEvent.objects.filter(object_id=str(successor.pk), action="api_key.issued").exists()
    event = AuditEvent.objects.get(object_id=str(fleet.api_key.pk), action="api_key.rotated")
    assert event.changes["replaced_by"] == [None, str(successor.pk)]


# --- Revoke ----------------------------------------------------------------------------------------------------------


def test_revoking_keeps_when_and_why(fleet: Fleet) -> None:
    now = timezone.now()
    assert revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=now)
    row = ApiKey.objects.get(pk=fleet.api_key.pk)
    assert (row.revoked_at, row.revoke_reason) == (now, "leaked")
    assert AuditEvent.objects.get(action="api_key.revoked").object_id == str(row.pk)


def test_revoking_again_changes_nothing(fleet: Fleet) -> None:
    now = timezone.now()
    revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=now)
    assert not revoke_api_key(fleet.api_key.pk, reason="other", actor=ACTOR, now=now + timedelta(days=1))
    assert ApiKey.objects.get(pk=fleet.api_key.pk).revoke_reason == "leaked"
    assert AuditEvent.objects.filter(action="api_key.revoked").count() == 1


@pytest.mark.parametrize("reason", ["", "  "])
def test_revoking_needs_a_reason(fleet: Fleet, reason: str) -> None:
    with pytest.raises(ApiKeyError):
        revoke_api_key(fleet.api_key.pk, reason=reason, actor=ACTOR, now=timezone.now())
    assert ApiKey.objects.get(pk=fleet.api_key.pk).revoked_at is None


def test_an_expired_key_can_still_be_revoked(fleet: Fleet) -> None:
    ApiKey.objects.update(expires_at=NOW - timedelta(days=1))
    assert revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=timezone.now())


def test_an_unknown_key_is_an_error_that_says_so(fleet: Fleet) -> None:
    unknown = uuid4()
    with pytest.raises(ApiKeyError, match=str(unknown)):
        revoke_api_key(unknown, reason="leaked", actor=ACTOR, now=timezone.now())
    with pytest.raises(ApiKeyError, match=str(unknown)):
        rotate_api_key(unknown, actor=ACTOR, now=timezone.now())


def test_finds_the_row_of_a_leaked_key_even_when_it_is_over(fleet: Fleet) -> None:
    ApiKey.objects.update(revoked_at=NOW, expires_at=NOW)
    assert find_by_token(fleet.token) == fleet.api_key


@pytest.mark.parametrize("text", ["", "words", "a.b.c", "x" * 100_000, "\0", "é", "\udcff"])
def test_finds_no_row_for_what_is_no_key_of_ours(fleet: Fleet, text: str) -> None:
    assert find_by_token(text) is None
    assert find_by_token(fleet.token + text) is None or not text
