"""Forged, twisted and stolen API keys: each is 401 with the same body, and records nothing."""

import json
import random
import time
from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.test import Client

from tests.support import factories
from tests.support.calls import INVALID_TOKEN, assert_nothing_recorded, assert_refused, start
from tests.support.factories import Fleet
from tests.support.forgeries import BESIDE_A_RIGHT_SIGNATURE, FORGERIES, Genuine, signed, with_header
from tests.support.mutations import mutated, mutated_and_signed
from tests.support.shared_fleet import *  # noqa: F403  # the fixtures
from tests.support.undoing import undone
from workers.api_keys import tokens
from workers.api_keys.tokens import InvalidTokenError
from workers.models import ApiKey

MUTATIONS = 4_000
REFUSED = {"detail": "This API key is not valid."}


@pytest.fixture
def genuine(fleet: Fleet) -> Genuine:
    return Genuine(
        token=fleet.token,
        other_token=factories.issue_token(fleet.organization),
        foreign_token=factories.create_fleet().token,
        signing_key=settings.API_KEY_SIGNING_KEYS.active,
        encryption_key=settings.ENCRYPTION_KEYS.active,
        secret_key=settings.SECRET_KEY,
    )


def keep_hash_of(text: str, fleet: Fleet) -> None:
    """Makes the row of the fleet's key that of another text."""
    ApiKey.objects.filter(pk=fleet.api_key.pk).update(
        token_hash=tokens.digest(text.encode("utf-8", "replace").decode())
    )


def test_refuses_a_forged_key(fleet: Fleet, genuine: Genuine, subtests: pytest.Subtests) -> None:
    for name, forge in FORGERIES.items():
        with subtests.test(name), undone():
            text = forge(genuine)
            assert text != fleet.token
            response = start(fleet, token=text)
            assert_refused(response, 401)
            assert response.json() == REFUSED
            assert response["WWW-Authenticate"] == INVALID_TOKEN


def test_refuses_another_tenants_name_in_a_key_whose_signature_and_hash_are_right(
    fleet: Fleet, genuine: Genuine
) -> None:
    text = FORGERIES["org of another tenant"](genuine)
    keep_hash_of(text, fleet)
    assert_refused(start(fleet, token=text), 401)


def test_the_tests_own_signature_is_right(fleet: Fleet, genuine: Genuine) -> None:
    """What makes the refusals above mean something: a token signed so passes once the row has its hash."""
    text = signed(genuine, genuine.header, genuine.claims)
    keep_hash_of(text, fleet)
    assert start(fleet, token=text).status_code == 200


@pytest.mark.parametrize("name", ["jku", "jwk", "x5u"])
def test_a_key_named_in_the_header_is_ignored_and_not_fetched(fleet: Fleet, genuine: Genuine, name: str) -> None:
    text = with_header(**{name: BESIDE_A_RIGHT_SIGNATURE[name]})(genuine)
    assert tokens.verify(text).api_key_id == fleet.api_key.pk


#: All but those that are wrong for their row alone.
HASHED = {
    name: forge
    for name, forge in FORGERIES.items()
    if not name.startswith(
        (
            "sub of",
            "org of",
            "jku",
            "jwk beside",
            "x5",
            "zip",
            "cty",
            "another claim",
            "exp past",
            "exp zero",
            "nbf future",
            "iat future",
            "jti 'changed'",
            "payload deep within",
            "payload with a long integer",
        )
    )
}


def test_refuses_a_forged_key_even_when_a_row_has_its_hash(
    fleet: Fleet, genuine: Genuine, subtests: pytest.Subtests
) -> None:
    """So that the hash is not what hides a check that the token itself should have failed."""
    for name, forge in HASHED.items():
        with subtests.test(name), undone():
            text = forge(genuine)
            keep_hash_of(text, fleet)
            assert_refused(start(fleet, token=text), 401)


def test_random_mutations_are_never_accepted_and_never_an_unexpected_error(
    genuine: Genuine, seeded_random: random.Random
) -> None:
    accepted, seen = [], set()
    for _ in range(MUTATIONS):
        text = mutated(genuine.token, genuine.other_token, seeded_random)
        if text in {genuine.token, genuine.other_token}:
            continue
        seen.add(text)
        try:
            tokens.verify(text)
        except InvalidTokenError:
            continue
        accepted.append(text)
    assert accepted == []
    assert len(seen) > MUTATIONS * 0.8


def test_what_a_mutation_says_is_never_an_unexpected_error_when_it_is_signed_with_the_rings_own_key(
    genuine: Genuine, seeded_random: random.Random
) -> None:
    verified = 0
    for _ in range(MUTATIONS):
        with suppress(InvalidTokenError):
            claims = tokens.verify(mutated_and_signed(genuine, seeded_random))
            assert isinstance(claims.api_key_id, UUID)
            assert isinstance(claims.organization_id, str)
            verified += 1
    assert 0 < verified < MUTATIONS * 0.8


# --- Where the key is, and how it is written ---------------------------------------------------------------------------

HEADERS = {
    "empty": "",
    "a space": " ",
    "scheme alone": "Bearer",
    "scheme and a space": "Bearer ",
    "UserKey alone": "UserKey ",
    "no scheme": "{token}",
    "Basic": "Basic {token}",
    "Token": "Token {token}",
    "ApiKey": "ApiKey {token}",
    "Digest": "Digest {token}",
    "two spaces": "Bearer  {token}",
    "leading space": " Bearer {token}",
    "trailing space": "Bearer {token} ",
    "tab": "Bearer\t{token}",
    "no-break space": "Bearer\u00a0{token}",
    "newline": "Bearer\n{token}",
    "colon": "Bearer: {token}",
    "equals": "Bearer={token}",
    "quoted": 'Bearer "{token}"',
    "scheme twice": "Bearer Bearer {token}",
    "both schemes": "Bearer UserKey {token}",
    "two keys": "Bearer {token}, Bearer {token}",
    "two keys without scheme": "Bearer {token},{token}",
    "two keys by space": "Bearer {token} {token}",
    "with a parameter": "Bearer {token}; charset=utf-8",
    "a prefix of the scheme": "Bear {token}",
    "the scheme extended": "Bearers {token}",
}


@pytest.mark.parametrize("form", HEADERS.values(), ids=HEADERS)
def test_refuses_another_form_of_the_header(fleet: Fleet, form: str) -> None:
    header = form.format(token=fleet.token)
    response = Client().generic(
        "POST", f"/api/v1/workers/{fleet.worker.pk}/start", b"{}", "application/json", HTTP_AUTHORIZATION=header
    )
    assert_refused(response, 401)
    assert response.json() == REFUSED
    assert response["WWW-Authenticate"] in {"Bearer", INVALID_TOKEN}
    if fleet.token in header:
        assert response["WWW-Authenticate"] == INVALID_TOKEN


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR", "UserKey", "userkey", "USERKEY"])
def test_takes_both_schemes_in_any_case(fleet: Fleet, scheme: str) -> None:
    assert start(fleet, authorization=f"{scheme} {fleet.token}").status_code == 200


def test_asks_for_a_key_where_none_was_given(fleet: Fleet) -> None:
    response = start(fleet, authorization=None)
    assert_refused(response, 401)
    assert response["WWW-Authenticate"] == "Bearer"


def test_takes_no_key_from_anywhere_else(fleet: Fleet) -> None:
    path = f"/api/v1/workers/{fleet.worker.pk}/start"
    client = Client()
    for name in ("Authorization", "token", "api_key", "access_token", "sessionid"):
        client.cookies[name] = fleet.token
    body = json.dumps({"token": fleet.token, "api_key": fleet.token, "access_token": fleet.token}).encode()
    query = (
        f"?token={fleet.token}&access_token={fleet.token}&api_key={fleet.token}&Authorization=Bearer%20{fleet.token}"
    )
    others = {"HTTP_X_API_KEY": fleet.token, "HTTP_X_AUTHORIZATION": f"Bearer {fleet.token}"}
    response = client.generic("POST", path + query, body, "application/json", **others)
    assert_refused(response, 401)
    assert response["WWW-Authenticate"] == "Bearer"


def test_a_forged_key_is_refused_before_anything_else_is_read(fleet: Fleet) -> None:
    for worker_id in (uuid4(), "nonsense", fleet.worker.pk):
        response = start(fleet, b"\xff" * 100, token="x.y.z", worker_id=worker_id, content_type="text/plain")
        assert_refused(response, 401)


def test_refusing_takes_no_long_time(fleet: Fleet) -> None:
    before = time.perf_counter()
    for text in ("A" * 1_000_000, "." * 1_000_000, f"{'A.' * 500_000}", "Bearer " * 100_000):
        start(fleet, token=text)
    assert time.perf_counter() - before < 2
    assert_nothing_recorded()
