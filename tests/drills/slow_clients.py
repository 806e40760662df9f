"""The shipped proxy and service hold thousands of slow connections, serve others meanwhile, and refuse smuggled requests.

Slow are: nothing at all, nothing after the TLS handshake, headers and bodies byte by byte, and reading. Meanwhile workers start
at a moderate rate, each over a TLS connection of its own.
"""

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from tests.drills import smuggling
from tests.drills.drill import Figure, Scale, say
from tests.drills.load import Answers, send, start_call
from tests.drills.service import Fleet, Service, prepared_server
from tests.support.processes import ROOT
from tests.support.proxies import NAME, Proxy, nginx_program

#: Seconds at the 99th percentile within which a start is to be answered.
PROMISE = 0.1
STARTS_PER_SECOND = 20
#: More slow callers than are promised: each that the proxy ends needs a moment to come back, and a slow reader's connection is
#: the kernel's alone, no longer the proxy's, once its buffers have taken the whole answer.
SPARE = 1.25
#: Seconds for all of them to connect.
LONGEST_WAIT = 180


def run(scale: Scale, directory: Path) -> Figure:
    """Times starts without and with slow callers, then sends what could be read differently by two servers."""
    nginx_program()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with _setup(directory) as (database_url, service, proxy):
        fleet = service.create_fleet(workers=64)
        _start_workers(proxy, fleet, seconds=scale.of(1, 5))  # connections and prepared statements are made
        before = _start_workers(proxy, fleet, seconds=scale.of(3, 30))
        say(f"starts without slow clients: p99 {before.percentile(0.99) * 1000:.0f} ms")
        with _slow_callers(directory, proxy, _promised(scale)) as slow:
            during = _start_workers(proxy, fleet, seconds=scale.of(5, 120))
            held = slow.least_held()
        say(f"slow connections: {slow.report()}")
        with psycopg.connect(database_url, autocommit=True) as database:
            smuggling_figure = _Smuggled(database, fleet, service, proxy).try_all()
    starts_figure = _figure_of_starts(scale, held, before, during)
    return Figure(f"{starts_figure.text}; {smuggling_figure.text}", starts_figure.is_met and smuggling_figure.is_met)


def _figure_of_starts(scale: Scale, held: int, before: Answers, during: Answers) -> Figure:
    failed = len(during.other_than(200))
    p99, p99_before = during.percentile(0.99), before.percentile(0.99)
    # In CI other work shares the processors, and a hundred starts are few: there, what matters is that none waits for seconds,
    # as all do once slow clients hold the service's threads.
    limit = max(5 * PROMISE, 2 * p99_before) if scale.is_quick else PROMISE
    text = (
        f"{failed} of {len(during.all):,} starts failed while at least {held:,} slow connections were held,"
        f" p99 {p99 * 1000:.0f} ms (without them {p99_before * 1000:.0f} ms)"
    )
    return Figure(text, failed == 0 and p99 <= limit and held >= _promised(scale))


def _promised(scale: Scale) -> int:
    """How many slow connections are to be held at once."""
    return scale.of(1_000, 10_000)


@contextmanager
def _setup(directory: Path) -> Iterator[tuple[str, Service, Proxy]]:
    (directory / "database").mkdir()
    database = prepared_server(directory / "database", {})
    service = Service(directory, database.url, CONTROL_PLANE_URL=f"https://{NAME}")
    proxy = Proxy(directory / "proxy", service.port)
    service.prepare()
    service.start()
    proxy.start()
    try:
        yield database.url, service, proxy
    finally:
        proxy.stop()
        service.stop()
        database.stop()


def _start_workers(proxy: Proxy, fleet: Fleet, *, seconds: int) -> Answers:
    """Starts at their rate; each is timed from when it was due, over a connection that is made for it."""
    answers = Answers()
    began = time.monotonic()

    def start(number: int) -> None:
        due = began + number / STARTS_PER_SECOND
        connection = proxy.connection()
        answer = send(connection, start_call(fleet, number))
        connection.close()
        answers.all.append(replace(answer, seconds=time.monotonic() - due))

    with ThreadPoolExecutor(8) as callers:
        for number in range(seconds * STARTS_PER_SECOND):
            time.sleep(max(0.0, began + number / STARTS_PER_SECOND - time.monotonic()))
            callers.submit(start, number)
    return answers


class _SlowCallers:
    """The process of the slow callers, and what it and the proxy tell of them."""

    def __init__(self, process: subprocess.Popen[bytes], reports: Path, proxy: Proxy) -> None:
        self._process = process
        self._reports = reports
        self._proxy = proxy
        self._idle_sockets = proxy.sockets()
        self._first_report = 0

    def wait_for(self, count: int) -> None:
        """Returns once so many are open at once, or will hardly ever be."""
        deadline = time.monotonic() + LONGEST_WAIT
        while self._process.poll() is None:
            lines = self._lines()
            self._first_report = len(lines)
            if lines and (lines[-1]["open"] >= count or time.monotonic() > deadline):
                return
            time.sleep(0.2)
        message = "The slow callers ended early."
        raise AssertionError(message)

    def least_held(self) -> int:
        """The fewest that were open in any second since, as they say and as the proxy's own sockets say now."""
        lines = self._lines()[self._first_report - 1 :]
        return min([self._proxy.sockets() - self._idle_sockets, *(line["open"] for line in lines)])

    def report(self) -> str:
        """The last report."""
        return ", ".join(f"{count:,} {name}" for name, count in self._lines()[-1].items())

    def _lines(self) -> list[dict[str, int]]:
        text = self._reports.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@contextmanager
def _slow_callers(directory: Path, proxy: Proxy, promised: int) -> Iterator[_SlowCallers]:
    count = int(promised * SPARE)
    command = [sys.executable, "-m", "tests.drills.slow_callers", str(proxy.port), str(count)]
    reports = directory / "slow-callers.jsonl"
    with reports.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # our own program
            [*command, str(proxy.directory / "tls.crt")], cwd=ROOT, stdin=subprocess.PIPE, stdout=output
        )
    try:
        callers = _SlowCallers(process, reports, proxy)
        callers.wait_for(count)
        yield callers
    finally:
        process.kill()
        process.communicate()


@dataclass
class _Smuggled:
    """Sends every shape through the proxy and to the service itself, and looks for their starts in the database."""

    database: psycopg.Connection
    fleet: Fleet
    service: Service
    proxy: Proxy
    tried: int = 0
    refused: int = 0
    marks: list[str] = field(default_factory=list)

    def try_all(self) -> Figure:
        ways: dict[str, smuggling.Connect] = {"proxy": self.proxy.connect, "service": self._connect_to_service}
        for way, connect in ways.items():
            self._see_an_honest_pair(connect)
            for shape in smuggling.SHAPES:
                self._try(way, connect, shape)
        recorded = self._recorded(*self.marks)  # again, for what was answered to nobody and came late
        text = f"{self.refused} of {self.tried} smuggling attempts refused, {recorded} of their starts on record"
        return Figure(text, self.refused == self.tried and recorded == 0)

    def _try(self, way: str, connect: smuggling.Connect, shape: smuggling.Shape) -> None:
        self.tried += 1
        outer, hidden = smuggling.pair(self.fleet, 1_000_000 + self.tried)
        outcome = smuggling.send(connect, shape.written(outer, hidden))
        recorded = self._recorded(outer.mark, hidden.mark)
        self.marks += [outer.mark, hidden.mark]
        if outcome.is_refusal(shape) and not recorded:
            self.refused += 1
        else:
            say(f"{shape.name}, to the {way}: {outcome}, {recorded} recorded")

    def _see_an_honest_pair(self, connect: smuggling.Connect) -> None:
        """Two requests in one go are two answers and two records, so that a smuggled one would be seen."""
        first, second = smuggling.pair(self.fleet, 2_000_000 + self.tried)
        outcome = smuggling.send(connect, smuggling.request(first) + smuggling.request(second))
        if outcome.statuses != [200, 200] or self._recorded(first.mark, second.mark) != 2:
            message = f"Two honest requests at once were answered {outcome}: a smuggled one could not be seen."
            raise AssertionError(message)

    def _recorded(self, *marks: str) -> int:
        query = "SELECT count(*) FROM workers_workerstart WHERE system_info->>'mark' = ANY(%s)"
        row = self.database.execute(query, [list(marks)]).fetchone()
        return int(row[0]) if row else 0

    def _connect_to_service(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.service.port), 30)
