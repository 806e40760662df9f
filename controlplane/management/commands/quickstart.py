"""Migrates the database, makes what a first try needs, prints how to use it, and serves."""

import json
import os
import socket
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.quickstart import DemoMissingError, Quickstart, prepare
from controlplane.serving.server import serve
from controlplane.startup import env
from workers.api_keys.issuing import issued_key


class Command(BaseCommand):
    """Safe to run again: it keeps everything, and only adds a key that lives 24 hours."""

    help = __doc__ or ""
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-serve", action="store_true", help="stop after printing")
        parser.add_argument("--format", choices=["text", "json"], default="text")

    def handle(self, **options: Any) -> None:
        port = env.port()
        if not options["no_serve"]:
            _require_free_port(port)
        call_command("migrate", verbosity=0, interactive=False)
        try:
            found = prepare(now=timezone.now())
        except DemoMissingError as error:
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
    return f"""
Console   {shown["url"]}/admin/
Login     {shown["admin_username"]}
Password  {password}

Start the demo worker (this key is shown only now, and expires {found.issued.row.expires_at:%Y-%m-%d %H:%M} UTC):

curl -sS -X POST {shown["url"]}/api/v1/workers/{shown["worker_id"]}/start \\
  -H 'Authorization: Bearer {shown["api_key"]}' \\
  -H 'Content-Type: application/json' -d '{{"system_info": {{"hostname": "'"$(hostname)"'"}}}}' -w '\\n'

Run a real worker against a Temporal dev server (temporal server start-dev):

CONTROL_PLANE_URL={shown["url"]} TEMPORAL_TLS=false \\
  WORKER_ID={shown["worker_id"]} \\
  API_KEY={shown["api_key"]} \\
  {python} examples/temporal_worker.py
"""


def _relative(path: Path) -> Path:
    return path.relative_to(env.ROOT) if path.is_relative_to(env.ROOT) else path
