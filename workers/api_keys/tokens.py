"""Mints and verifies the JWT that an API key is, on simplejwt's classes; knows neither HTTP nor the database."""

import hashlib
import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import jwt
from django.conf import settings
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenError
from rest_framework_simplejwt.tokens import Token

from environments.encryption import KeyRing, Secret, decode, encode

ISSUER = "acp"
AUDIENCE = "acp-worker"
#: Every key id begins so, and so does every API key (its header comes first): leak scanners match on it.
KEY_ID_PREFIX = "acp-"
MAX_TOKEN_BYTES = 4096
TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
#: RFC 9562, section 4: in any case.
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
SLUG_TEXT = re.compile(r"[a-z0-9-]{1,63}", re.ASCII)
#: The expiry claim of a key that never expires: the last second that datetime can tell.
NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class InvalidTokenError(Exception):
    """Not a token of ours; the reason is for the log, not for the caller."""


class Claims(NamedTuple):
    """What a verified token says: which key row it belongs to, and of which organization."""

    api_key_id: UUID
    organization_id: str


class KeyRingBackend(TokenBackend):
    """simplejwt's backend with a key ring: signs with the active key, verifies with the one that `kid` names."""

    def __init__(self, ring: KeyRing) -> None:
        super().__init__("HS256", audience=AUDIENCE, issuer=ISSUER)
        self.ring = ring

    def encode(self, payload: dict[str, Any]) -> str:
        claims = {**payload, "aud": AUDIENCE, "iss": ISSUER}
        return jwt.encode(claims, self.ring.active.material, "HS256", headers={"kid": self.ring.active.id})

    def get_verifying_key(self, token: Any) -> jwt.PyJWK:
        return _prepared(self.ring[_part(token, 0)["kid"]].material)

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002  # simplejwt's
        """The claims, in form and signature as we make them; their times are told by another machine's clock."""
        _check_form(token, self.ring)
        options: Any = {"verify_signature": verify, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        key = self.get_verifying_key(token)
        try:
            return jwt.decode(token, key, ["HS256"], options, audience=AUDIENCE, issuer=ISSUER)
        except jwt.InvalidTokenError as error:
            part = "signature or claims"
            raise TokenBackendError(part) from error


class WorkerToken(Token):
    """The token of an API key."""

    token_type = "worker"  # noqa: S105  # a type, not a token
    lifetime = timedelta(days=90)

    def check_exp(self, *_args: Any, **_options: Any) -> None:
        """The row decides: it is what people see and change, and it is looked at on every request."""

    def get_token_backend(self) -> KeyRingBackend:
        return KeyRingBackend(settings.API_KEY_SIGNING_KEYS)


class Minted(NamedTuple):
    """A new token with what is kept of it."""

    token: Secret
    digest: str
    signing_key_id: str


def mint(*, api_key_id: UUID, organization_id: str, name: str, now: datetime, expires_at: datetime | None) -> Minted:
    """A token signed with the active signing key; `expires_at` None never expires.

    The command line shows `organization` and `email`, in which it looks for whose a token is; they decide nothing.
    """
    token = WorkerToken()
    token.payload |= {
        "sub": str(api_key_id),
        "org": organization_id,
        "organization": organization_id,
        "email": name,
        "jti": secrets.token_urlsafe(32),
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()),
        "exp": int((expires_at or NEVER).timestamp()),
    }
    text = str(token)
    return Minted(Secret(text), digest(text), settings.API_KEY_SIGNING_KEYS.active.id)


def verify(text: str) -> Claims:
    """The claims of a token that we signed; InvalidTokenError for anything else.

    Its times have to be there, but decide nothing: whose clock was ahead when it issued a key made one that is good.
    """
    try:
        payload = WorkerToken(text).payload  # type: ignore[arg-type]  # simplejwt's annotation is wrong: it takes text
    except TokenError as error:
        raise InvalidTokenError(str(error)) from None
    return Claims(UUID(payload["sub"]), payload["org"])


def digest(text: str) -> str:
    """SHA-256 of a token, hexadecimal: all that is kept. 32 random bytes need no slow hash."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@lru_cache
def _prepared(material: bytes) -> jwt.PyJWK:
    """A signing key as the library uses it; made anew for each token it would cost as much as the signature."""
    return jwt.PyJWK({"kty": "oct", "k": encode(material)}, "HS256")


def _check_form(text: str, ring: KeyRing) -> None:
    """Refuses before any decoding by a library what cannot be a token of ours, so that no odd type reaches it."""
    _demand(len(text) <= MAX_TOKEN_BYTES and TOKEN.fullmatch(text), "form")
    header, payload = _part(text, 0), _part(text, 1)
    _part(text, 2, is_json=False)
    _demand(header.get("alg") == "HS256" and header.get("typ") == "JWT" and "crit" not in header, "header")
    _demand(isinstance(header.get("kid"), str) and header["kid"] in ring, "kid")
    times = [payload.get(name) for name in ("iat", "nbf", "exp")]
    _demand(all(type(time) is int and 0 <= time <= int(NEVER.timestamp()) for time in times), "times")
    texts = [payload.get(name) for name in ("iss", "aud", "sub", "jti", "org", "token_type")]
    _demand(all(isinstance(value, str) and value for value in texts), "claims")
    _demand(UUID_TEXT.fullmatch(payload["sub"]) and payload["sub"] == payload["sub"].lower(), "sub")
    _demand(SLUG_TEXT.fullmatch(payload["org"]), "org")


def _demand(is_met: object, part: str) -> None:
    if not is_met:
        raise TokenBackendError(part)


def _part(text: str, index: int, *, is_json: bool = True) -> dict[str, Any]:
    """One dot-separated part: canonical base64url and, but for the signature, a JSON object without duplicate keys."""
    try:
        data = decode(text.split(".")[index])
        parsed = json.loads(data.decode(), object_pairs_hook=_object_without_duplicates) if is_json else {}
    except (ValueError, RecursionError) as error:
        part = "encoding"
        raise TokenBackendError(part) from error
    _demand(isinstance(parsed, dict), "encoding")
    return parsed


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "duplicate key"
        raise ValueError(msg)
    return found
