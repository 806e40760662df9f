"""Reads which mail server the service sends by, if any, from EMAIL_URL."""

import re
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from controlplane.startup import env
from environments.endpoints.hosts import HostError, read_host
from environments.mail import MailServer

FORM = "it is smtp:// or smtps://user:password@mail.example.com:587?from=controlplane@example.com."
PORTS = {"smtp": 587, "smtps": 465}


def mail_server() -> MailServer | None:
    """The server, None if no mail is sent; what it says of a URL that is wrong shows nothing of it."""
    url = env.plain_text("EMAIL_URL")
    if not url:
        return None
    try:
        parts = urlsplit(url)
        default_port = PORTS[parts.scheme]
        host, port = parts.hostname or "", parts.port or default_port
        read_host(host)
    except (HostError, KeyError, ValueError):
        env.refuse("EMAIL_URL", f"{FORM} A password has @ as %40 and / as %2F.")
    options = parse_qs(parts.query)
    if parts.path.strip("/") or parts.fragment or set(options) != {"from"}:
        env.refuse("EMAIL_URL", f"{FORM} It has no path and no other option.")
    sender = options["from"][-1]
    try:
        validate_email(sender)
    except ValidationError:
        env.refuse("EMAIL_URL", "what follows from= is no mail address.")
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not re.fullmatch(r"[ -~]*", username + password + sender) or bool(username) != bool(password):
        env.refuse("EMAIL_URL", f"{FORM} It has both user and password, or none of them, in ASCII.")
    return MailServer(host, port, sender, parts.scheme == "smtps", username, password)
