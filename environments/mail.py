"""Hands mail over to the server of EMAIL_URL, in bounded time: no page waits longer, and none fails."""

import logging
import smtplib
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from enum import Enum
from typing import Any, NamedTuple

from django.conf import settings

from environments.endpoints.hosts import is_loopback

logger = logging.getLogger(__name__)

#: Seconds that somebody waits; one thread of a process sends at a time, so that pages hold no more.
PATIENCE = 3.0
_turn = threading.Lock()
#: How a server greets that takes mail.
READY = 220
#: After these the server may have the mail all the same: it answered too late, or not at all.
UNCERTAIN = frozenset({"TimeoutError", "SMTPServerDisconnected"})


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed over, as whom, and from which address."""

    host: str
    port: int
    sender: str
    #: TLS from the first byte; otherwise it is begun by STARTTLS, and only on this machine there may be none.
    is_tls: bool
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(self.host)


class Handed(NamedTuple):
    """What came of handing a mail over: without a problem, all have it but those that were refused."""

    #: What went wrong, by its name; "" when the server has taken the mail.
    problem: str
    refused: tuple[str, ...] = ()


class Outcome(Enum):
    """What is known of a mail, as people are told it; true if the server has taken it."""

    SENT = "The mail was sent"
    REFUSED = "The mail was not sent, since the mail server did not take it"
    UNCERTAIN = "It is not certain that the mail was sent, since the mail server did not answer in time"
    BUSY = "Another mail was being sent, so this one was not"

    def __bool__(self) -> bool:
        return self is Outcome.SENT


def is_configured() -> bool:
    """Whether mail is sent at all."""
    return settings.MAIL_SERVER is not None


def send(to: str, subject: str, text: str) -> Outcome:
    """Whether the server has taken the mail for one address, as somebody who waits for it is told."""
    return hand_over([to], subject, text)[0]


def hand_over(to: Sequence[str], subject: str, text: str) -> tuple[Outcome, tuple[str, ...]]:
    """Whether the server has taken the mail, and which of the addresses it refused, if any.

    The log says why not, and names neither addresses nor the text.
    """
    server: MailServer | None = settings.MAIL_SERVER
    if server is None:
        return Outcome.REFUSED, ()
    try:
        message, client = _message(server, to, subject, text), _client(server)
    except (OSError, ValueError) as error:
        return _not_sent(type(error).__name__), ()
    if not _turn.acquire(blocking=False):
        _not_sent("another mail is being sent")
        return Outcome.BUSY, ()
    ended: list[Handed] = []
    thread = threading.Thread(target=_send, args=(client, server, message, ended), name="mail", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    problem, refused = ended[0] if ended else Handed("TimeoutError")
    if thread.is_alive():
        with suppress(OSError, AttributeError):
            client.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]  # None before it is connected
    if refused:
        logger.warning("the mail server refused %s of %s addresses", len(refused), len(to))
    return (_not_sent(problem) if problem else Outcome.SENT), refused


def _not_sent(reason: str) -> Outcome:
    if reason in UNCERTAIN:
        logger.warning("it is not certain that mail was sent: %s", reason)
        return Outcome.UNCERTAIN
    logger.warning("mail was not sent: %s", reason)
    return Outcome.REFUSED


def _message(server: MailServer, to: Sequence[str], subject: str, text: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = server.sender, ", ".join(to), subject
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


def _send(client: smtplib.SMTP, server: MailServer, message: EmailMessage, ended: list[Handed]) -> None:
    """Puts what came of it into `ended`; its turn ends when it does, however long a resolver takes."""
    try:
        code, greeting = client.connect(server.host, server.port)
        if code != READY:
            raise smtplib.SMTPConnectError(code, greeting)
        if not server.is_tls and not server.is_local:
            client.starttls(context=ssl.create_default_context())
        if server.username:
            client.login(server.username, server.password)
        ended.append(Handed("", tuple(client.send_message(message))))
        client.quit()
    except smtplib.SMTPRecipientsRefused as error:
        ended.append(Handed(type(error).__name__, tuple(error.recipients)))
    except (OSError, ValueError) as error:
        ended.append(Handed(type(error).__name__))
    finally:
        client.close()
        _turn.release()
