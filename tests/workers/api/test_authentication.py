import logging
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from environments.encryption import KeyRing, generate_key
from tests.support import factories
from tests.support.calls import INVALID_TOKEN, assert_refused, start
from tests.support.factories import ACTOR, Fleet
from workers.api_keys import tokens
from workers.api_keys.issuing import revoke_api_key, rotate_api_key
from workers.api_keys.presented import VerifiedTokens, verified_tokens
from workers.models import ApiKey, Scope


def assert_invalid(fleet: Fleet, token: str | None = None) -> None:
    response = start(fleet, token=token)
    assert_refused(response, 401)
    assert response.json() == {"detail": "This API key is not valid."}
    assert response["WWW-Authenticate"] == INVALID_TOKEN


def test_takes_a_valid_key(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200


def test_refuses_a_revoked_key_on_its_next_request(fleet: Fleet) -> None:
    revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=timezone.now())
    assert_invalid(fleet)


def test_refuses_a_key_after_a_request_that_it_passed(fleet: Fleet) -> None:
    """No authentication is remembered from one request to the next."""
    assert start(fleet).status_code == 200
    ApiKey.objects.update(revoked_at=timezone.now())
    assert start(fleet).status_code == 401


def test_refuses_a_key_whose_row_expired_before_its_token(fleet: Fleet) -> None:
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert_invalid(fleet)


@pytest.mark.parametrize("ahead", [timedelta(seconds=60), timedelta(days=730), timedelta(days=-2)])
def test_a_key_works_at_once_wherever_the_clock_of_who_issued_it_stood(fleet: Fleet, ahead: timedelta) -> None:
    token = factories.issue_token(fleet.worker, age=-ahead, lifetime=timedelta(days=1))
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert_invalid(fleet, token)
    ApiKey.objects.update(expires_at=timezone.now() + timedelta(days=1))
    assert start(fleet, token=token).status_code == 200


def test_refuses_a_key_without_row(fleet: Fleet) -> None:
    ApiKey.objects.all().delete()
    assert_invalid(fleet)


def test_refuses_a_key_whose_row_has_another_hash(fleet: Fleet) -> None:
    ApiKey.objects.update(token_hash="0" * 64)
    assert_invalid(fleet)


def test_refuses_a_key_whose_row_moved_to_another_organization(fleet: Fleet) -> None:
    other = factories.create_fleet()
    issued = factories.issue_key(fleet.organization)
    ApiKey.objects.filter(pk=issued.row.pk).update(organization=other.organization)
    assert_invalid(fleet, issued.token.reveal())


def test_a_key_without_expiry_is_valid(fleet: Fleet) -> None:
    assert (
        start(fleet, token=factories.issue_token(fleet.worker, lifetime=None, no_expiry_reason="air gap")).status_code
        == 200
    )


def test_both_keys_are_valid_during_the_grace_period_and_then_only_the_new_one(fleet: Fleet) -> None:
    successor = rotate_api_key(fleet.api_key.pk, actor=ACTOR, now=timezone.now(), grace_period=timedelta(hours=1))
    assert start(fleet).status_code == 200
    assert start(fleet, token=successor.token.reveal()).status_code == 200
    ApiKey.objects.filter(pk=fleet.api_key.pk).update(expires_at=timezone.now())
    assert start(fleet).status_code == 401
    assert start(fleet, token=successor.token.reveal()).status_code == 200


def test_without_grace_period_the_old_key_ends_at_once(fleet: Fleet) -> None:
    successor = rotate_api_key(fleet.api_key.pk, actor=ACTOR, now=timezone.now(), grace_period=timedelta(0))
    assert_invalid(fleet)
    assert start(fleet, token=successor.token.reveal()).status_code == 200


def test_narrowing_a_key_acts_on_its_next_request(fleet: Fleet) -> None:
    issued = factories.issue_key(fleet.organization)
    token = issued.token.reveal()
    assert start(fleet, token=token).status_code == 200
    elsewhere = factories.create_queue(fleet.environment, "elsewhere")
    ApiKey.objects.filter(pk=issued.row.pk).update(scope=Scope.QUEUE, queue=elsewhere)
    response = start(fleet, token=token)
    assert response.status_code == 403
    assert "insufficient_scope" in response["WWW-Authenticate"]


def test_the_reason_goes_to_the_log_and_the_key_does_not(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=timezone.now())
    start(fleet)
    start(fleet, token=fleet.token[:-2])
    assert "revoked" in caplog.text
    assert str(fleet.api_key.pk) in caplog.text
    for part in fleet.token.split("."):
        assert part[:20] not in caplog.text


def test_a_forged_key_costs_no_statement(fleet: Fleet, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        assert start(fleet, token=f"{fleet.token[:-6]}AAAAAA").status_code == 401


def test_a_refused_key_writes_nothing(fleet: Fleet) -> None:
    before = list(ApiKey.objects.order_by("pk").values())
    start(fleet, token=fleet.token[:-6])
    assert list(ApiKey.objects.order_by("pk").values()) == before


# --- What is remembered of a token ------------------------------------------------------------------------------------


def test_a_remembered_token_is_refused_as_soon_as_its_row_says_so(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    assert verified_tokens.get(tokens.digest(fleet.token)) is not None
    for change in ({"revoked_at": timezone.now()}, {"expires_at": timezone.now()}, {"token_hash": "0" * 64}):
        before = {name: getattr(fleet.api_key, name) for name in change}
        ApiKey.objects.filter(pk=fleet.api_key.pk).update(**change)
        assert start(fleet).status_code == 401, change
        ApiKey.objects.filter(pk=fleet.api_key.pk).update(**before)
    assert start(fleet).status_code == 200
    ApiKey.objects.all().delete()
    assert start(fleet).status_code == 401


def test_nothing_is_remembered_of_a_token_whose_row_was_not_found(fleet: Fleet) -> None:
    ApiKey.objects.all().delete()
    assert start(fleet).status_code == 401
    assert verified_tokens.get(tokens.digest(fleet.token)) is None


def test_no_more_tokens_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerifiedTokens, "LARGEST", 3)
    remembered = VerifiedTokens()
    for number in range(5):
        remembered.add(str(number), tokens.Claims(uuid4(), "acme"))
    assert [remembered.get(str(number)) is not None for number in range(5)] == [False, False, True, True, True]


def test_a_token_is_forgotten_with_the_ring_that_verified_it(settings: Settings) -> None:
    remembered = VerifiedTokens()
    remembered.add("a", tokens.Claims(uuid4(), "acme"))
    assert remembered.get("a")
    settings.API_KEY_SIGNING_KEYS = KeyRing([generate_key("acp-another")])
    assert remembered.get("a") is None
