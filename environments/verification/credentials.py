"""The one place of the verification that reveals a secret: on its way into the request that tries it."""

from environments.encryption import Secret
from environments.models import CredentialConnection
from environments.verification.outcome import ConnectionProblemError


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
    if not (key.isascii() and key.isprintable()):
        msg = "The API key has characters that cannot be sent: enter it again without line breaks and accents."
        raise ConnectionProblemError(msg)
    return key
