"""A copy of the project as a newcomer has it, before `manage.py quickstart` and after it."""

import http.client
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from controlplane.startup.secrets_file import KINDS
from tests.support.processes import ROOT, ServerProcess, ask, free_port

PARTS = ("controlplane", "environments", "workers", "templates", "examples", "manage.py")
SECRETS = [name for name, _ in KINDS.values()]
#: The tables that a server writes without being asked: its pulse, and what it does beside its requests.
WRITTEN_BY_ITSELF = {
    "workers_pulse",
    *("workers_sweep", "workers_queueobservation", "workers_processobservation"),
    *("workers_lookout", "workers_incident", "workers_notificationdelivery"),
}


class Clone:
    """A copy of the project with a home, a folder for temporary files and a database of its own, and no secrets."""

    def __init__(self, parent: Path) -> None:
        self.root, self.home, self.temporary = (parent / name for name in ("clone", "home", "tmp"))
        for directory in (self.root, self.home, self.temporary):
            directory.mkdir()
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, self.root / part)
        self.port = free_port()
        left_out = {*SECRETS, "CONTROL_PLANE_ENV_FILE", "DATABASE_URL"}
        self.environ = {name: value for name, value in os.environ.items() if name not in left_out} | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PORT": str(self.port),
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def manage(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.run([sys.executable, "manage.py", *arguments], **environ)

    def bash(self, script: str) -> subprocess.CompletedProcess[str]:
        return self.run(["bash", "-c", script])

    def run(self, command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603
            command,
            cwd=self.root,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def request(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, Any, bytes]:
        return ask(f"127.0.0.1:{self.port}", method, path, body, headers)

    def is_live(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/livez")[0] == http.HTTPStatus.OK
        return False

    def rows(self) -> list[dict[str, Any]]:
        """All that is stored, each row with its table, but for what a server writes without being asked."""
        tables = self.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        names = {row["name"] for row in tables} - WRITTEN_BY_ITSELF
        return [{**row, "table": name} for name in sorted(names) for row in self.execute(f"SELECT * FROM {name}")]  # noqa: S608

    def execute(self, *statements: str) -> list[dict[str, Any]]:
        """The rows that statements on the database return."""
        (database,) = (self.root / "var").glob("*.sqlite3")
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.row_factory = sqlite3.Row
            # Our constraints call it, which Django gives SQLite.
            connection.create_function("REGEXP", 2, lambda pattern, text: re.search(pattern, str(text)) is not None)
            return [dict(row) for statement in statements for row in connection.execute(statement)]


class Served(Clone):
    """The clone after `manage.py quickstart`, which serves it."""

    def __init__(self, parent: Path) -> None:
        super().__init__(parent)
        command = [sys.executable, "manage.py", "quickstart"]
        self.process = ServerProcess(command, log=parent / "quickstart", cwd=self.root, env=self.environ)
        self.process.wait_until(self.is_live)
        self.printed = self.process.stdout.read_text()


class Prepared(Clone):
    """The clone after `manage.py quickstart --no-serve --format json`."""

    def __init__(self, parent: Path) -> None:
        super().__init__(parent)
        self.done = self.quickstart()
        self.printed = json.loads(self.done.stdout)

    def quickstart(self) -> subprocess.CompletedProcess[str]:
        # One secret comes from the environment, the others from the file that this makes.
        given = {"SECRET_KEY": os.environ["SECRET_KEY"]}
        return self.manage("quickstart", "--no-serve", "--format", "json", **given)
