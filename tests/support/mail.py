"""A mail server on this machine that takes mail, and others that do not."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.endpoints import Endpoint, Handler, silent


class Mailbox:
    """What a server took: each mail with its envelope; it offers TLS if it is given a context for it.

    It refuses the addresses of `refused`.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, refused: tuple[str, ...] = ()) -> None:
        self.refused = refused
        self.mails: list[str] = []
        self.commands: list[str] = []
        self._tls = tls

    def handle(self, connection: socket.socket) -> None:
        """Speaks as much SMTP as a client needs."""
        connection.sendall(b"220 ready\r\n")
        self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        for line in lines:
            self.commands.append(line.decode().strip())
            command = line[:4].upper()
            if command == b"DATA":
                connection.sendall(b"354 go on\r\n")
                self.mails.append(b"".join(iter(lines.readline, b".\r\n")).decode())
            if command == b"STAR" and self._tls:
                connection.sendall(b"220 go on\r\n")
                with self._tls.wrap_socket(connection, server_side=True) as secured:
                    return self._talk(secured)
            offered = b"250-STARTTLS\r\n" if self._tls else b""
            greeting = b"250-ready\r\n" + offered + b"250 AUTH PLAIN\r\n"
            is_refused = command == b"RCPT" and any(each in line.decode() for each in self.refused)
            answer = b"550 unknown\r\n" if is_refused else ANSWERS.get(command, b"250 ok\r\n")
            connection.sendall(greeting if command == b"EHLO" else answer)
            if command == b"QUIT":
                return None
        return None


ANSWERS = {b"QUIT": b"221 bye\r\n", b"AUTH": b"235 welcome\r\n"}


def refusing(connection: socket.socket) -> None:
    """A server that takes no mail."""
    connection.sendall(b"554 not here\r\n")
    silent(connection)


def taking_and_silent(connection: socket.socket) -> None:
    """A server that has the whole mail, and does not say so in time."""
    take_slowly(connection)


def taking_after(seconds: float, mails: list[str]) -> Handler:
    """A server that says so long after it has the mail that it has it."""

    def handle(connection: socket.socket) -> None:
        mails.append(take_slowly(connection, seconds))

    return handle


def take_slowly(connection: socket.socket, seconds: float | None = None) -> str:
    """The mail that was taken; without `seconds` nothing is said of it."""
    lines = connection.makefile("rb")
    connection.sendall(b"220 ready\r\n")
    for line in lines:
        connection.sendall(b"354 go on\r\n" if line[:4].upper() == b"DATA" else b"250 ok\r\n")
        if line[:4].upper() == b"DATA":
            break
    mail = b"".join(iter(lines.readline, b".\r\n")).decode()
    if seconds is None:
        silent(connection)
        return mail
    time.sleep(seconds)
    connection.sendall(b"250 taken\r\n")
    lines.readline()
    return mail


@contextmanager
def mail_server(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The server's EMAIL_URL; with `tls` it speaks TLS from the start."""
    endpoint = Endpoint(handler, tls=tls)
    try:
        yield f"smtp{'s' if tls else ''}://{endpoint.host}?from=controlplane@example.com"
    finally:
        endpoint.stop()
