"""Runs the benchmark: `python -m tests.bench`; prints a line per variant, then the ratios of the service to the floor."""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from controlplane.server import command_for
from tests.databases import PostgresqlServer
from tests.drills.load import Call, heartbeat_call, start_call
from tests.drills.service import Fleet, Service
from tests.processes import ROOT, ServerProcess, free_port

CALLERS = 16
WORKERS = 1_000
PROCESSES = 2
TICKS = os.sysconf("SC_CLK_TCK")
ENGINES = ("postgresql", "sqlite")
CALLS = ("start", "heartbeat", "queue start")
VARIANTS = ("floor", "service")


@dataclass(frozen=True)
class Round:
    """What one round of one variant gave."""

    calls: int
    seconds: float
    p50: float
    p99: float
    failed: int
    server_cpu: float
    database_cpu: float

    @property
    def rate(self) -> float:
        """Calls in a second."""
        return self.calls / self.seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="of each variant")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="both unless named")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        parser.error("the benchmark calls with wrk; on Debian and Ubuntu: apt-get install wrk")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(HEADER, flush=True)
    failed = 0
    for engine in options.engine or ENGINES:
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
            failed += _bench(engine, Path(directory), options.seconds, options.rounds)
    return 1 if failed else 0


HEADER = f"""\
{CALLERS} callers, {WORKERS:,} workers, {PROCESSES} server processes; medians of the rounds; times in milliseconds
{"":34}{"calls":>10}{"p50":>8}{"p99":>8}{"server":>8}{"db":>8}{"failed":>8}"""


def _bench(engine: str, directory: Path, seconds: int, rounds: int) -> int:
    """All calls on one database; how many of them failed."""
    failed = 0
    with _servers(engine, directory) as contest:
        for kind in CALLS:
            contest.write_calls(kind)
            contest.warm_up(longest=4 * seconds)
            found: dict[str, list[Round]] = {variant: [] for variant in VARIANTS}
            for variant in VARIANTS * rounds:
                found[variant].append(contest.run(variant, seconds))
            for variant in VARIANTS:
                print(_line(f"{engine} {kind}, {variant}", found[variant]), flush=True)
            print(_ratio(f"{engine} {kind}", found), flush=True)
            if kind == "heartbeat":
                carried = 60 * statistics.median(each.rate for each in found["service"])
                print(f"{engine}: one such machine carries {carried:,.0f} workers that beat every 60 s", flush=True)
            failed += sum(each.failed for each in found["service"] + found["floor"])
    return failed


@contextmanager
def _servers(engine: str, directory: Path) -> Iterator["Contest"]:
    """The service and the floor on one database."""
    (directory / "postgresql").mkdir()
    database = PostgresqlServer(directory / "postgresql", {}) if engine == "postgresql" else None
    url = database.url if database else f"sqlite:///{directory}/database.sqlite3"
    service = Service(directory, url, processes=PROCESSES)
    service.prepare()
    fleet = _seed(service)
    unlimited = service.create_fleet(1, "bench")
    service.start()
    floor_port = free_port()
    command = command_for("tests.bench.floor:application", port=floor_port, processes=PROCESSES)
    floor = ServerProcess(command, log=directory / "floor", cwd=ROOT, env=service.environ)
    floor.wait_until(lambda: _listens(floor_port))
    servers = {"floor": Server(floor_port, floor), "service": Server(service.port, service.process)}
    try:
        yield Contest(
            directory, fleet, unlimited, _queue_id(service, unlimited), servers, database.process if database else None
        )
    finally:
        for process in (floor, service.process, *([database.process] if database else [])):
            process.stop()


@dataclass(frozen=True)
class Server:
    """Where a variant listens, and its processes."""

    port: int
    process: ServerProcess


@dataclass(frozen=True)
class Contest:
    """The variants, and what they are called with."""

    directory: Path
    fleet: Fleet
    #: A queue without a limit, since workers that nobody prunes fill it.
    open_queue: Fleet
    open_queue_id: str
    servers: dict[str, Server]
    database: ServerProcess | None

    def write_calls(self, kind: str) -> None:
        """Writes the calls of a kind, several of each worker's processes, where wrk reads them."""
        fleet = self.open_queue if kind == "queue start" else self.fleet
        (self.directory / "header").write_text(f"Bearer {fleet.api_key}\n")
        calls = [self._call(kind, number) for number in range(3 * WORKERS)]
        (self.directory / "calls").write_bytes(
            b"".join(call.path.encode() + b" " + call.body + b"\n" for call in calls)
        )

    def warm_up(self, *, longest: int) -> None:
        """Calls until each statement is compiled and prepared, and each worker was called; or for that many seconds."""
        for variant in self.servers:
            seconds = 1
            while self.run(variant, seconds).calls < 2 * WORKERS and seconds < longest:
                seconds *= 2

    def _call(self, kind: str, number: int) -> Call:
        if kind == "heartbeat":
            return heartbeat_call(self.fleet, number)
        call = start_call(self.fleet, number)
        is_in_queue = kind == "queue start"
        return replace(call, path=f"/api/v1/worker-queues/{self.open_queue_id}/start") if is_in_queue else call

    def run(self, variant: str, seconds: int) -> Round:
        """One round of one variant."""
        server = self.servers[variant]
        script = ["-s", str(Path(__file__).with_name("caller.lua")), f"http://127.0.0.1:{server.port}"]
        files = ["--", str(self.directory / "header"), str(self.directory / "calls")]
        command = ["wrk", "--threads", "1", "--connections", str(CALLERS), "--duration", f"{seconds}s", *script, *files]
        before = cpu_seconds(server.process), cpu_seconds(self.database)
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
        after = cpu_seconds(server.process), cpu_seconds(self.database)
        found = json.loads(output.splitlines()[-1])
        return Round(
            calls=found["calls"],
            seconds=found["microseconds"] / 1e6,
            p50=found["p50"] / 1e3,
            p99=found["p99"] / 1e3,
            failed=found["failed"],
            server_cpu=1e3 * (after[0] - before[0]) / found["calls"],
            database_cpu=1e3 * (after[1] - before[1]) / found["calls"],
        )


def cpu_seconds(process: ServerProcess | None) -> float:
    """What a server's processes have used so far, those that have ended included."""
    if process is None:
        return 0.0
    found = 0
    for pid in (process.pid, *process.descendants()):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found += sum(map(int, fields[11:15]))
    return found / TICKS


def _seed(service: Service) -> Fleet:
    size = ("--organizations", "1", "--queues", "1", "--workers", str(WORKERS), "--starts", "0")
    output = service.directory / "workers"
    service.manage("seed_fleet", *size, "--output", str(output))
    issued = service.manage("issue_api_key", "--organization", "seed-1", "--name", "bench", "--format", "json")
    return Fleet("seed-1", output.read_text().split(), json.loads(issued)["api_key"], "", "")


def _queue_id(service: Service, fleet: Fleet) -> str:
    queues = json.loads(service.manage("dumpdata", "workers.workerqueue"))
    return next(str(row["pk"]) for row in queues if row["fields"]["organization"] == fleet.organization_id)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _line(name: str, rounds: list[Round]) -> str:
    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(map(value, rounds))

    failed = sum(each.failed for each in rounds)
    return (
        f"{name:34}{median(lambda each: each.rate):8,.0f}/s"
        f"{median(lambda each: each.p50):8.1f}{median(lambda each: each.p99):8.1f}"
        f"{median(lambda each: each.server_cpu):8.2f}{median(lambda each: each.database_cpu):8.2f}{failed:8}"
    )


def _ratio(name: str, found: dict[str, list[Round]]) -> str:
    """The median of the ratios of neighbouring rounds, so that a machine that slows down slows both."""
    pairs = list(zip(found["service"], found["floor"], strict=True))
    rate = statistics.median(service.rate / floor.rate for service, floor in pairs)
    p99 = statistics.median(service.p99 / floor.p99 for service, floor in pairs)
    return f"{name:34}{rate:8.2f} of the floor's rate, {p99:.1f} times its p99"


if __name__ == "__main__":
    sys.exit(main())
