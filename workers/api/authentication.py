"""Authorization header -> verified token -> API key row -> `request.auth`."""

import hmac
import logging
import re
from typing import NoReturn, cast

from django.conf import settings
from django.db import models
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.request import Request

from environments import times
from environments.database.statements import Parameter, Select
from environments.encryption import KeyRing, Secret
from workers.api_keys import tokens
from workers.models import ApiKey

logger = logging.getLogger(__name__)

#: RFC 6750's scheme, in any case (RFC 9110, section 11.1), and the one that existing clients send.
HEADER = re.compile(r"(?:bearer|userkey) ([^ ]+)", re.IGNORECASE)


_KEY = Select(
    lambda: ApiKey.objects.filter(
        pk=Parameter("id", models.UUIDField()), organization=Parameter("organization_id", models.CharField())
    ).order_by()
)


def signed_key_of(request: Request) -> "PresentedKey":
    """The key that a request was authenticated with, of which the row may not have been asked yet."""
    return cast("PresentedKey", request.auth)


def key_of(request: Request) -> ApiKey:
    """The row of the key that a request was authenticated with."""
    return signed_key_of(request).row


def presented_key(request: Request) -> Secret:
    """The key itself, as an authenticated request carries it."""
    found = HEADER.fullmatch(request.META["HTTP_AUTHORIZATION"])
    return Secret(found[1] if found else "")


class UnusableKeyError(AuthenticationFailed):
    """A genuine API key that is revoked or expired; the caller is told no more than of any other refused key."""

    def __init__(self, api_key: ApiKey) -> None:
        super().__init__()
        self.api_key = api_key

    @property
    def reason(self) -> str:
        """Which of both, for those who may see the key."""
        return "This API key is revoked." if self.api_key.revoked_at else "This API key has expired."


class VerifiedTokens:
    """What tokens say whose signature and form were good, and whose row was found, by the token's SHA-256.

    Verifying one costs more than asking for its row, which is asked for and decides each time. It holds at most
    `LARGEST` tokens of one ring, of which the one that came first goes first.
    """

    LARGEST = 10_000

    def __init__(self) -> None:
        self._ring: KeyRing | None = None
        self._claims: dict[str, tokens.Claims] = {}

    def get(self, token_hash: str) -> tokens.Claims | None:
        """What the token says, if it is remembered."""
        return self._claims.get(token_hash) if self._ring is settings.API_KEY_SIGNING_KEYS else None

    def add(self, token_hash: str, claims: tokens.Claims) -> None:
        """Remembers a token; to be called when its row was found."""
        if self._ring is not settings.API_KEY_SIGNING_KEYS:
            self._ring, self._claims = settings.API_KEY_SIGNING_KEYS, {}
        if len(self._claims) >= self.LARGEST:
            self._claims.pop(next(iter(self._claims)), None)
        self._claims[token_hash] = claims


verified_tokens = VerifiedTokens()


class PresentedKey:
    """A key of ours by its signature; whether it is good for anything, its row decides on every request."""

    def __init__(self, claims: tokens.Claims, token_hash: str) -> None:
        self._claims = claims
        self.id = claims.api_key_id
        self.organization_id = claims.organization_id
        self.token_hash = token_hash
        self._row: ApiKey | None = None

    @property
    def row(self) -> ApiKey:
        """The usable key's row; 401 when there is none."""
        return self._row or self.settle(_KEY.first(id=self.id, organization_id=self.organization_id))

    def was_found(self) -> None:
        """Some statement has found the row with the key's hash, whatever else it says."""
        verified_tokens.add(self.token_hash, self._claims)

    def settle(self, row: ApiKey | None) -> ApiKey:
        """The same with the row that somebody has just read; what was read before no longer counts."""
        self._row = None
        if row is None or not hmac.compare_digest(row.token_hash, self.token_hash):
            _refuse("no such key")
        self.was_found()
        if not row.is_usable(times.now()):
            _refuse_unusable(row)
        self._row = row
        return row


class ApiKeyAuthentication(BaseAuthentication):
    """Accepts an API key in the Authorization header and nowhere else; the row decides on every request.

    A view whose own statement asks the row says so with `asks_key_itself`.
    """

    def authenticate(self, request: Request) -> tuple[None, PresentedKey]:
        """No user, and the key as `request.auth`; raises 401 for anything else, also for no header."""
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            raise NotAuthenticated
        found = HEADER.fullmatch(header)
        if found is None:
            _refuse("malformed header")
        token_hash = tokens.digest(found[1])
        key = PresentedKey(verified_tokens.get(token_hash) or _verify(found[1]), token_hash)
        if not getattr(request.parser_context["view"], "asks_key_itself", False):
            _ = key.row
        return None, key

    def authenticate_header(self, request: Request) -> str:
        """RFC 6750, section 3: an error code only if a token was given."""
        return 'Bearer error="invalid_token"' if "HTTP_AUTHORIZATION" in request.META else "Bearer"


def _verify(token: str) -> tokens.Claims:
    try:
        return tokens.verify(token)
    except tokens.InvalidTokenError as error:
        _refuse(str(error))


def _refuse_unusable(key: ApiKey) -> NoReturn:
    logger.info("API key refused: key %s is revoked or expired", key.pk)
    raise UnusableKeyError(key)


def _refuse(reason: str) -> NoReturn:
    logger.info("API key refused: %s", reason)
    raise AuthenticationFailed
