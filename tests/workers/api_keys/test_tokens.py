import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from django.utils import timezone
from pytest_django import Settings

from environments.encryption import KeyRing, encode, generate_key
from workers.api_keys import tokens
from workers.api_keys.tokens import InvalidTokenError

KEY_ID = UUID("12345678-1234-4234-8234-123456789abc")


def mint(**kwargs: Any) -> str:
    now = timezone.now()
    values = {
        "api_key_id": KEY_ID,
        "organization_id": "acme",
        "name": "terraform",
        "now": now,
        "expires_at": now + timedelta(days=1),
        **kwargs,
    }
    return tokens.mint(**values).token.reveal()


def part(text: str, index: int) -> dict[str, Any]:
    encoded = text.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))


def test_verifies_what_it_minted() -> None:
    assert tokens.verify(mint()) == (KEY_ID, "acme")


def test_the_claims_are_those_of_the_design(settings: Settings) -> None:
    now = timezone.now()
    text = mint(now=now, expires_at=now + timedelta(days=90))
    assert part(text, 0) == {"alg": "HS256", "typ": "JWT", "kid": settings.API_KEY_SIGNING_KEYS.active.id}
    claims = part(text, 1)
    assert len(base64.urlsafe_b64decode(claims.pop("jti") + "=")) == 32
    assert claims == {
        "iss": "acp",
        "aud": "acp-worker",
        "sub": str(KEY_ID),
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()),
        "exp": int((now + timedelta(days=90)).timestamp()),
        "token_type": "worker",
        "org": "acme",
        "organization": "acme",
        "email": "terraform",
    }


def test_every_token_is_another_one() -> None:
    now = timezone.now()
    assert len({mint(now=now) for _ in range(50)}) == 50


def test_every_key_id_and_so_every_token_begins_alike(settings: Settings) -> None:
    assert all(key_id.startswith("acp-") for key_id in settings.API_KEY_SIGNING_KEYS)
    prefixes = set()
    for _ in range(3):
        settings.API_KEY_SIGNING_KEYS = KeyRing([generate_key(f"acp-{uuid4().hex[:8]}")])
        prefixes.add(mint()[:34])
    assert prefixes == {encode(b'{"alg":"HS256","kid":"acp-')[:34]}


def test_a_key_that_never_expires_still_carries_an_expiry() -> None:
    text = mint(expires_at=None)
    assert datetime.fromtimestamp(part(text, 1)["exp"], UTC).year == 9999
    assert tokens.verify(text).api_key_id == KEY_ID


def test_keeps_only_the_digest(settings: Settings) -> None:
    minted = tokens.mint(api_key_id=KEY_ID, organization_id="acme", name="ci", now=timezone.now(), expires_at=None)
    text = minted.token.reveal()
    assert minted.digest == tokens.digest(text)
    assert len(minted.digest) == 64
    assert text not in repr(minted)
    assert minted.signing_key_id == settings.API_KEY_SIGNING_KEYS.active.id


def test_a_former_signing_key_still_verifies_and_no_longer_signs(settings: Settings) -> None:
    old, new = settings.API_KEY_SIGNING_KEYS.active, generate_key("acp-new")
    text = mint()
    settings.API_KEY_SIGNING_KEYS = KeyRing([new, old])
    assert tokens.verify(text).api_key_id == KEY_ID
    assert part(mint(), 0)["kid"] == "acp-new"
    settings.API_KEY_SIGNING_KEYS = KeyRing([new])
    with pytest.raises(InvalidTokenError):
        tokens.verify(text)


def test_a_token_is_not_signed_with_the_secret_key(settings: Settings) -> None:
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(mint(), settings.SECRET_KEY, ["HS256"], audience="acp-worker")


@pytest.mark.parametrize("days", [-10_000, -1, 1, 730])
def test_the_clock_of_who_issued_it_decides_nothing(days: int) -> None:
    """The row has the times that count; `test_authentication` looks at it."""
    then = timezone.now() + timedelta(days=days)
    assert tokens.verify(mint(now=then, expires_at=then + timedelta(hours=1))).api_key_id == KEY_ID


@pytest.mark.parametrize("name", ["iat", "nbf", "exp"])
def test_the_times_have_to_be_there_nevertheless(settings: Settings, name: str) -> None:
    key = settings.API_KEY_SIGNING_KEYS.active
    claims = part(mint(), 1)
    headers = {"kid": key.id}
    assert tokens.verify(jwt.encode(claims, key.material, "HS256", headers=headers)).api_key_id == KEY_ID
    for odd in ({}, {name: None}, {name: "1"}, {name: 1.5}, {name: -1}, {name: True}):
        changed = {**{other: value for other, value in claims.items() if other != name}, **odd}
        with pytest.raises(InvalidTokenError):
            tokens.verify(jwt.encode(changed, key.material, "HS256", headers=headers))


def test_the_error_does_not_hold_the_token() -> None:
    text = mint()[:-2] + "AA"
    with pytest.raises(InvalidTokenError) as caught:
        tokens.verify(text)
    assert text.split(".")[1] not in str(caught.value)


def test_an_id_without_letters_is_as_good_as_another() -> None:
    identifier = UUID("11111111-1111-4111-8111-111111111111")
    now = timezone.now()
    minted = tokens.mint(api_key_id=identifier, organization_id="acme", name="ci", now=now, expires_at=None)
    assert tokens.verify(minted.token.reveal()).api_key_id == identifier
