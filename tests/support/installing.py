"""Runs texts that start a worker, with stand-ins for programs that would be fetched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from workers.installation.queue import DeploymentType, install_script
from workers.models import WorkerQueue

BASH = shutil.which("bash") or "bash"
KEY = "the-key-of-this-test"
CLUSTER = (DeploymentType.KUBERNETES, DeploymentType.OPENSHIFT)
#: The Python for stand-ins, at once: what `env` finds may be a shim, which takes ten times as long.
PYTHON_LINE = f"#!{Path(sys.executable).resolve()} -IS"
#: Tells how it was called, as one line of JSON.
RECORDER = f"""{PYTHON_LINE}
import json, os, sys
told = {{"program": os.path.basename(sys.argv[0]), "arguments": sys.argv[1:], "environ": dict(os.environ)}}
print(json.dumps(told))
"""
#: A Python that is suitable, and whose venv module puts recorders where the programs would be.
PYTHON = """#!/usr/bin/env bash
set -eu
[ "$1" = -c ] && exit 0
[ "$1 $2 $3" = "-m venv --clear" ]
rm -rf "$4" && mkdir -p "$4/bin"
for program in python uv; do cp {recorder} "$4/bin/$program"; done
cp {worker} "$4/bin/{program}"
"""


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def run(script: str, programs: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs bash in a home of its own, with the recorders before all other programs."""
    home = programs.parent / "home"
    home.mkdir(exist_ok=True)
    given = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home), "PYTHON": str(programs / "python-stand-in")}
    return subprocess.run(  # noqa: S603
        [BASH], input=script, env=given | environ, cwd=home, capture_output=True, text=True, check=False, timeout=60
    )


def calls(script: str, programs: Path, **environ: str) -> list[dict[str, Any]]:
    """How the recorders were called, in their order; nothing else is printed, and nothing goes wrong."""
    done = run(script, programs, KUBIYA_API_KEY=KEY, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def variables(queue: WorkerQueue, url: str = "http://127.0.0.1:8000") -> dict[str, str]:
    interval = str(queue.heartbeat_interval)
    return {"CONTROL_PLANE_URL": url, "QUEUE_ID": str(queue.pk), "HEARTBEAT_INTERVAL": interval}


def deployment(queue: WorkerQueue, deployment_type: DeploymentType) -> dict[str, Any]:
    (document,) = yaml.safe_load_all(install_script(queue, deployment_type))
    return document  # type: ignore[no-any-return]


def container(document: dict[str, Any]) -> dict[str, Any]:
    (found,) = document["spec"]["template"]["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def values(document: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(document)["env"] if "value" in variable}


def in_container(programs: Path, script: str) -> str:
    """The container's script, with the stand-in for the image's Python."""
    return script.replace("python=python", f"python={programs}/python-stand-in")
