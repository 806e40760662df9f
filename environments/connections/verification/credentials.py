"""The one place of calls to other servers that reveals a secret: on its way into the request that needs it."""

import hmac
from hashlib import sha256

from environments.connections.verification.outcome import ConnectionProblemError
from environments.encryption import Secret
from environments.endpoints.hosts import UnusableError
from environments.endpoints.rules import Endpoint, check_secret, read_webhook_url
from environments.models import CredentialConnection


def key_to_send(connection: CredentialConnection, secret: Secret) -> str:
    """The API key as it goes into a header; "" for a server that takes none.

    What no header can hold is refused here: HTTP libraries would repeat it in their exceptions.
    """
    if not connection.requires_api_key:
        return ""
    key = secret.reveal()
    if not key:
        msg = "An API key is required, and there is none."
        raise ConnectionProblemError(msg)
    try:
        check_secret(key)
    except UnusableError as error:
        msg = f"The API key cannot be used. {error}"
        raise ConnectionProblemError(msg) from None
    return key


def endpoint_at(url: Secret) -> Endpoint:
    """Where a sealed URL leads; UnusableError where that is none."""
    return read_webhook_url(url.reveal())


def signature_of(content: bytes, secret: Secret) -> str:
    """HMAC-SHA256 in hexadecimal digits."""
    return hmac.new(secret.reveal().encode(), content, sha256).hexdigest()
