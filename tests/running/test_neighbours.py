"""A running control plane of one process: what people and readers wait for holds up no other tenant's starts."""

import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from typing import NamedTuple

import psycopg
import pytest
from django.db import connection

from controlplane.serving.server import THREADS
from tests.drills.service import Fleet, Service
from tests.running.test_framing import CURL, HAS_HTTP2
from tests.support.circuits import wait_until
from tests.support.crawler import Console
from tests.support.databases import MakeDatabase

pytestmark = [
    pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL only"),
    pytest.mark.xdist_group("neighbours"),
]
#: Seconds for which neighbours go on; each slow statement is given up after three.
SECONDS = 5
#: Seconds within which a start is answered though the machine is busy with other tests.
PROMPT = 2.0
#: The trail's table gives way to one that is read slowly, as the list of events and the queues' history read it.
SLOW = """
    ALTER TABLE environments_auditevent RENAME TO kept;
    CREATE VIEW environments_auditevent AS SELECT kept.* FROM (SELECT pg_sleep(30)) AS slept, kept
"""
#: Those who asked have given up by then; PostgreSQL would go on for five seconds.
END = """
    SELECT pg_cancel_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
"""
QUICK = "DROP VIEW environments_auditevent; ALTER TABLE kept RENAME TO environments_auditevent"


class Answer(NamedTuple):
    status: int
    retry_after: str | None
    seconds: float


class Neighbours:
    """A service with a person who is signed in, a reader and a worker, and another tenant that sends slowly."""

    def __init__(self, service: Service, fleet: Fleet, slow: Fleet, console: Console) -> None:
        self.service, self.fleet, self.slow = service, fleet, slow
        self.cookies = "; ".join(f"{each.name}={each.value}" for each in console.cookies)

    def look(self) -> Answer:
        return self._ask("GET", "/admin/environments/auditevent/", Cookie=self.cookies)

    def read(self) -> Answer:
        return self._ask("GET", "/api/v1/worker-queues", Authorization=f"Bearer {self.fleet.api_key}")

    def start(self) -> Answer:
        return self._start(self.fleet)

    def start_slow_tenant(self) -> Answer:
        return self._start(self.slow)

    def _start(self, fleet: Fleet) -> Answer:
        path, key = f"/api/v1/workers/{fleet.worker_ids[0]}/start", f"Bearer {fleet.api_key}"
        return self._ask("POST", path, b"{}", Authorization=key, **{"Content-Type": "application/json"})

    @contextmanager
    def sending_slowly(self, calls: int, framing: str) -> Iterator[list[socket.socket]]:
        """So many starts of the slow tenant of which the body has begun and does not end."""
        head = (
            f"POST /api/v1/workers/{self.slow.worker_ids[0]}/start HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {self.slow.api_key}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
        )
        with ExitStack() as opened:
            sent = [
                opened.enter_context(socket.create_connection(("127.0.0.1", self.service.port), timeout=10))
                for _ in range(calls)
            ]
            for each in sent:
                each.sendall(head.encode())
            yield sent

    @contextmanager
    def refused_over_http2(self, calls: int) -> Iterator[None]:
        """So many starts without a key over HTTP/2, of which the body does not come."""
        url = f"http://127.0.0.1:{self.service.port}/api/v1/workers/{self.slow.worker_ids[0]}/start"
        command = [CURL, "-sS", "--http2-prior-knowledge", "-X", "POST", "--upload-file", "-", url]
        with ExitStack() as opened:
            for _ in range(calls):
                curl = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)  # noqa: S603
                opened.enter_context(curl)
                opened.callback(curl.kill)
            time.sleep(1)
            yield

    def _ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        began = time.monotonic()
        with closing(HTTPConnection("127.0.0.1", self.service.port, timeout=30)) as http:
            http.request(method, path, body, headers)
            response = http.getresponse()
            response.read()
            return Answer(response.status, response.headers["Retry-After"], time.monotonic() - began)


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory, migrated_database: MakeDatabase) -> Iterator[Neighbours]:
    service = Service(tmp_path_factory.mktemp("neighbours"), migrated_database("neighbours"), processes=1)
    fleet, slow = service.create_fleet(1), service.create_fleet(1, "slow")
    account = ("createsuperuser", "--noinput", "--username", "person", "--email", "person@example.com")
    service.set_up(*account, environ={"DJANGO_SUPERUSER_PASSWORD": "a-persons-password"})
    service.start()
    yield Neighbours(service, fleet, slow, Console(service.url, "person", "a-persons-password"))
    service.stop()


@contextmanager
def slow(neighbours: Neighbours) -> Iterator[None]:
    url = neighbours.service.environ["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(SLOW)
        try:
            yield
        finally:
            server.execute(END)
            server.execute(QUICK)


@contextmanager
def going_on(ask: Callable[[], Answer], callers: int) -> Iterator[list[Answer]]:
    """So many callers ask again and again."""
    answers: list[Answer] = []
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            answers.append(answer := ask())
            is_over.wait(0.05 if answer.status == 503 else 0)

    threads = [threading.Thread(target=run) for _ in range(callers)]
    for thread in threads:
        thread.start()
    yield answers
    is_over.set()
    for thread in threads:
        thread.join()


def starts_meanwhile(neighbours: Neighbours) -> list[Answer]:
    answers = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        answers.append(neighbours.start())
        time.sleep(0.05)
    return answers


def assert_served(starts: list[Answer]) -> None:
    assert len(starts) > SECONDS
    assert {answer.status for answer in starts} == {200}
    assert max(answer.seconds for answer in starts) < PROMPT


def test_a_person_who_repeats_a_slow_statement_has_nobody_else_refused(neighbours: Neighbours) -> None:
    assert neighbours.look().status == 200
    with slow(neighbours), going_on(neighbours.look, 1) as looks:
        starts = starts_meanwhile(neighbours)
    assert_served(starts)
    assert looks
    assert all(answer.status == 503 and answer.retry_after for answer in looks)
    assert neighbours.look().status == 200


def test_a_crowd_of_people_and_readers_leaves_a_thread_for_starts(neighbours: Neighbours) -> None:
    with slow(neighbours), going_on(neighbours.look, 12) as looks, going_on(neighbours.read, 12) as reads:
        starts = starts_meanwhile(neighbours)
        assert neighbours.service.status_of("/livez") == 200
    assert_served(starts)
    for answers in (looks, reads):
        assert all(answer.status == 503 and answer.retry_after for answer in answers)
        assert sum(answer.seconds < PROMPT for answer in answers) > len(answers) / 2
    assert neighbours.look().status == neighbours.read().status == 200


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_bodies_that_come_slowly_hold_up_no_other_tenant(neighbours: Neighbours, framing: str) -> None:
    with neighbours.sending_slowly(30, framing) as sent:
        starts = starts_meanwhile(neighbours)
        own = neighbours.start_slow_tenant()
        refused = [each for each in sent if select.select([each], [], [], 0)[0]]
        answers = {each.recv(100).split(b"\r\n")[0] for each in refused}
    assert_served(starts)
    assert own.status in {200, 503}
    assert answers == {b"HTTP/1.1 503 Service Unavailable"}
    assert len(refused) == len(sent) - THREADS // 2
    wait_until(lambda: neighbours.start_slow_tenant().status == 200)


@pytest.mark.skipif(not HAS_HTTP2, reason="curl with HTTP/2 is not installed")
def test_bodies_that_are_refused_over_http2_and_do_not_come_hold_up_nobody(neighbours: Neighbours) -> None:
    with neighbours.refused_over_http2(30):
        starts = starts_meanwhile(neighbours)
    assert_served(starts)
