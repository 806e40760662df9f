"""Requests that two servers could read differently, each of which hides the start of another worker within itself."""

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.drills.load import Call, start_call
from tests.drills.service import Fleet
from tests.support.proxies import NAME

#: Seconds within which an answer has come or none does.
PATIENCE = 5.0
#: Seconds without a byte after an answer, after which there is no second one.
SILENCE = 0.5

type Connect = Callable[[], socket.socket]


@dataclass(frozen=True)
class Shape:
    """A way to write a request: header lines as they are sent, and what comes before the hidden start."""

    name: str
    headers: bytes
    before: bytes = b""
    #: Its length is beyond doubt, so it hides nothing, and the connection may stay open.
    is_framed: bool = False

    def written(self, outer: Call, hidden: Call) -> bytes:
        inside = outer.body if self.is_framed else self.before + request(hidden)
        length = len(inside)
        return head(outer) + self.headers.replace(b"{length}", b"%d" % length) + b"\r\n" + inside


def _chunked(name: str, line: bytes) -> Shape:
    """Content-Length covers the hidden start, while Transfer-Encoding, where it counts, ends before it."""
    return Shape(name, b"Content-Length: {length}\r\n" + line + b"\r\n", b"0\r\n\r\n")


SHAPES = (
    _chunked("Content-Length and Transfer-Encoding", b"Transfer-Encoding: chunked"),
    Shape(
        "Transfer-Encoding and Content-Length",
        b"Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n",
        b"0\r\n\r\n",
    ),
    Shape("two Content-Lengths", b"Content-Length: 0\r\nContent-Length: {length}\r\n"),
    Shape("two Content-Lengths, the other way round", b"Content-Length: {length}\r\nContent-Length: 0\r\n"),
    Shape("a list of Content-Lengths", b"Content-Length: 0, {length}\r\n"),
    Shape("a signed Content-Length", b"Content-Length: +{length}\r\n"),
    Shape("a negative Content-Length", b"Content-Length: -{length}\r\n"),
    Shape("a hexadecimal Content-Length", b"Content-Length: 0x{length}\r\n"),
    Shape("a Content-Length with a space before its colon", b"Content-Length: 0\r\nContent-Length : {length}\r\n"),
    _chunked("a space before the colon", b"Transfer-Encoding : chunked"),
    _chunked("xchunked", b"Transfer-Encoding: xchunked"),
    _chunked("a tab before chunked", b"Transfer-Encoding:\tchunked"),
    _chunked("a vertical tab before chunked", b"Transfer-Encoding: \x0bchunked"),
    _chunked("a NUL after chunked", b"Transfer-Encoding: chunked\x00"),
    _chunked("quoted chunked", b'Transfer-Encoding: "chunked"'),
    _chunked("identity", b"Transfer-Encoding: identity"),
    _chunked("chunked, then identity", b"Transfer-Encoding: chunked, identity"),
    _chunked("identity, then chunked", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
    _chunked("chunked behind a bare LF", b"X: y\nTransfer-Encoding: chunked"),
    _chunked("chunked behind a bare CR", b"X: y\rTransfer-Encoding: chunked"),
    _chunked("chunked on a folded line", b"Transfer-Encoding:\r\n chunked"),
    _chunked("chunked as another header's folded line", b"X: y\r\n Transfer-Encoding: chunked"),
    _chunked("a NUL in a name", b"X\x00: y\r\nTransfer-Encoding: chunked"),
    Shape("a chunk size beyond all numbers", b"Transfer-Encoding: chunked\r\n", b"10000000000000000\r\n"),
    Shape("a signed chunk size", b"Transfer-Encoding: chunked\r\n", b"+0\r\n\r\n"),
    Shape("a second Host", b"Host: other.example.com\r\nContent-Length: {length}\r\n", is_framed=True),
    Shape("a second Host, the same", b"Host: " + NAME.encode() + b"\r\nContent-Length: {length}\r\n", is_framed=True),
)


@dataclass(frozen=True)
class Outcome:
    """What came back for what was sent on one connection, until it was closed or silent."""

    statuses: list[int]
    is_closed: bool

    def is_refusal(self, shape: Shape) -> bool:
        """One answer, an error, and an end where what follows could be read as a request."""
        is_one_error = len(self.statuses) == 1 and self.statuses[0] >= 400
        return is_one_error and (self.is_closed or shape.is_framed)


def send(connect: Connect, sent: bytes) -> Outcome:
    """Sends it on a connection of its own and reads until the end, or until nothing more comes."""
    received, is_closed, began = b"", False, time.monotonic()
    with connect() as connection:
        connection.sendall(sent)
        while time.monotonic() - began < PATIENCE:
            connection.settimeout(SILENCE if received else PATIENCE)
            try:
                part = connection.recv(65_536)
            except TimeoutError:
                break
            except OSError:  # reset, since the rest of what was sent was not read
                part = b""
            if is_closed := not part:
                break
            received += part
    return Outcome([int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", received)], is_closed)


def head(call: Call) -> bytes:
    """The request line and the headers that every shape has; Content-Length and the empty line are missing."""
    return (
        f"POST {call.path} HTTP/1.1\r\nHost: {NAME}\r\nX-Forwarded-Proto: https\r\n"
        f"Authorization: Bearer {call.api_key}\r\nContent-Type: application/json\r\n"
    ).encode()


def request(call: Call) -> bytes:
    """The call, written as it should be."""
    return head(call) + b"Content-Length: %d\r\n\r\n" % len(call.body) + call.body


def pair(fleet: Fleet, number: int) -> tuple[Call, Call]:
    """Two starts of different workers with marks of their own."""
    return start_call(fleet, 2 * number), start_call(fleet, 2 * number + 1)
