"""A control plane on loopback that answers as a script says, also as no server should: with faults of the network and of proxies."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple

#: What happens with one request after it has been read.
type Play = Callable[[socket.socket], None]


class Call(NamedTuple):
    """A request that arrived, and when."""

    verb: str
    body: dict[str, Any]
    key: str
    at: float


def answer(status: int, body: Any = None, **headers: str) -> Play:
    """An answer as it should be; `body` is sent as JSON, or as it is if it is text."""
    text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
    kind = "text/html" if text.startswith("<") else "application/json"
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(text.encode())}", f"Content-Type: {kind}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda connection: connection.sendall("\r\n".join([*lines, "", text]).encode())


def refusal(status: int, detail: Any, **headers: str) -> Play:
    """An error as the control plane says it."""
    return answer(status, {"detail": detail}, **headers)


def page(status: int) -> Play:
    """What a proxy says instead."""
    return answer(status, "<html><body>Something is not here.</body></html>")


def raw(text: bytes) -> Play:
    """These bytes, and then the end of the connection."""
    return lambda connection: connection.sendall(text)


def close(connection: socket.socket) -> None:
    """No answer at all."""


def reset(connection: socket.socket) -> None:
    """The same with RST, as of a process that was killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang(connection: socket.socket) -> None:
    """No answer for as long as the client waits."""
    connection.recv(1)


def trickle(connection: socket.socket) -> None:
    """An answer that keeps every time-out between two bytes and never ends."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.2)


def in_seconds(seconds: int) -> str:
    """A moment as HTTP writes it, to the second."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


class ScriptedPlane:
    """Plays for each verb what its script says, in turn, and its last play for ever."""

    def __init__(self, *, port: int = 0, **script: Iterable[Play]) -> None:
        self._script = {verb: list(plays) for verb, plays in script.items()}
        self._calls: list[Call] = []
        self._arrived = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Takes no more calls."""
        self._listener.close()

    def calls(self, verb: str) -> list[Call]:
        """The calls so far."""
        return [call for call in self._calls if call.verb == verb]

    def wait_for(self, verb: str, count: int, *, seconds: float = 40) -> list[Call]:
        """The calls, once there are so many; fewer when the time is over."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self.calls(verb)) >= count, seconds)
            return self.calls(verb)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _play(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            at = time.monotonic()
            head, body = _read(connection)
            verb = head.split(" ", 2)[1].rpartition("/")[2]
            key = head.partition("Authorization: Bearer ")[2].partition("\r\n")[0]
            if verb not in self._script:  # a stranger's, who had this port before
                return
            with self._arrived:
                plays = self._script[verb]
                play = plays.pop(0) if len(plays) > 1 else plays[0]
                self._calls.append(Call(verb, json.loads(body), key, at))
                self._arrived.notify_all()
            play(connection)


def _read(connection: socket.socket) -> tuple[str, bytes]:
    """A request's head and its body, which has a length."""
    received = b""
    length = None
    while length is None or len(received.partition(b"\r\n\r\n")[2]) < length:
        if not (part := connection.recv(65_536)):
            raise ConnectionError
        received += part
        if length is None and b"\r\n\r\n" in received:
            length = int(received.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    head, _, body = received.partition(b"\r\n\r\n")
    return head.decode(), body
