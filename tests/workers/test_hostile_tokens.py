"""Forged, twisted and stolen API keys: each is 401 with the same body, and records nothing.

What is signed here with the ring's own key stands for an attacker who has that key: "a leaked signing key alone cannot
forge", since the row decides.
"""

import base64
import json
import random
import string
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django.test import Client

from environments.encryption import encode
from tests import factories
from tests.factories import Fleet
from tests.workers import INVALID_TOKEN, assert_nothing_recorded, assert_refused, fresh_fleet, start
from workers import tokens
from workers.models import ApiKey
from workers.tokens import InvalidTokenError

MUTATIONS = 4_000
REFUSED = {"detail": "This API key is not valid."}


@pytest.fixture
def fleet(db: None) -> Fleet:
    return fresh_fleet()


def ring_key() -> Any:
    return settings.API_KEY_SIGNING_KEYS.active


def parts_of(fleet: Fleet) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = fleet.token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, payload))  # type: ignore[return-value]


def signed(header: dict[str, Any] | bytes, payload: dict[str, Any] | bytes, key: bytes | None = None) -> str:
    """Any header and payload, signed with HS256 and, unless another is given, the ring's own key."""
    texts = [
        part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
        for part in (header, payload)
    ]
    return sign_texts(encode(texts[0]), encode(texts[1]), key)


def sign_texts(header: str, payload: str, key: bytes | None = None) -> str:
    algorithm = jwt.get_algorithm_by_name("HS256")
    signature = algorithm.sign(f"{header}.{payload}".encode(), ring_key().material if key is None else key)
    return f"{header}.{payload}.{encode(signature)}"


def with_header(**changes: Any) -> Callable[[Fleet], str]:
    def make(fleet: Fleet) -> str:
        header, payload = parts_of(fleet)
        header |= changes
        return signed({name: value for name, value in header.items() if value is not ...}, payload)

    return make


def with_claims(**changes: Any) -> Callable[[Fleet], str]:
    def make(fleet: Fleet) -> str:
        header, payload = parts_of(fleet)
        payload |= changes
        return signed(header, {name: value for name, value in payload.items() if value is not ...})

    return make


def unsigned(algorithm: str) -> Callable[[Fleet], str]:
    def make(fleet: Fleet) -> str:
        header, payload = parts_of(fleet)
        texts = [encode(json.dumps(part).encode()) for part in (header | {"alg": algorithm}, payload)]
        return f"{texts[0]}.{texts[1]}."

    return make


def none_with_a_signature(fleet: Fleet) -> str:
    return unsigned("none")(fleet) + fleet.token.split(".")[2]


def with_algorithm(algorithm: str) -> Callable[[Fleet], str]:
    def make(fleet: Fleet) -> str:
        header, payload = parts_of(fleet)
        del header["alg"]
        return jwt.encode(payload, ring_key().material * 2, algorithm, headers=header)

    return make


def rs256(fleet: Fleet) -> str:
    header, payload = parts_of(fleet)
    del header["alg"]
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return jwt.encode(payload, pem, "RS256", headers=header)


def attackers_key_in_the_header(fleet: Fleet) -> str:
    header, payload = parts_of(fleet)
    jwk = {"kty": "oct", "k": encode(b"a" * 32), "alg": "HS256", "kid": header["kid"]}
    return signed(header | {"jwk": jwk, "jku": "http://127.0.0.1:1/keys"}, payload, b"a" * 32)


def duplicate(part: int, member: bytes) -> Callable[[Fleet], str]:
    def make(fleet: Fleet) -> str:
        texts = [json.dumps(value).encode() for value in parts_of(fleet)]
        texts[part] = texts[part][:-1] + b"," + member + b"}"
        return signed(texts[0], texts[1])

    return make


def padded(fleet: Fleet) -> str:
    header, payload, signature = fleet.token.split(".")
    return f"{header}.{payload}.{signature}="


def padded_and_signed_so(fleet: Fleet) -> str:
    header, payload = parts_of(fleet)
    texts = [
        base64.urlsafe_b64encode(json.dumps(part).encode() + b" " * spaces).decode()
        for part in (header, payload)
        for spaces in range(3)
    ]
    chosen = [next(text for text in group if "=" in text) for group in (texts[:3], texts[3:])]
    return sign_texts(chosen[0], chosen[1])


def with_other_trailing_bits(fleet: Fleet) -> str:
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    last = alphabet.index(fleet.token[-1])
    return (
        fleet.token[:-1] + alphabet[last + 1 if last % 4 < 3 else last - 1]
    )  # 43 characters: the last 2 bits mean nothing


def another_tenants_row(fleet: Fleet) -> str:
    other = factories.create_fleet()
    return with_claims(org=other.organization.id)(fleet)


def another_tenant_with_the_rows_hash(fleet: Fleet) -> str:
    """Signature and hash are right; the row's organization is not the token's."""
    text = another_tenants_row(fleet)
    ApiKey.objects.filter(pk=fleet.api_key.pk).update(token_hash=tokens.digest(text))
    return text


def times(*names: str) -> dict[str, Callable[[Fleet], str]]:
    values = {
        "text": "9999999999",
        "float": 9999999999.0,
        "float with a fraction": 9999999999.5,
        "true": True,
        "huge": 10**30,
        "huge float": 1e300,
        "just beyond year 9999": 253402300800,
        "negative": -1,
        "null": None,
        "missing": ...,
        "list": [9999999999],
        "object": {},
        "empty text": "",
    }
    return {f"{name} {kind}": with_claims(**{name: value}) for name in names for kind, value in values.items()}


def nan(name: str) -> Callable[[Fleet], str]:
    return with_claims(**{name: float("nan")})


KIDS = {
    "missing": ...,
    "unknown": "acp-unknown",
    "null": None,
    "empty": "",
    "path": "../../../../dev/null",
    "file": "/dev/null",
    "sql": "acp-test1' OR '1'='1",
    "nul": "acp-test1\0",
    "newline": "acp-test1\n",
    "upper case": "ACP-TEST1",
    "the encryption ring's": "ek-test1",
    "list": ["acp-test1"],
    "object": {"acp-test1": 1},
    "integer": 0,
    "true": True,
    "huge": "k" * 2_000,
    "lone surrogate": "\ud800",
    "url": "http://127.0.0.1:1/key",
}
FORGERIES: dict[str, Callable[[Fleet], str]] = {
    **{f"alg {name} without signature": unsigned(name) for name in ("none", "None", "NONE", "nOnE", "HS256", "")},
    "alg none with a signature": none_with_a_signature,
    "alg HS384": with_algorithm("HS384"),
    "alg HS512": with_algorithm("HS512"),
    "alg RS256": rs256,
    "alg RS256 over an HS256 signature": with_header(alg="RS256"),
    **{
        f"alg {value!r}": with_header(alg=value)
        for value in ("hs256", "HS256 ", "none", "", None, 256, True, ["HS256"], {"HS256": 1}, ...)
    },
    **{f"kid {name}": with_header(kid=value) for name, value in KIDS.items()},
    **{f"typ {value!r}": with_header(typ=value) for value in ("jwt", "JWS", "", None, 1, ["JWT"], ...)},
    "crit": with_header(crit=["exp"]),
    "crit empty": with_header(crit=[]),
    "crit null": with_header(crit=None),
    "crit b64": with_header(crit=["b64"], b64=False),
    "crit b64 true": with_header(crit=["b64"], b64=True),  # the one that PyJWT itself would take
    "b64 false": with_header(b64=False),
    "jwk of the attacker": attackers_key_in_the_header,
    **{
        f"{name} beside a right signature": with_header(**{name: value})
        for name, value in (
            ("jku", "http://127.0.0.1:1/keys"),
            ("jwk", {"kty": "oct", "k": "AAAA"}),
            ("x5u", "http://127.0.0.1:1/cert"),
            ("x5c", ["AAAA"]),
            ("zip", "DEF"),
            ("cty", "JWT"),
        )
    },
    "signed with an empty key": lambda fleet: signed(*parts_of(fleet), key=b""),
    "signed with the key's id": lambda fleet: signed(*parts_of(fleet), key=ring_key().id.encode()),
    "signed with SECRET_KEY": lambda fleet: signed(*parts_of(fleet), key=settings.SECRET_KEY.encode()),
    "signed with an encryption key": lambda fleet: signed(
        *parts_of(fleet), key=settings.ENCRYPTION_KEYS.active.material
    ),
    "signed with the key in base64": lambda fleet: signed(*parts_of(fleet), key=encode(ring_key().material).encode()),
    **times("exp", "iat", "nbf"),
    "exp NaN": nan("exp"),
    "exp past": with_claims(exp=1),
    "exp zero": with_claims(exp=0),
    "exp false": with_claims(exp=False),
    "nbf future": with_claims(nbf=253402300799),
    "iat future": with_claims(iat=253402300799),
    **{f"iss {value!r}": with_claims(iss=value) for value in ("ACP", "evil", "", None, ["acp"], 1, ...)},
    **{
        f"aud {value!r}": with_claims(aud=value)
        for value in ("acp-admin", "", None, ["acp-worker"], ["acp-worker", "x"], {"acp-worker": 1}, 1, ...)
    },
    **{f"token_type {value!r}": with_claims(token_type=value) for value in ("access", "", None, ["worker"], 1, ...)},
    **{
        f"sub {value!r}": with_claims(sub=value)
        for value in (1, 10**40, "", None, True, "1", [], {}, ..., "' OR 1=1 --", "../", "0" * 32)
    },
    "sub in upper case": lambda fleet: with_claims(sub=str(fleet.api_key.pk).upper())(_with_letters(fleet)),
    "sub with braces": lambda fleet: with_claims(sub=f"{{{fleet.api_key.pk}}}")(fleet),
    "sub as urn": lambda fleet: with_claims(sub=f"urn:uuid:{fleet.api_key.pk}")(fleet),
    "sub without dashes": lambda fleet: with_claims(sub=fleet.api_key.pk.hex)(fleet),
    "sub as integer": lambda fleet: with_claims(sub=fleet.api_key.pk.int)(fleet),
    "sub with a newline": lambda fleet: with_claims(sub=f"{fleet.api_key.pk}\n")(fleet),
    "sub in full-width digits": lambda fleet: with_claims(sub=_full_width(str(fleet.api_key.pk)))(fleet),
    "sub of no row": with_claims(sub=str(uuid4())),
    "sub of another row": lambda fleet: with_claims(sub=str(factories.issue_key(fleet.organization).row.pk))(fleet),
    **{
        f"org {value!r}"[:60]: with_claims(org=value)
        for value in (
            1,
            "",
            None,
            ["x"],
            {},
            ...,
            "\0",
            "a\0b",
            "\ud800",
            "x" * 1_000,
            "' OR 1=1 --",
            "nobody",
            "é",
            "🦄",
        )
    },
    "org of another tenant": another_tenants_row,
    "org of another tenant, and the row's hash": another_tenant_with_the_rows_hash,
    **{f"jti {value!r}": with_claims(jti=value) for value in (1, "", None, ["x"], ..., "changed")},
    "another claim": with_claims(scope="organization"),
    "duplicate key in the header": duplicate(0, b'"alg":"HS256"'),
    "duplicate key in the payload": duplicate(1, b'"org":"other"'),
    "duplicate key by escape": duplicate(1, b'"\\u006frg":"other"'),
    "duplicate key further down": duplicate(1, b'"x":{"a":1,"a":2}'),
    "payload list": lambda fleet: signed(parts_of(fleet)[0], b"[]"),
    "payload text": lambda fleet: signed(parts_of(fleet)[0], b'"sub"'),
    "payload null": lambda fleet: signed(parts_of(fleet)[0], b"null"),
    "payload empty": lambda fleet: signed(parts_of(fleet)[0], b"{}"),
    "payload no JSON": lambda fleet: signed(parts_of(fleet)[0], b"{"),
    "payload not UTF-8": lambda fleet: signed(parts_of(fleet)[0], b'{"a":"\xff"}'),
    "payload UTF-16": lambda fleet: signed(parts_of(fleet)[0], json.dumps(parts_of(fleet)[1]).encode("utf-16")),
    "payload with BOM": lambda fleet: signed(
        parts_of(fleet)[0], b"\xef\xbb\xbf" + json.dumps(parts_of(fleet)[1]).encode()
    ),
    "payload deep": lambda fleet: signed(parts_of(fleet)[0], b"[" * 2_000),
    "payload deep within": lambda fleet: signed(
        parts_of(fleet)[0], json.dumps(parts_of(fleet)[1]).encode()[:-1] + b',"x":' + b"[" * 700 + b"]" * 700 + b"}"
    ),
    "payload with a long integer": lambda fleet: signed(
        parts_of(fleet)[0], json.dumps(parts_of(fleet)[1]).encode()[:-1] + b',"x":' + b"9" * 2_000 + b"}"
    ),
    "header list": lambda fleet: signed(b"[]", parts_of(fleet)[1]),
    "header text": lambda fleet: signed(b'"alg"', parts_of(fleet)[1]),
    "header no JSON": lambda fleet: signed(b"alg", parts_of(fleet)[1]),
    "header deep": lambda fleet: signed(b'{"a":' * 500, parts_of(fleet)[1]),
    "beyond 4 KiB": with_claims(x="x" * 4_096),
    "padded": padded,
    "padded and signed so": padded_and_signed_so,
    "other trailing bits": with_other_trailing_bits,
    "standard base64 alphabet": lambda fleet: fleet.token.replace("-", "+").replace("_", "/") + "+",
    "trailing dot": lambda fleet: fleet.token + ".",
    "leading dot": lambda fleet: "." + fleet.token,
    "two parts": lambda fleet: fleet.token.rpartition(".")[0],
    "four parts": lambda fleet: f"{fleet.token}.AAAA",
    "five parts": lambda fleet: f"{fleet.token}.AAAA.AAAA",
    "no signature": lambda fleet: fleet.token.rpartition(".")[0] + ".",
    "signature of another token": lambda fleet: (
        fleet.token.rpartition(".")[0] + "." + factories.issue_token(fleet.organization).rpartition(".")[2]
    ),
    "non-ASCII letter": lambda fleet: fleet.token + "\u00e9",
    "quoted": lambda fleet: f'"{fleet.token}"',
    "newline behind": lambda fleet: fleet.token + "\n",
    "newline within": lambda fleet: fleet.token.replace(".", "\n.", 1),
    "tab within": lambda fleet: fleet.token.replace(".", "\t.", 1),
    "NUL behind": lambda fleet: fleet.token + "\0",
    "two keys by comma": lambda fleet: f"{fleet.token},{fleet.token}",
    "percent-encoded": lambda fleet: fleet.token.replace(".", "%2E"),
    "the hash": lambda fleet: fleet.api_key.token_hash,
    "the row's id": lambda fleet: str(fleet.api_key.pk),
    "words": lambda _fleet: "not-a-token",
    "dots": lambda _fleet: "..",
    "null": lambda _fleet: "null",
    "64 KiB": lambda _fleet: "A" * 65_536,
    "64 KiB of dots": lambda _fleet: "." * 65_536,
}


def _with_letters(fleet: Fleet) -> Fleet:
    """The fleet with a key whose id has letters, so that its upper-case spelling differs."""
    while str(fleet.api_key.pk) == str(fleet.api_key.pk).upper():
        issued = factories.issue_key(fleet.worker)
        fleet.api_key, fleet.token = issued.row, issued.token.reveal()
    return fleet


def _full_width(text: str) -> str:
    return text.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_refuses_a_forged_key(fleet: Fleet, forge: Callable[[Fleet], str]) -> None:
    text = forge(fleet)
    assert text != fleet.token
    response = start(fleet, token=text)
    assert_refused(response, 401)
    assert response.json() == REFUSED
    assert response["WWW-Authenticate"] == INVALID_TOKEN


def test_the_tests_own_signature_is_right(fleet: Fleet) -> None:
    """What makes the refusals above mean something: a token signed so passes once the row has its hash."""
    text = signed(*parts_of(fleet))
    if text != fleet.token:
        ApiKey.objects.filter(pk=fleet.api_key.pk).update(token_hash=tokens.digest(text))
    assert start(fleet, token=text).status_code == 200


IGNORED = {"jku": "http://127.0.0.1:1/keys", "jwk": {"kty": "oct", "k": "AAAA"}, "x5u": "http://127.0.0.1:1/cert"}


@pytest.mark.parametrize("name", IGNORED)
def test_a_key_named_in_the_header_is_ignored_and_not_fetched(fleet: Fleet, name: str) -> None:
    text = with_header(**{name: IGNORED[name]})(fleet)
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
            "jti 'changed'",
            "payload deep within",
            "payload with a long integer",
        )
    )
}


@pytest.mark.parametrize("forge", HASHED.values(), ids=HASHED)
def test_refuses_a_forged_key_even_when_a_row_has_its_hash(fleet: Fleet, forge: Callable[[Fleet], str]) -> None:
    """So that the hash is not what hides a check that the token itself should have failed."""
    text = forge(fleet)
    ApiKey.objects.filter(pk=fleet.api_key.pk).update(
        token_hash=tokens.digest(text.encode("utf-8", "replace").decode())
    )
    assert_refused(start(fleet, token=text), 401)


def test_random_mutations_are_never_accepted_and_never_an_unexpected_error(
    fleet: Fleet, seeded_random: random.Random
) -> None:
    other = factories.issue_token(fleet.organization)
    accepted, seen = [], set()
    for _ in range(MUTATIONS):
        text = mutated(fleet.token, other, seeded_random)
        if text in {fleet.token, other}:
            continue
        seen.add(text)
        try:
            tokens.verify(text)
        except InvalidTokenError:
            continue
        accepted.append(text)
    assert accepted == []
    assert len(seen) > MUTATIONS * 0.8


def mutated(text: str, other: str, chance: random.Random) -> str:
    """The text after one to three small changes of different kinds."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        position = chance.randrange(len(text) or 1)
        end = min(len(text), position + chance.randrange(1, 9))
        kind = chance.randrange(7)
        if kind == 0:
            text = text[:position] + chance.choice(string.printable + "é\0") + text[position + 1 :]
        elif kind == 1:
            text = text[:position] + chance.choice(string.printable) + text[position:]
        elif kind == 2:
            text = text[:position] + text[end:]
        elif kind == 3:
            text = text[:position] + text[position:end] + text[position:]
        elif kind == 4:
            text = text[:position] + text[position:end].swapcase() + text[end:]
        elif kind == 5:
            parts, others = [*text.split("."), "", ""][:3], other.split(".")
            index = chance.randrange(3)
            parts[index] = others[index]
            text = ".".join(parts)
        else:
            text = mutated_json(text, chance)
    return text


def mutated_json(text: str, chance: random.Random) -> str:
    """One byte of the decoded header or payload changed, the signature left as it is."""
    parts = text.split(".")
    index = chance.randrange(min(2, len(parts)))
    try:
        data = bytearray(base64.urlsafe_b64decode(parts[index] + "=="))
    except ValueError:
        return text
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    parts[index] = encode(bytes(data))
    return ".".join(parts)


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
