"""What a reverse proxy does for a rolling restart: calls go to the services that are put in, in turn, each on a new connection."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

from tests.drills.load import PATIENCE, Call, Load, send


class Proxy:
    """The ports that calls go to."""

    def __init__(self, *ports: int) -> None:
        self._ports = list(ports)
        self._turns = itertools.count()
        self._under_way: Counter[int] = Counter()
        self._lock = threading.Lock()

    def put_in(self, port: int) -> None:
        """Calls go there too from now on."""
        with self._lock:
            self._ports.append(port)

    def take_out(self, port: int) -> None:
        """Returns when no call is under way there any more, and none comes."""
        with self._lock:
            self._ports.remove(port)
        while self._under_way[port]:
            time.sleep(0.01)

    @contextmanager
    def port(self) -> Iterator[int]:
        """The port for one call."""
        with self._lock:
            port = self._ports[next(self._turns) % len(self._ports)]
            self._under_way[port] += 1
        try:
            yield port
        finally:
            with self._lock:
                self._under_way[port] -= 1


class ProxiedLoad(Load):
    """Callers that reach the services through a proxy, each with so many seconds between its calls."""

    def __init__(self, proxy: Proxy, calls: Iterator[Call], *, callers: int, pause: float) -> None:
        super().__init__(0, calls, callers=callers)
        self._proxy, self._pause = proxy, pause

    def _call(self) -> None:
        while call := self._next():
            with self._proxy.port() as port:
                connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                self.answers.all.append(send(connection, call))
                connection.close()
            time.sleep(self._pause)
