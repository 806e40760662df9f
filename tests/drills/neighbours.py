"""Whatever one organization's people, keys and programs do, another one's workers start and heartbeat as if they did not.

Kinds of mischief in turn, each between moments without any, and all at once; see mischief.py. The moments before, between and
after tell what undisturbed is, so that what the machine does meanwhile meets both alike. Once on each database.
"""

import json
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.drills.drill import Figure, Scale, say
from tests.drills.load import PATIENCE, Answers, heartbeat_call, load, send, start_call
from tests.drills.service import Fleet, Service
from tests.support.databases import PostgresqlServer
from tests.support.processes import ROOT

#: How many times longer than undisturbed the slowest hundredth may take on PostgreSQL, and seconds for all on SQLite.
TIMES, SECONDS = 3, 1.0
#: Seconds that are never too long in CI, where a moment has a few dozen calls and other work shares the processors.
UNNOTICED = 2.0
#: Starts and heartbeats in a second.
RATE = 30
KINDS = ("viewer", "bulk", "apply", "silent server", "queue key", "edits", "strangers", "commands", "all at once")
#: Those that SQLite's one lock for writing is wanted for.
WRITING = ("bulk", "queue key", "edits", "all at once")
#: The one where it is done, and its neighbour.
ORGANIZATION, NEIGHBOUR = "seed-1", "seed-2"
#: The neighbour's workers that start and heartbeat.
WORKERS = 64


def run(scale: Scale, directory: Path) -> Figure:
    figures = []
    (directory / "postgresql").mkdir()
    server = PostgresqlServer(directory / "postgresql", {})
    try:
        figures.append(_try("PostgreSQL", scale, directory / "postgresql", server.url))
    finally:
        server.stop()
    (directory / "sqlite").mkdir()
    url = f"sqlite:///{directory}/sqlite/database.sqlite3"
    figures.append(_try("SQLite", scale, directory / "sqlite", url))
    return Figure("; ".join(figure.text for figure in figures), all(figure.is_met for figure in figures))


def _try(engine: str, scale: Scale, directory: Path, url: str) -> Figure:
    with _silent_server() as silent_port:
        service = Service(directory, url, CONNECTION_HOSTS="127.0.0.1")
        service.prepare()
        target, fleet = _tenants(scale, service, silent_port)
        service.start()
        try:
            with _mischief(target) as mischief:
                kinds = WRITING if scale.is_quick and engine == "SQLite" else KINDS
                found = _moments(scale, kinds, service, fleet, mischief)
        finally:
            service.stop()
    return found.figure(engine, scale)


@dataclass
class Found:
    """What the neighbour was answered without mischief and during each kind of it."""

    during: dict[str, Answers]
    undisturbed: Answers = field(default_factory=Answers)

    def figure(self, engine: str, scale: Scale) -> Figure:
        p99 = self.undisturbed.percentile(0.99)
        limit = max(TIMES * p99, UNNOTICED if scale.is_quick else 0.0)
        is_met, texts = True, []
        for kind, answers in self.during.items():
            refused = answers.other_than(200, 204)
            for answer in refused[:3]:
                say(
                    f"{kind}: {answer.call.path} was answered {answer.status} after {answer.seconds:.1f} s: {answer.body!r}"
                )
            took = answers.percentile(0.99)
            longest = SECONDS + (2 * UNNOTICED if scale.is_quick else 0.0)
            is_kept = took <= limit if engine == "PostgreSQL" else answers.slowest() <= longest
            is_met = is_met and not refused and is_kept
            tenths = f"half within {answers.percentile(0.5) * 1000:.0f} ms, p99 {took * 1000:.0f} ms"
            say(
                f"{engine}, {kind}: {len(refused)} of {len(answers.all)} refused, {tenths}, all within {answers.slowest():.2f} s"
            )
            texts.append(f"{kind} {took * 1000:.0f} ms")
        refused_in_all = sum(len(answers.other_than(200, 204)) for answers in self.during.values())
        count = sum(len(answers.all) for answers in self.during.values())
        undisturbed = f"p99 {p99 * 1000:.0f} ms undisturbed"
        slowest = max(answers.slowest() for answers in self.during.values())
        told = f"{undisturbed}, {', '.join(texts)}, all within {slowest:.1f} s"
        return Figure(f"{engine}: {refused_in_all} of {count:,} starts and heartbeats refused, {told}", is_met)


def _moments(scale: Scale, kinds: tuple[str, ...], service: Service, fleet: Fleet, mischief: "_Mischief") -> Found:
    found = Found({kind: Answers() for kind in kinds})
    load(service.port, [start_call], fleet, WORKERS, callers=4)  # a heartbeat needs a start
    calls = _Calls(service.port, fleet)
    quiet, loud = (0.5, 1.0) if scale.is_quick else (4.0, 8.0)
    calls.make(1.0)
    for _ in range(scale.of(1, 3)):
        for kind in kinds:
            found.undisturbed.all += calls.make(quiet)
            mischief.begin(kind)
            found.during[kind].all += calls.make(loud)
            mischief.end()
            while not mischief.is_over():  # what has begun goes on to its end
                found.during[kind].all += calls.make(0.2)
    found.undisturbed.all += calls.make(quiet)
    return found


class _Calls:
    """The neighbour's: at their rate, each on a connection of its own, and timed from when it was due."""

    def __init__(self, port: int, fleet: Fleet) -> None:
        self._port, self._fleet = port, fleet
        self._number = 0

    def make(self, seconds: float) -> list[Any]:
        answers: list[Any] = []
        began = time.monotonic()

        def call(number: int, due: float) -> None:
            connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            kind = (start_call, heartbeat_call)[number % 2]
            # Heartbeats of other workers than those that start just now.
            answer = send(connection, kind(self._fleet, number // 2 + number % 2 * WORKERS // 2))
            connection.close()
            answers.append(replace(answer, seconds=time.monotonic() - due))

        with ThreadPoolExecutor(16) as callers:
            for index in range(int(seconds * RATE)):
                due = began + index / RATE
                time.sleep(max(0.0, due - time.monotonic()))
                callers.submit(call, self._number, due)
                self._number += 1
        return answers


class _Mischief:
    """The process that does it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._kind = ""

    def begin(self, kind: str) -> None:
        """Returns once it is under way."""
        self._kind = kind
        self._tell(kind)
        time.sleep(0.2)

    def end(self) -> None:
        """Has nothing more begin."""
        self._tell("")

    def is_over(self) -> bool:
        """Whether all of it has ended; says once what it was answered."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], 0)[0]:
            return False
        say(f"{self._kind}: {self._process.stdout.readline().strip()}")
        return True

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


@contextmanager
def _mischief(target: dict[str, Any]) -> Iterator[_Mischief]:
    command = [sys.executable, "-m", "tests.drills.mischief"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(target) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n", "The mischief did not begin."
        yield _Mischief(process)
    finally:
        process.kill()
        process.communicate()


#: Makes the people, the full queue and the keys; prints what of them has to be known.
PREPARE = """
import json, sys
from django.contrib.auth.models import User
from django.utils import timezone
from environments.audit import Actor
from environments.models import Membership, Organization, TemporalConnection
from workers.api_keys.issuing import issue_api_key
from workers.models import WorkerQueue

told = json.loads(sys.stdin.read())
organization = Organization.objects.get(pk=told["organization_id"])
for role, password in told["passwords"].items():
    user = User.objects.create_user(role, password=password, is_staff=True)
    Membership.objects.create(organization=organization, user=user, role=role)
connection = organization.temporal_connection
connection.host, connection.is_tls_enabled = f"127.0.0.1:{told['silent_port']}", False
connection.save()
queue = WorkerQueue.objects.filter(organization=organization, max_workers=None).first()
queue.max_workers = 3
queue.save()
options = {"name": "drill", "actor": Actor("command:drill"), "now": timezone.now()}
print(json.dumps({
    "queue_id": str(queue.pk),
    "connection_id": str(connection.pk),
    "queue_key": issue_api_key(queue, **options).token.reveal(),
    "organization_key": issue_api_key(organization, **options).token.reveal(),
    "neighbours_key": issue_api_key(Organization.objects.get(pk=told["neighbour"]), **options).token.reveal(),
}))
"""


def _tenants(scale: Scale, service: Service, silent_port: int) -> tuple[dict[str, Any], Fleet]:
    """A tenant with many workers, its people and keys, and two documents for `apply`; and its neighbour."""
    workers, path = scale.of(2_000, 60_000), service.directory / "ids"
    size = ("--organizations=2", "--queues=8", f"--workers={2 * workers}", f"--starts={2 * workers}")
    service.manage("seed_fleet", *size, f"--output={path}")
    ids = path.read_text().split()
    passwords = {role: secrets.token_urlsafe(16) for role in ("viewer", "operator", "administrator")}
    told = {"organization_id": ORGANIZATION, "neighbour": NEIGHBOUR, "passwords": passwords, "silent_port": silent_port}
    made = json.loads(service.manage("shell", "--no-imports", "--command", PREPARE, input=json.dumps(told)))
    documents = [_write_document(service.directory, text, scale.of(500, 2_000)) for text in ("one", "other")]
    service.manage("apply", documents[0])
    fleet = Fleet(NEIGHBOUR, ids[workers : workers + WORKERS], made.pop("neighbours_key"), "", "")
    return {
        **made,
        "port": service.port,
        "organization_id": ORGANIZATION,
        "passwords": passwords,
        "worker_ids": ids[:workers],
        "documents": documents[::-1],
        "environ": service.environ,
    }, fleet


def _write_document(directory: Path, text: str, workers: int) -> str:
    path = directory / f"{text}.yaml"
    rows = [{"name": f"applied-{number}", "description": text} for number in range(workers)]
    queue = {"name": "applied", "max_workers": 10, "description": text, "workers": rows}
    environments = [{"name": "production", "worker_queues": [queue]}]
    path.write_text(json.dumps({"organizations": [{"id": ORGANIZATION, "environments": environments}]}))  # YAML, too
    return str(path)


@contextmanager
def _silent_server() -> Iterator[int]:
    """The port of a server that accepts every connection and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=100)) as server:
        held: list[Any] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept())
                except OSError:
                    return
                del held[:-200]

        threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])
