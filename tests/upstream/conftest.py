"""Fixtures that run the existing clients, unmodified, against a running control plane.

They are half a gigabyte from the Python Package Index, so only `make test-upstream` runs what is here.
"""

import http
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import SECRETS
from tests.support.planes import issue, records
from tests.support.processes import ROOT, ServerProcess
from tests.support.servers import ControlPlane, TemporalServer
from workers.installation.queue import WORKER_PACKAGE_VERSION

if not os.environ.get("TEST_UPSTREAM"):
    collect_ignore_glob = ["test_*.py"]

#: Where the install script installs the worker and with it the SDK, once for all runs.
DIRECTORY = ROOT / "var" / "upstream"
PYTHON = DIRECTORY / WORKER_PACKAGE_VERSION / "bin" / "python"
HEARTBEAT_INTERVAL = 5
INSTALLATION_SECONDS = 900
FLEET = """
organizations:
  - id: demo
    temporal_connections:
      - {{name: local, host: "{host}", namespace: "{namespace}"}}
      - {{name: nowhere, host: "127.0.0.1:1", namespace: none, is_tls_enabled: false, requires_api_key: false}}
    environments:
      - name: development
        worker_queues:
          - {{name: existing, heartbeat_interval: {interval}}}
          - {{name: unreachable, temporal_connection: nowhere}}
"""


class Queue:
    """A worker queue of the demo as a client with a key for it sees it."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.plane = plane
        (self.id,) = [row["pk"] for row in records(plane, "workers.workerqueue") if row["name"] == name]
        self.key: str = issue(plane, "--queue", self.id)["api_key"]

    def get(self, path: str = "") -> bytes:
        """The answer to a GET below the queue."""
        headers = {"Authorization": f"Bearer {self.key}"}
        status, _, body = self.plane.request("GET", f"/api/v1/worker-queues/{self.id}{path}", headers=headers)
        assert status == http.HTTPStatus.OK, body
        return body

    def read(self, path: str = "") -> Any:
        """The same as JSON."""
        return json.loads(self.get(path))

    def workers(self) -> list[dict[str, Any]]:
        """Its processes, those that ended too."""
        return list(self.read("/workers?status=all"))


class Worker:
    """A process of the existing worker, started by the install script of its queue."""

    def __init__(self, queue: Queue, directory: Path) -> None:
        self.queue = queue
        script = directory / "install-worker.sh"
        script.write_bytes(queue.get("/install-script?deployment_type=local"))
        environ = {name: value for name, value in os.environ.items() if name not in SECRETS} | {
            "HOME": str(directory),
            "PYTHON": sys.executable,
            "WORKER_DIRECTORY": str(DIRECTORY),
            "KUBIYA_API_KEY": queue.key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would fetch a list of prices
        }
        self.process = ServerProcess(["bash", script], log=directory / "worker", cwd=directory, env=environ)
        self._pid = 0

    @property
    def pid(self) -> int:
        """The process id of what the script runs, which in the end is the worker, or ran last."""
        self._pid = next(iter(self.process.descendants()), self._pid)
        return self._pid

    def shown(self) -> dict[str, Any]:
        """What the control plane tells of this process; nothing before it has started."""
        pid = self.pid
        rows = [row for row in self.queue.workers() if (row["system_info"] or {}).get("pid") == pid]
        return rows[0] if rows else {}

    def is_ready(self) -> bool:
        """Whether it has sent its first heartbeat, with its log so far, and has begun to take tasks."""
        return "worker_ready" in self.process.log_text() and bool(self.shown()["logs"])

    def kill(self) -> None:
        """Ends the worker and all it has started without a word."""
        self.process.kill()


@pytest.fixture(scope="session")
def fleet(
    control_plane: ControlPlane, temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The demo with its Temporal connection pointed to the running server, and a queue whose connection leads nowhere.

    The existing worker has a queue of its own, so that all that lives in it is known.
    """
    document = tmp_path_factory.mktemp("demo") / "fleet.yaml"
    host, namespace = temporal_server.host, temporal_server.namespace
    document.write_text(FLEET.format(host=host, namespace=namespace, interval=HEARTBEAT_INTERVAL))
    control_plane.manage("apply", str(document))


@pytest.fixture(scope="session")
def queue(control_plane: ControlPlane, fleet: None) -> Queue:
    """The queue of the existing worker."""
    return Queue(control_plane, "existing")


@pytest.fixture(scope="session")
def default_queue(control_plane: ControlPlane, fleet: None) -> Queue:
    """The queue of the demo's worker, which whoever registers in the environment joins too."""
    return Queue(control_plane, control_plane.queue)


@pytest.fixture(scope="session")
def unreachable_queue(control_plane: ControlPlane, fleet: None) -> Queue:
    """A queue whose workers do not reach Temporal."""
    return Queue(control_plane, "unreachable")


@pytest.fixture(scope="session")
def worker(queue: Queue, tmp_path_factory: pytest.TempPathFactory) -> Generator[Worker]:
    """A worker of the queue that is ready."""
    worker = Worker(queue, tmp_path_factory.mktemp("upstream"))
    worker.process.wait_until(worker.is_ready, seconds=INSTALLATION_SECONDS)
    yield worker
    worker.process.stop()
