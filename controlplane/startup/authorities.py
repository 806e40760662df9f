"""Certificate authorities of one's own: SSL_CERT_FILE names them for whatever this service calls over TLS."""

import os
import ssl

from controlplane.startup import env

NAME = "SSL_CERT_FILE"


def trust_named_authorities() -> None:
    """Python and Temporal's client read the variable by themselves; `requests`, for single sign-on, knows another one.

    Of a file that cannot be read all of them say nothing, and trust nobody.
    """
    path = env.plain_text(NAME)
    if not path:
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError:  # of ssl's errors too
        env.refuse(NAME, f"{path} cannot be read, or has no certificates in PEM.")
    os.environ[NAME] = path
    os.environ.setdefault("REQUESTS_CA_BUNDLE", path)
