"""Authorization header -> verified token -> API key row -> `request.auth`."""

import logging
import re
from typing import NoReturn, cast

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.request import Request

from environments.encryption import Secret
from workers.api_keys import tokens
from workers.api_keys.presented import NoUsableKeyError, PresentedKey, verified_tokens
from workers.models import ApiKey

logger = logging.getLogger(__name__)

#: RFC 6750's scheme, in any case (RFC 9110, section 11.1), and the one that existing clients send.
HEADER = re.compile(r"(?:bearer|userkey) ([^ ]+)", re.IGNORECASE)


def signed_key_of(request: Request) -> PresentedKey:
    """The key that a request was authenticated with, of which the row may not have been asked yet."""
    return cast("PresentedKey", request.auth)


def key_of(request: Request) -> ApiKey:
    """The row of the key that a request was authenticated with."""
    return signed_key_of(request).row


def presented_key(request: Request) -> Secret:
    """The key itself, as an authenticated request carries it."""
    found = HEADER.fullmatch(request.META["HTTP_AUTHORIZATION"])
    return Secret(found[1] if found else "")


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
            _require_usable(key)
        return None, key

    def authenticate_header(self, request: Request) -> str:
        """RFC 6750, section 3: an error code only if a token was given."""
        return 'Bearer error="invalid_token"' if "HTTP_AUTHORIZATION" in request.META else "Bearer"


def _verify(token: str) -> tokens.Claims:
    try:
        return tokens.verify(token)
    except tokens.InvalidTokenError as error:
        _refuse(str(error))


def _refuse(reason: str) -> NoReturn:
    logger.info("API key refused: %s", reason)
    raise AuthenticationFailed


def _require_usable(key: PresentedKey) -> None:
    try:
        _ = key.row
    except NoUsableKeyError as error:
        raise AuthenticationFailed from error
