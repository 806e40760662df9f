"""Authorization header -> verified token -> API key row -> `request.auth`."""

import hmac
import logging
import re
from typing import NoReturn, cast

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.request import Request

from environments.encryption import Secret
from workers import tokens
from workers.api_keys import find_by_token
from workers.models import ApiKey

logger = logging.getLogger(__name__)

#: RFC 6750's scheme, in any case (RFC 9110, section 11.1), and the one that existing clients send.
HEADER = re.compile(r"(?:bearer|userkey) ([^ ]+)", re.IGNORECASE)


def key_of(request: Request) -> ApiKey:
    """The key that a request was authenticated with."""
    return cast("ApiKey", request.auth)


def presented_key(request: Request) -> Secret:
    """The key itself, as an authenticated request carries it."""
    found = HEADER.fullmatch(request.headers["Authorization"])
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


class ApiKeyAuthentication(BaseAuthentication):
    """Accepts an API key in the Authorization header and nowhere else; the row decides on every request."""

    def authenticate(self, request: Request) -> tuple[None, ApiKey]:
        """No user, and the key's row as `request.auth`; raises 401 for anything else, also for no header."""
        header = request.headers.get("Authorization")
        if header is None:
            raise NotAuthenticated
        found = HEADER.fullmatch(header)
        if found is None:
            self._refuse("malformed header")
        try:
            claims = tokens.verify(found[1])
        except tokens.ExpiredTokenError:
            self._refuse_expired(found[1])
        except tokens.InvalidTokenError as error:
            self._refuse(str(error))
        key = ApiKey.objects.filter(pk=claims.api_key_id, organization=claims.organization_id).first()
        if key is None or not hmac.compare_digest(key.token_hash, tokens.digest(found[1])):
            self._refuse("no such key")
        if not key.is_usable(timezone.now()):
            self._refuse_unusable(key)
        return None, key

    def authenticate_header(self, request: Request) -> str:
        """RFC 6750, section 3: an error code only if a token was given."""
        return 'Bearer error="invalid_token"' if "Authorization" in request.headers else "Bearer"

    def _refuse_expired(self, token: str) -> NoReturn:
        key = find_by_token(token)
        if key is None:
            self._refuse("no such key")
        self._refuse_unusable(key)

    def _refuse_unusable(self, key: ApiKey) -> NoReturn:
        logger.info("API key refused: key %s is revoked or expired", key.pk)
        raise UnusableKeyError(key)

    def _refuse(self, reason: str) -> NoReturn:
        logger.info("API key refused: %s", reason)
        raise AuthenticationFailed
