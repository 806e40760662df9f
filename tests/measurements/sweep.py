"""What the sweep of 2,000 queues on 20 connections costs starts: `python -m tests.measurements.sweep`.

Starts are called in turn while nobody sweeps and while a pass is under way, by a few callers at once, on PostgreSQL and with
a Temporal server on the same machine. It prints rate, median, 99th percentile and the processor time of the service.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from tests.bench import contest
from tests.bench.contest import PRODUCT, Round, Variant, run
from tests.drills.service import Service
from tests.support.databases import PostgresqlServer
from tests.support.processes import ROOT, ServerProcess, free_port

ORGANIZATIONS, QUEUES, WORKERS = 20, 2_000, 4_000
#: Run in the service's environment: the fleet, with all connections leading to one Temporal, and a key for one organization.
FILL = """
import django, json, os, sys, tempfile
os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
django.setup()
from django.core.management import call_command
from django.utils import timezone
from environments.audit import Actor
from environments.models import Organization, TemporalConnection
from workers.api_keys.issuing import issue_api_key, issued_key
from workers.models import Worker, WorkerQueue
call_command("migrate", verbosity=0)
size = [f"--organizations={sys.argv[2]}", f"--queues={sys.argv[3]}", f"--workers={sys.argv[4]}", "--starts=0"]
with tempfile.NamedTemporaryFile() as ids:
    call_command("seed_fleet", *size, f"--output={ids.name}", stdout=sys.stderr)
WorkerQueue.objects.update(max_workers=None)
TemporalConnection.objects.update(
    host=sys.argv[1], namespace="default", is_tls_enabled=False, requires_api_key=False
)
organization = Organization.objects.order_by("pk").first()
issued = issue_api_key(organization, name="measure", actor=Actor("command:measure"), now=timezone.now())
workers = [str(pk) for pk in Worker.objects.filter(organization=organization).values_list("pk", flat=True)]
print(json.dumps({"worker_ids": workers, "tokens": [issued_key(issued)["api_key"]]}))
"""
NOBODY = (
    "INSERT INTO workers_sweep (id, holder, expires_at, started_at, queues, unanswered)"
    " VALUES (1, gen_random_uuid(), now() + interval '1 day', now(), 0, 0) ON CONFLICT (id) DO UPDATE"
    " SET holder = gen_random_uuid(), expires_at = now() + interval '1 day'"
)
SOMEBODY = "UPDATE workers_sweep SET holder = NULL, started_at = NULL, finished_at = NULL"
PROBLEMS = "SELECT problem, count(*) FROM workers_queueobservation WHERE problem <> '' GROUP BY 1"
STATE = "SELECT started_at, finished_at, queues FROM workers_sweep"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--callers", type=int, default=4)
    options = parser.parse_args()
    contest.CALLERS = options.callers
    with ExitStack() as running, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _measure(options, _started(directory, running), directory)


def _started(directory: Path, running: ExitStack) -> tuple[Variant, str]:
    (directory / "database").mkdir()
    database = PostgresqlServer(directory / "database", {})
    running.callback(database.stop)
    temporal = _temporal(directory, running)
    service = Service(directory, database.url, processes=2)
    size = map(str, (ORGANIZATIONS, QUEUES, WORKERS))
    command = [sys.executable, "-c", FILL, temporal, *size]
    done = subprocess.run(command, cwd=ROOT, env=service.environ, check=True, capture_output=True, text=True)  # noqa: S603
    fleet: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute(NOBODY)
    service.start()
    running.callback(service.process.stop)
    contest.WORKERS = len(fleet["worker_ids"])
    variant = Variant(PRODUCT, service.port, service.process, database.process, queue_ids=(), **fleet)
    return variant, database.url


def _temporal(directory: Path, running: ExitStack) -> str:
    program = shutil.which("temporal", path=f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}") or "temporal"
    host = f"127.0.0.1:{(port := free_port())}"
    ports = ["--port", str(port), "--http-port", str(free_port()), "--metrics-port", str(free_port())]
    command = [program, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "error", *ports]
    environ = {**os.environ, "HOME": str(directory)}
    process = ServerProcess(command, log=directory / "temporal", env=environ)
    running.callback(process.stop)
    describe = [program, "operator", "namespace", "describe", "default", "--address", host]
    process.wait_until(lambda: subprocess.run(describe, capture_output=True, check=False, env=environ).returncode == 0)  # noqa: S603
    return host


def _measure(options: argparse.Namespace, started: tuple[Variant, str], directory: Path) -> None:
    variant, url = started
    found: dict[str, list[Round]] = {"alone": [], "with the sweep": []}
    with psycopg.connect(url, autocommit=True) as session:
        run(variant, "start", directory, seconds=options.seconds)  # warms up, and starts each worker
        for number in range(options.rounds):
            session.execute(NOBODY)
            found["alone"].append(run(variant, "start", directory, seconds=options.seconds))
            session.execute(SOMEBODY)
            while not _state(session)[0]:
                time.sleep(0.1)
            began = time.monotonic()
            found["with the sweep"].append(run(variant, "start", directory, seconds=options.seconds))
            while not _state(session)[1]:
                time.sleep(0.1)
            for problem, queues in session.execute(PROBLEMS).fetchall():
                print(f"  {queues} queues: {problem}")
            print(f"pass {number + 1}: {_state(session)[2]} queues in {time.monotonic() - began:.0f} s", flush=True)
    for name, rounds in found.items():
        each = " ".join(f"{one.p99:.1f}" for one in rounds)
        middle = replace(
            rounds[0], **{part: statistics.median(getattr(one, part) for one in rounds) for part in vars(rounds[0])}
        )
        print(f"{name:>15}: {middle.rate:.0f}/s, median {middle.p50:.1f} ms, p99 {middle.p99:.1f} ms ({each}),")
        print(f"{'':>17}server {middle.server_cpu:.2f} ms a start, failed {sum(one.failed for one in rounds)}")


def _state(session: Any) -> Any:
    return session.execute(STATE).fetchone()


if __name__ == "__main__":
    main()
