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

#: Seconds that somebody waits; one thread of a process sends for pages at a time, so that they hold no more.
PATIENCE = 3.0
#: Seconds more for the answer to a mail that nobody waits for, once the server is being given it.
PATIENCE_ONCE_GIVEN = 30.0
_turn, _turn_of_nobody = threading.Lock(), threading.Lock()
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


class Result(NamedTuple):
    """What is known of a mail to several addresses."""

    outcome: "Outcome"
    #: Which of the addresses the server refused.
    refused: tuple[str, ...] = ()
    #: Whether the server was given the whole mail and did not say what became of it.
    may_have_it: bool = False


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
    return hand_over([to], subject, text, is_waited_for=True).outcome


def hand_over(to: Sequence[str], subject: str, text: str, *, mail_id: str = "", is_waited_for: bool) -> Result:
    """Whether the server has taken the mail; the log says why not, and names neither addresses nor the text.

    `mail_id` is the same whenever the same mail is sent again. If nobody waits, a slow server is given more time.
    """
    turn, more = (_turn, 0.0) if is_waited_for else (_turn_of_nobody, PATIENCE_ONCE_GIVEN)
    server: MailServer | None = settings.MAIL_SERVER
    if server is None:
        return Result(Outcome.REFUSED)
    try:
        message, client = _message(server, to, subject, text, mail_id), _client(server, more)
    except (OSError, ValueError) as error:
        return Result(_not_sent(type(error).__name__))
    if not turn.acquire(blocking=False):
        _not_sent("another mail is being sent")
        return Result(Outcome.BUSY)
    ended: list[Handed] = []
    thread = threading.Thread(target=_send, args=(client, server, message, ended, turn), name="mail", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if client.is_given and not ended:
        thread.join(more)
    problem, refused = ended[0] if ended else Handed("TimeoutError")
    if thread.is_alive():
        with suppress(OSError, AttributeError):
            client.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]  # None before it is connected
    if refused:
        logger.warning("the mail server refused %s of %s addresses", len(refused), len(to))
    outcome = _not_sent(problem) if problem else Outcome.SENT
    return Result(outcome, refused, may_have_it=outcome is Outcome.UNCERTAIN and client.is_given)


def _not_sent(reason: str) -> Outcome:
    if reason in UNCERTAIN:
        logger.warning("it is not certain that mail was sent: %s", reason)
        return Outcome.UNCERTAIN
    logger.warning("mail was not sent: %s", reason)
    return Outcome.REFUSED


def _message(server: MailServer, to: Sequence[str], subject: str, text: str, mail_id: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = server.sender, ", ".join(to), subject
    domain = server.sender.rpartition("@")[2]
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{mail_id}@{domain}>" if mail_id else make_msgid(domain=domain)
    message.set_content(text)
    return message


class _Client(smtplib.SMTP):
    """One that knows whether it has begun to give the mail to the server, and is patient from then on."""

    is_given, more = False, 0.0

    def data(self, msg: Any) -> tuple[int, bytes]:
        """The server has got the addresses, and is given the mail."""
        self.is_given = True
        if self.sock and self.more:
            self.sock.settimeout(self.more)
        return super().data(msg)


class _TlsClient(_Client, smtplib.SMTP_SSL):
    """The same over TLS from the first byte."""


def _client(server: MailServer, more: float) -> _Client:
    """One that does not connect yet, since it is given no host, so that whoever waits can break it off."""
    tls: dict[str, Any] = {"context": ssl.create_default_context()} if server.is_tls else {}
    client = (_TlsClient if server.is_tls else _Client)(timeout=PATIENCE, local_hostname="localhost", **tls)
    client._host = server.host  # type: ignore[attr-defined]  # whose certificate it is; connect() does not set it
    client.more = more
    return client


def _send(
    client: smtplib.SMTP, server: MailServer, message: EmailMessage, ended: list[Handed], turn: threading.Lock
) -> None:
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
        turn.release()
