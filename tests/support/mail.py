"""A mail server on this machine that takes mail, and others that do not."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.endpoints import Endpoint, Handler, silent


class Mailbox:
    """What a server took: each mail with its envelope."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        self.commands: list[str] = []

    def handle(self, connection: socket.socket) -> None:
        """Speaks as much SMTP as a client needs."""
        lines = connection.makefile("rb")
        connection.sendall(b"220 ready\r\n")
        for line in lines:
            self.commands.append(line.decode().strip())
            command = line[:4].upper()
            if command == b"DATA":
                connection.sendall(b"354 go on\r\n")
                self.mails.append(b"".join(iter(lines.readline, b".\r\n")).decode())
            connection.sendall(
                b"250-ready\r\n250 AUTH PLAIN\r\n" if command == b"EHLO" else ANSWERS.get(command, b"250 ok\r\n")
            )
            if command == b"QUIT":
                return


ANSWERS = {b"QUIT": b"221 bye\r\n", b"AUTH": b"235 welcome\r\n"}


def refusing(connection: socket.socket) -> None:
    """A server that takes no mail."""
    connection.sendall(b"554 not here\r\n")
    silent(connection)


@contextmanager
def mail_server(handler: Handler, **more: Any) -> Iterator[str]:
    """The server's EMAIL_URL."""
    endpoint = Endpoint(handler, **more)
    try:
        yield f"smtp://{endpoint.host}?from=controlplane@example.com"
    finally:
        endpoint.stop()
