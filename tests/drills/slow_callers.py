"""Callers that hold a connection each and hardly use it: `python -m tests.drills.slow_callers PORT COUNT CERTIFICATE`.

A process of its own, so that they take no time from those whose answers are timed. It prints one JSON line a second: how many
are open, how many were ever opened, and how often the server ended one, whereupon the caller comes back. It ends with its
standard input.
"""

import heapq
import itertools
import json
import random
import resource
import selectors
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress

NAME = "controlplane.example.com"
#: Seconds between two bytes of one caller: well within what the proxy allows between two reads.
PACE = 5.0
#: So many connect in a second, so that those whom the proxy ends after its 30 s do not all come back at once.
OPENINGS_PER_SECOND = 300
#: Bytes that a slow reader takes at a time, of an answer that fits into no buffer between here and the proxy.
SIP = 2_048
RECEIVE_BUFFER = 4_096
LARGE_ANSWER = "/static/admin/js/vendor/jquery/jquery.js"

HEADERS = f"POST /api/v1/workers/x/start HTTP/1.1\r\nHost: {NAME}\r\nX-Slow: ".encode()
BODY = (
    f"POST /api/v1/workers/x/start HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\n"
    "Content-Length: 60000\r\n\r\n"
).encode()
READING = f"GET {LARGE_ANSWER} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()


class Caller:
    """One connection: what is said at once, and whether a byte follows, or a sip, at each step."""

    #: Opening; whether TLS is spoken; whether it goes on sending; whether it goes on reading.
    KINDS = {
        "nothing at all": (b"", False, False, False),
        "nothing after the handshake": (b"", True, False, False),
        "slow headers": (HEADERS, True, True, False),
        "slow body": (BODY, True, True, False),
        "slow reading": (READING, True, False, True),
    }

    def __init__(self, kind: str, port: int, trust: ssl.SSLContext) -> None:
        self.opening, self.speaks_tls, self.sends, self.reads = self.KINDS[kind]
        self.port = port
        self.trust = trust
        self.socket: socket.socket | None = None

    def open(self) -> None:
        """Connects anew; an error is the server's refusal, and the caller's to try again."""
        plain = socket.socket()
        if self.reads:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        plain.settimeout(10)
        try:
            plain.connect(("127.0.0.1", self.port))
            self.socket = self.trust.wrap_socket(plain, server_hostname=NAME) if self.speaks_tls else plain
            self.socket.sendall(self.opening)
        except OSError:
            plain.close()
            self.close()
            raise
        self.socket.settimeout(0)

    def step(self) -> None:
        """Sends a byte or takes a sip."""
        assert self.socket
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if self.sends:
                self.socket.send(b"x")
            elif self.reads and not self.socket.recv(SIP):
                raise ConnectionResetError

    def is_ended(self) -> bool:
        """Called when something arrived: TLS's own messages aside, that is an error's answer or the end."""
        assert self.socket
        try:
            self.socket.recv(SIP)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        if self.socket:
            self.socket.close()
            self.socket = None


#: Bodies the most: they stay, while the others are ended by the proxy after its 30 s and come back.
MIXTURE = (
    "slow body",
    "slow headers",
    "slow reading",
    "nothing at all",
    "slow body",
    "slow body",
    "nothing after the handshake",
    "slow body",
    "slow headers",
    "slow body",
)


class Crowd:
    """All callers, stepped in turn by one loop."""

    def __init__(self, port: int, count: int, trust: ssl.SSLContext) -> None:
        kinds = itertools.cycle(MIXTURE)
        self.callers = [Caller(next(kinds), port, trust) for _ in range(count)]
        self.selector = selectors.DefaultSelector()
        now = time.monotonic()
        self.due = [(now + number / OPENINGS_PER_SECOND, number) for number in range(count)]
        self.opened = self.ended = self.refused = 0

    def run(self) -> None:
        """Until standard input ends."""
        is_over = threading.Event()

        def wait() -> None:
            sys.stdin.read()
            is_over.set()

        threading.Thread(target=wait, daemon=True).start()
        report_at = 0.0
        while not is_over.is_set():
            now = time.monotonic()
            if now >= report_at:
                report_at = now + 1
                self._report()
            self._step(now)
            self._listen()

    def _step(self, now: float) -> None:
        """Moves at most 50 whose time has come, so that those who were cut off are noticed in between."""
        for _ in range(50):
            if self.due[0][0] > now:
                return
            number = self.due[0][1]
            caller = self.callers[number]
            if caller.socket is None:
                self._open(caller)
            else:
                try:
                    caller.step()
                except OSError:
                    self._end(caller)
                    self._open(caller)
            heapq.heapreplace(self.due, (now + PACE * random.uniform(0.8, 1.2), number))  # noqa: S311

    def _listen(self) -> None:
        for key, _ in self.selector.select(0.01):
            if key.data.is_ended():
                self._end(key.data)
                self._open(key.data)

    def _open(self, caller: Caller) -> None:
        try:
            caller.open()
        except OSError:
            self.refused += 1
            return
        self.opened += 1
        if caller.socket and not caller.reads:
            self.selector.register(caller.socket, selectors.EVENT_READ, caller)

    def _end(self, caller: Caller) -> None:
        self.ended += 1
        if caller.socket and not caller.reads:
            self.selector.unregister(caller.socket)
        caller.close()

    def _report(self) -> None:
        held = sum(caller.socket is not None for caller in self.callers)
        counts = {"open": held, "opened": self.opened, "ended": self.ended, "refused": self.refused}
        print(json.dumps(counts), flush=True)


def main() -> None:
    port, count, certificate = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Crowd(port, count, ssl.create_default_context(cafile=certificate)).run()


if __name__ == "__main__":
    main()
