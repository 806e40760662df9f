"""Texts that start one worker: as shell lines, in a container, as a service, in a cluster, as a program.

The program is the same in all of them: `examples/plain_worker.py`, which outlives whatever happens to its calls.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.template import Context, Engine

from workers.configuration.effective import sections_of
from workers.models import Worker

#: What stands for the key in texts for a worker that has none of its own yet.
PLACEHOLDER = "YOUR-API-KEY"
IMAGE = "python:3.13-slim"
PROGRAM = (Path(__file__).parents[2] / "examples" / "plain_worker.py").read_text()
#: Names in a cluster have at most 63 characters, of which pods want some for themselves.
WORKER_IN_NAME = 30


@dataclass(frozen=True)
class Command:
    """A text to copy; but for the program in Python it holds the API key."""

    kind: str
    title: str
    text: str


def commands_for(worker: Worker, api_key: str = PLACEHOLDER) -> tuple[Command, ...]:
    """How to start this worker, loaded with its chain, in every way, in the order in which they are shown."""
    name = f"worker-{worker.name[:WORKER_IN_NAME]}-{str(worker.pk)[:8]}"
    variables = {"CONTROL_PLANE_URL": settings.CONTROL_PLANE_URL, "WORKER_ID": str(worker.pk)}
    context = {
        "name": name,
        "api_key": api_key,
        "image": IMAGE,
        "is_this_machine_only": settings.IS_LOCAL,
        "temporal_tls": _temporal_tls(worker),
    }
    # JSON's texts are YAML's and Python's too.
    quoted = [(key, json.dumps(value)) for key, value in variables.items()]
    program = _program(quoted)
    of_shell = {
        **context,
        "variables": [(key, shlex.quote(value)) for key, value in variables.items()],
        "program": program,
    }
    of_cluster = {**context, "variables": quoted, "program_lines": program.splitlines()}
    return (
        Command("shell", "Shell", _render("shell.sh", of_shell)),
        Command("docker", "Docker", _render("docker.sh", of_shell)),
        Command("systemd", "systemd", _render("systemd.sh", of_shell)),
        Command("kubernetes", "Kubernetes", _render("kubernetes.yaml", of_cluster)),
        Command("python", "Python", program),
    )


def _temporal_tls(worker: Worker) -> str:
    """What the example has to be told, which takes TLS for granted where there is an API key."""
    temporal = sections_of(worker).temporal.row
    if temporal is None or temporal.is_tls_enabled == temporal.requires_api_key:
        return ""
    return f"TEMPORAL_TLS={'true' if temporal.is_tls_enabled else 'false'} "


def _program(quoted: list[tuple[str, str]]) -> str:
    """The program with what it is told filled in, but for its key."""
    program = PROGRAM
    for name, value in quoted:
        program = program.replace(f'"{name}": ""', f'"{name}": {value}')
    return program


def _render(template: str, context: dict[str, Any]) -> str:
    """Renders without HTML's escaping, which would spoil the texts: names are slugs, and values have been quoted."""
    found = Engine.get_default().get_template(f"admin/workers/worker/commands/{template}")
    return f"{found.render(Context(context, autoescape=False)).strip()}\n"
