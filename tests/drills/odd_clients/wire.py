"""Requests as clients write them: framing, spellings of headers and addresses, and how well-known proxies pass them on."""

import itertools
import re
import select
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from ipaddress import IPv6Address, ip_address
from random import Random

CURL = shutil.which("curl") or ""
HAS_HTTP2 = bool(CURL) and b"HTTP2" in subprocess.run([CURL, "--version"], capture_output=True, check=True).stdout  # noqa: S603
#: Seconds after which a client gives up.
PATIENCE = 30.0
LOOPBACK = "127.0.0.1"
#: How often a call is sent by curl, of which each is a process of its own.
HTTP2_SHARE = 0.02

type Headers = list[tuple[str, str]]


@dataclass
class Request:
    """A call before it is written; the source is the address that the connection comes from."""

    path: str
    body: bytes | None
    headers: Headers
    method: str = "POST"
    framing: str = "a length"
    source: str = LOOPBACK
    #: Of the body, how much is sent before our direction is closed; all of it, as a rule.
    breaks_off: bool = False
    parts: list[bytes] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{name}: {value[:60]}" for name, value in self.headers if name.lower() != "authorization")
        return f"{self.method} {self.path} ({self.framing}; {told}) {(self.body or b'')[:300]!r}"


@dataclass(frozen=True)
class Answer:
    """Status 0 when the connection broke or nothing came."""

    status: int
    body: bytes = b""


# --- Framing -----------------------------------------------------------------------------------------------------------------


def _pieces(chance: Random, body: bytes) -> Iterator[bytes]:
    """The body in up to ten pieces of any size."""
    cuts = sorted({0, len(body), *(chance.randrange(len(body) + 1) for _ in range(chance.randrange(10)))})
    return (body[start:end] for start, end in itertools.pairwise(cuts))


def _chunked(chance: Random, body: bytes) -> list[bytes]:
    """Sizes in either case and with zeros, extensions and a trailer."""
    sent = []
    for piece in _pieces(chance, body):
        size = f"{len(piece):{chance.choice(['x', 'X', '04x', '08X'])}}{chance.choice(['', '', ';a=1', ';b="c"'])}"
        sent.append(size.encode() + b"\r\n" + piece + b"\r\n")
    return [*sent, b"0\r\n" + chance.choice([b"", b"", b"X-Checksum: none\r\n"]) + b"\r\n"]


def frame(request: Request, chance: Random) -> Headers:
    """Chooses how the body is sent, fills in its parts, and returns the headers that say so."""
    body = request.body
    if body is None:
        request.framing = "no body"
        return chance.choice([[], [("Content-Length", "0")]])
    kinds = ["a length", "a length in pieces", "chunks", "one chunk", "chunks cut anywhere", "HTTP/1.0"]
    request.framing = chance.choices(kinds, [4, 2, 2, 1, 1, 1])[0]
    if HAS_HTTP2 and chance.random() < HTTP2_SHARE and not request.breaks_off:
        request.framing = "HTTP/2"
    match request.framing:
        case "HTTP/2":
            return []
        case "a length" | "HTTP/1.0":
            request.parts = [body]
        case "a length in pieces":
            request.parts = list(_pieces(chance, body))
        case "chunks":
            request.parts = _chunked(chance, body)
        case "one chunk":
            request.parts = [b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"]
        case _:
            request.parts = list(_pieces(chance, b"".join(_chunked(chance, body))))
    if "chunk" in request.framing:
        return [("Transfer-Encoding", chance.choice(["chunked", "Chunked", "chunked "]))]
    return [("Content-Length", chance.choice(["{}", "{}", "00{}"]).format(len(body)))]


class Wire:
    """A client's connection, which is kept until an answer, or the client, ends it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._source = ""
        self._socket: socket.socket | None = None

    def ask(self, request: Request, chance: Random) -> Answer:
        headers = [("Host", f"{chance.choice(['127.0.0.1', 'localhost', 'LocalHost'])}:{self._port}")]
        headers += [*request.headers, *frame(request, chance)]
        if request.framing == "HTTP/2":
            return self._ask_over_http2(request)
        expects = bool(request.parts) and request.framing != "HTTP/1.0" and chance.random() < 0.08
        headers += [("Expect", "100-continue")] * expects
        headers += chance.choices([[], [("Connection", "close")], [("Connection", "Keep-Alive")]], [8, 1, 1])[0]
        is_absolute = request.framing != "HTTP/1.0" and not request.path.startswith("//") and chance.random() < 0.05
        target = f"http://127.0.0.1:{self._port}{request.path}" if is_absolute else request.path
        version = "1.0" if request.framing == "HTTP/1.0" else "1.1"
        lines = [f"{request.method} {target} HTTP/{version}", *_lines(headers, chance), "", ""]
        try:
            connection = self._connected(request.source)
            return self._exchange(connection, "\r\n".join(lines).encode("latin-1"), request, expects=expects)
        except (OSError, HTTPException):
            self.close()
            return Answer(0)

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def _connected(self, source: str) -> socket.socket:
        if self._socket is None or select.select([self._socket], [], [], 0)[0] or source != self._source:
            self.close()
            self._source = source
            self._socket = socket.create_connection((LOOPBACK, self._port), PATIENCE, source_address=(source, 0))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _exchange(self, connection: socket.socket, head: bytes, request: Request, *, expects: bool) -> Answer:
        parts = [part for part in request.parts if part]
        with suppress(BrokenPipeError, ConnectionResetError):  # it may be answered before it is told
            connection.sendall(head)
            if not expects or _may_go_on(connection):
                for part in parts[: max(1, len(parts) // 2)] if request.breaks_off else parts:
                    connection.sendall(part[: len(part) // 2] if request.breaks_off else part)
            if request.breaks_off:
                connection.shutdown(socket.SHUT_WR)
        response = HTTPResponse(connection, method=request.method)
        response.begin()
        answer = Answer(response.status, response.read())
        if response.will_close or request.breaks_off:
            self.close()
        return answer

    def _ask_over_http2(self, request: Request) -> Answer:
        """With nothing told of the body's length, or with it."""
        command = [CURL, "-sS", "--http2-prior-knowledge", "--max-time", str(PATIENCE), "-X", request.method]
        command += ["--write-out", "\n%{http_code}", "--interface", request.source]
        headers = [*request.headers, *([] if "User-Agent" in dict(request.headers) else [("User-Agent", "")])]
        command += [
            part for name, value in headers for part in ("--header", f"{name}: {value}")
        ]  # with nothing it is left out
        command += ["--upload-file", "-"] if len(request.body or b"") % 2 else ["--data-binary", "@-"]
        url = f"http://{LOOPBACK}:{self._port}{request.path}"
        done = subprocess.run([*command, url], input=request.body, capture_output=True, check=False)  # noqa: S603
        body, _, status = done.stdout.rpartition(b"\n")
        # Without an answer, what curl says of it is all that there is to look for its cause with.
        return Answer(int(status or 0), body or done.stderr)


def _may_go_on(connection: socket.socket) -> bool:
    """Whether the server asked for the body; else its answer is there."""
    found = b""
    while b"\r\n\r\n" not in found:
        found = connection.recv(65_536, socket.MSG_PEEK)
        if not found:
            return False
    if is_interim := re.match(rb"HTTP/1\.1 100 ", found) is not None:
        connection.recv(found.index(b"\r\n\r\n") + 4)
    return is_interim


def _lines(headers: Headers, chance: Random) -> Iterator[str]:
    """Names in any case, and blanks around values where they mean nothing."""
    spellings: list[Callable[[str], str]] = [str, str.lower, str.upper]
    spelling = chance.choice(spellings)
    for name, value in headers:
        before, after = chance.choice([" ", " ", "", "  ", "\t"]), chance.choice(["", "", "", " ", "\t "])
        yield f"{spelling(name)}:{before}{value}{after}"


# --- What headers say --------------------------------------------------------------------------------------------------------


def usual_headers(chance: Random, api_key: str) -> Headers:
    """Key, media type and what clients add, each in one of its spellings."""
    scheme = chance.choice(["Bearer", "Bearer", "bearer", "BEARER", "bEaReR", "UserKey", "userkey", "USERKEY"])
    json = ["application/json", "Application/JSON", "application/json;charset=utf-8", "application/json; charset=UTF-8"]
    json += ['application/json; charset="utf-8"', "application/json ; charset=utf8", "application/json;"]
    json += ["application/json; version=1", "application/json; odata=verbose; charset=utf-8"]
    headers = [("Authorization", f"{scheme} {api_key}"), ("Content-Type", chance.choice(json))]
    accepted = chance.choice([None, "*/*", "application/json", "text/html", "application/xml;q=0.9", "", "*"])
    headers += [] if accepted is None else [("Accept", accepted)]
    others = [("Content-Encoding", "identity"), ("Accept-Encoding", "gzip, deflate, br"), ("TE", "trailers")]
    others += [("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Origin", "null"), ("Cookie", "sessionid=x; csrftoken=y")]
    others += [("If-None-Match", "*"), ("Range", "bytes=0-0"), ("X-HTTP-Method-Override", "GET"), ("Priority", "u=1")]
    headers += chance.sample(others, chance.choice([0, 0, 1, 3]))
    chance.shuffle(headers)
    return headers


#: What a client calls itself, if anything, and what the ledger has of it: the server hands on no header beyond ASCII.
AGENTS: dict[str | None, str] = {
    None: "",
    "": "",
    "x" * 1_000: "x" * 300,
    "Z\xfcrich": "",
    **{name: name for name in ("kubiya-control-plane@2.1.6", "python-httpx/0.28.1", "curl/8.5.0")},
}


def user_agent(chance: Random) -> str | None:
    """One of these."""
    return chance.choice(list(AGENTS))


def route(chance: Random, address: str) -> tuple[str, Headers]:
    """How a call of the client at this address arrives: from which address, and with what a trusted proxy wrote.

    Addresses of 127.0.0.0/8 connect directly, all others come through the proxy at 127.0.0.1.
    """
    if address == LOOPBACK:
        unknown: list[Headers] = [
            *([], [], []),
            [("X-Forwarded-For", "unknown"), ("X-Forwarded-Proto", "https")],
            [("Forwarded", "for=unknown;proto=https")],
            [("Forwarded", 'for="_gazonk";proto=https;by=127.0.0.1')],
        ]
        return LOOPBACK, chance.choice(unknown)
    if address.startswith("127."):
        forged = [("X-Forwarded-For", "203.0.113.200"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=1.2.3.4")]
        return address, chance.choice([[], forged])
    spelling = chance.choice([_forwarded_for, _forwarded_for, _forwarded, _both])
    return LOOPBACK, spelling(chance, address)


def _forwarded_for(chance: Random, address: str) -> Headers:
    """X-Forwarded-For and -Proto as nginx, HAProxy, Envoy, Traefik, Cloudflare, AWS and Azure write them."""
    written = chance.choice(_written(address))
    lines = chance.choice(
        [
            [written],
            [f"198.51.100.1, {written}"],
            ["198.51.100.1", written],  # HAProxy adds a line of its own
            [f"not an address, {written}"],
            [f"{written}, 127.0.0.1"],
            [f"10.0.0.1,{written},127.0.0.1"],
        ]
    )
    proto = chance.choice(["https", "HTTPS", "https, http", "https,https"])
    headers = [("X-Forwarded-For", line) for line in lines] + [("X-Forwarded-Proto", proto)]
    others = [("X-Real-IP", "198.51.100.2"), ("X-Forwarded-Host", "elsewhere.example.com"), ("X-Forwarded-Port", "1")]
    others += [("Forwarded", "for=198.51.100.3;proto=http"), ("Via", "1.1 proxy"), ("CF-Connecting-IP", "198.51.100.4")]
    return headers + chance.sample(others, chance.choice([0, 1, 2]))


def _forwarded(chance: Random, address: str) -> Headers:
    """RFC 7239."""
    quoted = f'"[{address}]:4711"' if ":" in address else chance.choice([address, f'"{address}:80"'])
    element = chance.choice(["for={};proto=https", "For={};Proto=HTTPS;by=127.0.0.1", "proto=https; host=a; for={}"])
    before = chance.choice(["", "", "for=198.51.100.1;proto=https, ", 'for="a,b;c";proto=https,'])
    return [("Forwarded", before + element.format(quoted))]


def _both(chance: Random, address: str) -> Headers:
    """HAProxy's two options at once, of which Forwarded alone tells the scheme."""
    return [("X-Forwarded-For", chance.choice(_written(address))), *_forwarded(chance, address)]


def _written(address: str) -> list[str]:
    """An address, with a port or without, in the spellings that it has."""
    if ":" in address:
        return [address, address.upper(), IPv6Address(address).exploded, f"[{address}]", f"[{address}]:51234"]
    return [address, f"{address}:51234", f"::ffff:{address}", f"[::ffff:{address}]:443", f"  {address} "]


def canonical(address: str) -> str:
    """An address as databases write it."""
    return str(ip_address(address))
