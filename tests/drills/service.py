"""The service as it runs in production, with keys of its own, and a fleet for it to serve."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from uuid import uuid4

from tests.support.commands import Commands
from tests.support.databases import THROWAWAY, PostgresqlServer
from tests.support.processes import ROOT, ServerProcess, free_port

#: As in production, but for what would hold up a load that comes from one address with one key.
LIMITS = {
    "API_KEY_REQUESTS_PER_MINUTE": "10000000",
    "WORKER_STARTS_PER_MINUTE": "10000000",
    "FAILED_AUTHENTICATIONS_PER_MINUTE": "10000000",
}

#: Names the directory of a stopped database server that has all tables, for the drills of one run to copy.
PREPARED = "DRILLS_PREPARED_DATABASE"


def prepared_server(directory: Path, settings: Mapping[str, str]) -> PostgresqlServer:
    """A database server of its own, which has all tables already where this run has prepared one."""
    prepared = os.environ.get(PREPARED)
    return PostgresqlServer(directory, settings, copy_of=Path(prepared) if prepared else None)


def prepare_server(directory: Path) -> None:
    """Prepares one for `prepared_server`."""
    server = PostgresqlServer(directory, THROWAWAY)
    service = Service(directory, server.url)
    service.prepare()
    service.close()
    server.stop()
    os.environ[PREPARED] = str(server.directory)


#: Prints the ids of what a worker's key does not read.
IDS = """
import json
from environments.models import LiteLLMConnection, TelemetrySettings, TemporalConnection
from workers.models import ApiKey
kinds = dict(zip(("key", "temporal-connections", "litellm-connections", "telemetry-settings"),
                 (ApiKey, TemporalConnection, LiteLLMConnection, TelemetrySettings)))
TelemetrySettings.objects.get_or_create(organization_id="{0}", name="drill")
print(json.dumps({{name: [str(row.pk) for row in kind.objects.filter(organization="{0}")] for name, kind in kinds.items()}}))
"""


@dataclass(frozen=True)
class Fleet:
    """An organization's workers, each of which can be started with the one key."""

    organization_id: str
    worker_ids: list[str]
    api_key: str
    temporal_api_key: str
    litellm_api_key: str


class Service:
    """The control plane on a database that exists; `start` migrates nothing, `prepare` does."""

    process: ServerProcess
    #: Where its code lies.
    root = ROOT

    def __init__(self, directory: Path, database_url: str, *, processes: int = 2, **environ: str) -> None:
        self.directory = directory
        #: Each command that ended, and what it wrote to standard output and to standard error.
        self.printed: list[tuple[tuple[str, ...], str, str]] = []
        self._commands = Commands()
        self.processes = processes
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "PYTHONPYCACHEPREFIX": str(ROOT / "var" / "cache" / "pycache"),
            "CONTROL_PLANE_ENV_FILE": str(directory / "no-such-file"),
            "DATABASE_URL": database_url,
            "SECRET_KEY": secrets.token_urlsafe(48),
            "ENCRYPTION_KEYS": f"ek-drill1:{secrets.token_urlsafe(32)}",
            "API_KEY_SIGNING_KEYS": f"acp-drill1:{secrets.token_urlsafe(32)}",
            "PORT": str(self.port),
            **LIMITS,
            **environ,
        }

    def prepare(self) -> None:
        """Makes the tables."""
        self.set_up("migrate", "--verbosity", "0")

    def beside(self) -> "Service":
        """Another one of the same control plane, on a port of its own."""
        other = Service(self.directory, self.environ["DATABASE_URL"], processes=self.processes)
        other.environ = self.environ | {"PORT": str(other.port)}
        return other

    def start(self) -> None:
        """Starts all processes and returns once one answers."""
        self.close()
        log = self.directory / f"service-{self.port}"
        self.process = ServerProcess(self.command(), log=log, cwd=self.root, env=self.environ)
        self.process.wait_until(lambda: self.status_of("/livez") == 200)

    def close(self) -> None:
        """Ends the process of `set_up`."""
        self._commands.close()

    def command(self) -> list[str]:
        """What serves."""
        return [sys.executable, "manage.py", "serve", "--processes", str(self.processes)]

    def granian(self, application: str) -> list[str]:
        """The server as `serve` starts it, with another application."""
        program = str(Path(sys.executable).with_name("granian"))
        options = ["--interface", "wsgi", "--workers", str(self.processes), "--blocking-threads", "4", "--no-ws"]
        return [program, *options, "--port", str(self.port), "--log-level", "warning", application]

    def stop(self) -> None:
        """Ends it in good order."""
        self.process.stop()

    def worker_processes(self) -> list[int]:
        """The ids of the processes that answer requests, the youngest last."""
        return sorted(self.process.descendants())

    def kill_one(self) -> None:
        """Ends one process that answers requests at once, and returns when another has taken its place."""
        before = self.worker_processes()
        os.kill(before[-1], signal.SIGKILL)
        self.process.wait_until(lambda: len(after := self.worker_processes()) == len(before) and after != before)

    def status_of(self, path: str, *, seconds: float = 30) -> int:
        """What a GET is answered with; 0 when it is not answered in this time."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        with closing(connection), suppress(OSError, HTTPException):
            connection.request("GET", path)
            return connection.getresponse().status
        return 0

    def manage(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002
        environ: Mapping[str, str] | None = None,
    ) -> str:
        """Runs a management command beside the service and returns what it printed; an error of it is one here."""
        done = subprocess.run(  # noqa: S603  # our own commands
            [sys.executable, "manage.py", *arguments],
            cwd=self.root,
            env=self.environ | dict(environ or {}),
            input=input,
            text=True,
            capture_output=True,
            check=False,
        )
        return self._printed_by(done, arguments)

    def managed_ids(self, organization_id: str) -> dict[str, list[str]]:
        """By the name of the resource: the ids of what a worker's key does not read."""
        found: dict[str, list[str]] = json.loads(
            self.set_up("shell", "--no-imports", "-c", IDS.format(organization_id))
        )
        return found

    def set_up(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002
        environ: Mapping[str, str] | None = None,
    ) -> str:
        """Does what `manage` does without a process of its own: for what a drill needs, and is not about."""
        if self.root != ROOT:
            return self.manage(*arguments, input=input, environ=environ)
        done = self._commands.run(*arguments, environ=self.environ, input=input, more=environ)
        return self._printed_by(done, arguments)

    def _printed_by(self, done: subprocess.CompletedProcess[str], arguments: tuple[str, ...]) -> str:
        self.printed.append((arguments, done.stdout, done.stderr))
        if done.returncode:
            message = f"manage.py {' '.join(arguments)} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
            raise AssertionError(message)
        return done.stdout

    def create_fleet(self, workers: int, organization_id: str = "drill", queue: Sequence[str] = ()) -> Fleet:
        """An organization with complete connections, one queue and so many workers; `queue` are more lines of it."""
        temporal, litellm = secrets.token_urlsafe(24), f"sk-{secrets.token_urlsafe(24)}"
        ids = [str(uuid4()) for _ in range(workers)]
        rows = "\n".join(f"              - {{name: worker-{number}, id: {key}}}" for number, key in enumerate(ids))
        path = self.directory / f"{organization_id}.yaml"
        path.write_text(
            FLEET.format(id=organization_id, queue="".join(f"            {line}\n" for line in queue), workers=rows)
        )
        self.set_up("apply", str(path), environ={"TEMPORAL_SECRET": temporal, "LITELLM_SECRET": litellm})
        issued = self.set_up("issue_api_key", "--organization", organization_id, "--name", "all", "--format", "json")
        return Fleet(organization_id, ids, json.loads(issued)["api_key"], temporal, litellm)


FLEET = """
organizations:
  - id: {id}
    name: {id}
    temporal_connection: cloud
    litellm_connection: gateway
    temporal_connections:
      - {{name: cloud, host: "temporal.example.com:7233", namespace: "{id}", api_key: {{env: TEMPORAL_SECRET}}}}
    litellm_connections:
      - {{name: gateway, api_url: "https://llm.example.com", api_key: {{env: LITELLM_SECRET}}}}
    environments:
      - name: production
        worker_queues:
          - name: default
{queue}            workers:
{workers}
"""
