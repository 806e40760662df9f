"""Callers that load the service as a fleet does, and keep what each call was answered."""

import itertools
import json
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

from tests.drills.service import Fleet

#: What a real worker tells of its machine: about 900 bytes.
SYSTEM_INFO = {
    "hostname": "worker-host-01.example.internal",
    "platform": "Linux-6.8.0-45-generic-x86_64-with-glibc2.39",
    "os_name": "Linux",
    "os_version": "6.8.0-45-generic",
    "python_version": "3.13.0",
    "cli_version": "1.0.2",
    "sdk_version": "1.0.2",
    "cwd": "/srv/worker",
    "supported_runtimes": ["default", "claude_code"],
    "docker_available": True,
    "docker_version": "28.2.2",
    "cpu_count": 8,
    "cpu_percent": 12.5,
    "memory_total": 33_554_432_000,
    "memory_used": 12_884_901_888,
    "memory_percent": 38.4,
    "disk_total": 512_110_190_592,
    "disk_used": 210_453_397_504,
    "disk_percent": 41.1,
    "uptime_seconds": 86_400,
    "cpu_model": "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz",
    "container_image": "registry.example.internal/agents/worker:1.0.2-bookworm",
    "packages": {
        "temporalio": "1.18.0",
        "pydantic": "2.11.7",
        "httpx": "0.28.1",
        "grpcio": "1.74.0",
        "protobuf": "6.31.1",
    },
}
#: Seconds after which a caller gives up; longer than anything here may take.
PATIENCE = 30
#: Seconds before a caller calls again whom nobody answered, or who was asked to wait (a worker waits longer).
PAUSES = {0: 0.05, 503: 0.2}


@dataclass(frozen=True)
class Call:
    """A request of a worker; `mark` is told in `system_info`, so that its record can be found."""

    path: str
    body: bytes
    api_key: str
    mark: str = ""


@dataclass(frozen=True)
class Answer:
    """What a call was answered; status 0 when the connection broke or nothing came."""

    call: Call
    status: int
    began_at: float
    seconds: float
    retry_after: str | None
    body: bytes


@dataclass
class Answers:
    """Everything that callers were answered."""

    all: list[Answer] = field(default_factory=list)

    def statuses(self) -> dict[int, int]:
        """How many of each status, the most frequent first."""
        return dict(Counter(answer.status for answer in self.all).most_common())

    def of(self, *statuses: int) -> list[Answer]:
        return [answer for answer in self.all if answer.status in statuses]

    def other_than(self, *statuses: int) -> list[Answer]:
        return [answer for answer in self.all if answer.status not in statuses]

    def slowest(self) -> float:
        """Seconds."""
        return max((answer.seconds for answer in self.all), default=0.0)

    def percentile(self, share: float) -> float:
        """Seconds within which this share of all calls was answered."""
        ordered = sorted(answer.seconds for answer in self.all)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def start_call(fleet: Fleet, number: int) -> Call:
    """The start of the fleet's worker of this number, counted around."""
    mark = f"start-{number}"
    worker_id = fleet.worker_ids[number % len(fleet.worker_ids)]
    body = json.dumps({"system_info": {**SYSTEM_INFO, "pid": number % 4_000_000, "mark": mark}})
    return Call(f"/api/v1/workers/{worker_id}/start", body.encode(), fleet.api_key, mark)


def heartbeat_call(fleet: Fleet, number: int) -> Call:
    """A light heartbeat."""
    worker_id = fleet.worker_ids[number % len(fleet.worker_ids)]
    body: dict[str, Any] = {"status": "active", "tasks_processed": number, "worker_metadata": {}}
    return Call(f"/api/v1/workers/{worker_id}/heartbeat", json.dumps(body).encode(), fleet.api_key)


class Load:
    """So many callers at once, each with a connection that it keeps, in threads of this process."""

    def __init__(self, port: int, calls: Iterator[Call], *, callers: int = 32) -> None:
        self.answers = Answers()
        self._port = port
        self._calls = calls
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(callers)]

    def start(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def wait(self) -> Answers:
        """Returns when all calls are made."""
        for thread in self._threads:
            thread.join()
        return self.answers

    def stop(self) -> Answers:
        """Makes no more calls, and returns when those under way are answered."""
        self._is_over.set()
        return self.wait()

    def is_running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _next(self) -> Call | None:
        with self._lock:
            return None if self._is_over.is_set() else next(self._calls, None)

    def _call(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        while call := self._next():
            answer = send(connection, call)
            self.answers.all.append(answer)
            time.sleep(PAUSES.get(answer.status, 0))
        connection.close()


def send(connection: HTTPConnection, call: Call) -> Answer:
    """One call on a connection, which is opened anew when it broke."""
    headers = {"Authorization": f"Bearer {call.api_key}", "Content-Type": "application/json"}
    began = time.monotonic()
    if connection.sock and select.select([connection.sock], [], [], 0)[0]:
        connection.close()  # the server has: clients look before they use a connection again
    try:
        connection.request("POST", call.path, call.body, headers)
        response = connection.getresponse()
        status, retry_after, body = response.status, response.headers["Retry-After"], response.read()
    except (OSError, HTTPException):
        connection.close()
        status, retry_after, body = 0, None, b""
    return Answer(call, status, began, time.monotonic() - began, retry_after, body)


def load(port: int, kinds: Sequence[Callable[[Fleet, int], Call]], fleet: Fleet, count: int, **options: int) -> Answers:
    """Makes so many calls, the kinds in turn, and returns what they were answered."""
    return Load(port, endless(kinds, fleet, count), **options).start().wait()


def endless(
    kinds: Sequence[Callable[[Fleet, int], Call]], fleet: Fleet, count: int | None = None, *, first: int = 0
) -> Iterator[Call]:
    """Calls of these kinds in turn, for one worker after another; without a count, without an end."""
    numbers = itertools.count(first) if count is None else iter(range(first, first + count))
    return (kinds[number % len(kinds)](fleet, number) for number in numbers)
