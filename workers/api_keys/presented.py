"""API keys that callers present: what their signatures say is remembered, and their rows decide every time."""

import hmac
import logging
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models

from environments import times
from environments.database.statements import Parameter, Select
from workers.api_keys import tokens
from workers.models import ApiKey

if TYPE_CHECKING:
    from environments.encryption import KeyRing

logger = logging.getLogger(__name__)

_KEY = Select(
    lambda: ApiKey.objects.filter(
        pk=Parameter("id", models.UUIDField()), organization=Parameter("organization_id", models.CharField())
    ).order_by()
)


class NoUsableKeyError(Exception):
    """The presented key is good for nothing; no caller is told why."""


class UnusableKeyError(NoUsableKeyError):
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
        """The usable key's row; NoUsableKeyError when there is none."""
        return self._row or self.settle(_KEY.first(id=self.id, organization_id=self.organization_id))

    def was_found(self) -> None:
        """Some statement has found the row with the key's hash, whatever else it says."""
        verified_tokens.add(self.token_hash, self._claims)

    def settle(self, row: ApiKey | None) -> ApiKey:
        """The same with the row that somebody has just read; what was read before no longer counts."""
        self._row = None
        if row is None or not hmac.compare_digest(row.token_hash, self.token_hash):
            logger.info("API key refused: no such key")
            raise NoUsableKeyError
        self.was_found()
        if not row.is_usable(times.now()):
            logger.info("API key refused: key %s is revoked or expired", row.pk)
            raise UnusableKeyError(row)
        self._row = row
        return row
