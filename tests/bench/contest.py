"""The contest: the product and the reference, each with a database server of its own, called by wrk in turn."""

import json
import os
import random
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.reference.application import DATABASE_VARIABLE, SEALING_VARIABLE, SIGNING_VARIABLE, Keys
from tests.bench.reference.databases import THREADS
from tests.bench.reference.filling import fill
from tests.drills.load import SYSTEM_INFO, load, start_call
from tests.drills.service import Fleet, Service
from tests.support.databases import PostgresqlServer
from tests.support.processes import ROOT, ServerProcess, free_port

CALLERS = 12
QUEUES, API_KEYS, WORKERS = 200, 50, 2_000
PROCESSES = 2
#: Calls that wrk goes around: several of each worker.
CALLS = 3 * WORKERS
TICKS = os.sysconf("SC_CLK_TCK")
REFERENCE, PRODUCT = "reference", "product"


@dataclass(frozen=True)
class Round:
    """What one round of one variant gave; times in milliseconds, processor time of a call."""

    rate: float
    p50: float
    p99: float
    server_cpu: float
    database_cpu: float
    failed: int

    @property
    def cpu(self) -> float:
        """Of server and database together."""
        return self.server_cpu + self.database_cpu


@dataclass(frozen=True)
class Variant:
    """Where one of the two listens, its processes and its database's, and who may call it."""

    name: str
    port: int
    server: ServerProcess
    database: ServerProcess | None
    worker_ids: Sequence[str]
    queue_ids: Sequence[str]
    tokens: Sequence[str]

    def path(self, kind: str, at: int) -> str:
        """Of the call that stands at this place. The reference knows no queue start: its start stands against it."""
        if kind == "queue start" and self.queue_ids:
            return f"/api/v1/worker-queues/{self.queue_ids[at % len(self.queue_ids)]}/start"
        call = "heartbeat" if kind == "heartbeat" else "start"
        return f"/api/v1/workers/{self.worker_ids[at % len(self.worker_ids)]}/{call}"


@contextmanager
def variants(engine: str, directory: Path) -> Iterator[list[Variant]]:
    """The reference and the product on databases of this engine, both ready to be called."""
    with ExitStack() as running:
        databases = {name: _database(engine, directory, name, running) for name in (REFERENCE, PRODUCT)}
        url, database = databases[PRODUCT]
        service = Service(directory, url, processes=PROCESSES)
        fleet = _fill_product(service)
        service.start()
        running.callback(service.process.stop)
        product = Variant(PRODUCT, service.port, service.process, database, **fleet)
        _start_each_worker(product)
        yield [_reference(directory, *databases[REFERENCE], product.worker_ids, running), product]


def _database(engine: str, directory: Path, name: str, running: ExitStack) -> tuple[str, ServerProcess | None]:
    """A new database: its URL and, if it has one, its server."""
    if engine == "sqlite":
        return f"sqlite:///{directory}/{name}.sqlite3", None
    (directory / name).mkdir()
    server = PostgresqlServer(directory / name, {})
    running.callback(server.stop)
    return server.url, server.process


def _fill_product(service: Service) -> dict[str, list[str]]:
    command = [sys.executable, "-m", "tests.bench.fleet", *map(str, (QUEUES, WORKERS, API_KEYS))]
    done = subprocess.run(command, cwd=ROOT, env=service.environ, check=True, capture_output=True, text=True)  # noqa: S603
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def _start_each_worker(product: Variant) -> None:
    """So that a start finds the process before it, and a heartbeat one that runs."""
    fleet = Fleet("", list(product.worker_ids), product.tokens[0], "", "")
    statuses = load(product.port, [start_call], fleet, len(fleet.worker_ids), callers=CALLERS).statuses()
    if set(statuses) != {200}:
        message = f"The product's workers do not start; counts of statuses: {statuses}"
        raise AssertionError(message)


def _reference(
    directory: Path, url: str, database: ServerProcess | None, worker_ids: Sequence[str], running: ExitStack
) -> Variant:
    keys = Keys(secrets.token_bytes(32), secrets.token_bytes(32))
    tokens = fill(url, worker_ids, keys, queues=QUEUES, api_keys=API_KEYS)
    told = {DATABASE_VARIABLE: url, SIGNING_VARIABLE: keys.signing.hex(), SEALING_VARIABLE: keys.sealing.hex()}
    port = free_port()
    options = ["--interface", "wsgi", "--workers", str(PROCESSES), "--blocking-threads", str(THREADS), "--no-ws"]
    where = ["--port", str(port), "--log-level", "warning", "--factory", "tests.bench.reference:make_application"]
    command: list[str | Path] = [Path(sys.executable).with_name("granian"), *options, *where]
    server = ServerProcess(command, log=directory / "reference-server", cwd=ROOT, env={**os.environ, **told})
    running.callback(server.stop)
    server.wait_until(lambda: _listens(port))
    return Variant(REFERENCE, port, server, database, worker_ids, (), tokens)


def run(variant: Variant, kind: str, directory: Path, *, seconds: int) -> Round:
    """One round: calls of a kind, of workers at random, which are the same for both."""
    calls = directory / f"calls-{variant.name}-{kind.replace(' ', '-')}"
    if not calls.exists():
        calls.write_text("".join(_calls(variant, kind)))
    script = ["-s", str(Path(__file__).with_name("caller.lua")), f"http://127.0.0.1:{variant.port}"]
    command = ["wrk", "--threads", "1", "--connections", str(CALLERS), "--duration", f"{seconds}s", *script]
    before = cpu_seconds(variant.server), cpu_seconds(variant.database)
    output = subprocess.run([*command, "--", str(calls)], check=True, capture_output=True, text=True).stdout  # noqa: S603
    after = cpu_seconds(variant.server), cpu_seconds(variant.database)
    found = json.loads(output.splitlines()[-1])
    return Round(
        rate=found["calls"] / found["microseconds"] * 1e6,
        p50=found["p50"] / 1e3,
        p99=found["p99"] / 1e3,
        server_cpu=1e3 * (after[0] - before[0]) / found["calls"],
        database_cpu=1e3 * (after[1] - before[1]) / found["calls"],
        failed=found["failed"],
    )


def _calls(variant: Variant, kind: str) -> Iterator[str]:
    """Lines of path, token and body; with one seed, so that both variants are called alike."""
    chance = random.Random(kind)  # noqa: S311  # no secret
    for number in range(CALLS):
        path, token = variant.path(kind, chance.randrange(WORKERS)), chance.choice(variant.tokens)
        if kind == "heartbeat":
            body: object = {"status": "active", "tasks_processed": number, "worker_metadata": {}}
        else:
            body = {"system_info": {**SYSTEM_INFO, "pid": number}}
        yield f"{path} {token} {json.dumps(body)}\n"


def cpu_seconds(process: ServerProcess | None) -> float:
    """What a server's processes have used so far, in the kernel too, those that have ended included."""
    if process is None:
        return 0.0
    found = 0
    for pid in (process.pid, *process.descendants()):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found += sum(map(int, fields[11:15]))
    return found / TICKS


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
