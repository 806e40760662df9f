"""Hands mail over to the server of EMAIL_URL, in bounded time: no page waits longer, and none fails."""

import logging
import smtplib
import socket
import ssl
import threading
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

from django.conf import settings

from controlplane.startup.mail import MailServer

logger = logging.getLogger(__name__)

#: Seconds that somebody waits; one thread of a process sends at a time, so that pages hold no more.
PATIENCE = 3.0
_turn = threading.Lock()


def is_configured() -> bool:
    """Whether mail is sent at all."""
    return settings.MAIL_SERVER is not None


def send(to: str, subject: str, text: str) -> bool:
    """Whether the server has taken the mail; the log says why not, and names neither the address nor the text."""
    server: MailServer | None = settings.MAIL_SERVER
    if server is None:
        return False
    try:
        message, client = _message(server, to, subject, text), _client(server)
    except (OSError, ValueError) as error:
        return _not_sent(type(error).__name__)
    if not _turn.acquire(blocking=False):
        return _not_sent("another mail is being sent")
    outcome: list[str] = []
    thread = threading.Thread(target=_send, args=(client, server, message, outcome), name="mail", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    problem = outcome[0] if outcome else "TimeoutError"
    if thread.is_alive():
        with suppress(OSError, AttributeError):
            client.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]  # None before it is connected
    return _not_sent(problem) if problem else True


def _not_sent(reason: str) -> bool:
    logger.warning("mail was not sent: %s", reason)
    return False


def _message(server: MailServer, to: str, subject: str, text: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = server.sender, to, subject
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=server.sender.rpartition("@")[2])
    message.set_content(text)
    return message


def _client(server: MailServer) -> smtplib.SMTP:
    """One that does not connect yet, since it is given no host, so that whoever waits can break it off."""
    kind: type[smtplib.SMTP] = smtplib.SMTP_SSL if server.is_tls else smtplib.SMTP
    tls: dict[str, Any] = {"context": ssl.create_default_context()} if server.is_tls else {}
    client = kind(timeout=PATIENCE, local_hostname="localhost", **tls)
    client._host = server.host  # type: ignore[attr-defined]  # whose certificate it is; connect() does not set it
    return client


def _send(client: smtplib.SMTP, server: MailServer, message: EmailMessage, outcome: list[str]) -> None:
    """Puts "" or what went wrong into `outcome`; its turn ends when it does, however long a resolver takes."""
    try:
        client.connect(server.host, server.port)
        if not server.is_tls and not server.is_local:
            client.starttls(context=ssl.create_default_context())
        if server.username:
            client.login(server.username, server.password)
        client.send_message(message)
        outcome.append("")
        client.quit()
    except (OSError, ValueError) as error:
        outcome.append(type(error).__name__)
    finally:
        client.close()
        _turn.release()
