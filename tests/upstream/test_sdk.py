"""The existing Python SDK, which sends the scheme `UserKey` and always a body."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.contract import CONTRACT
from tests.support.planes import claims_of, issue, latest_start
from tests.support.servers import ControlPlane
from tests.upstream.conftest import PYTHON, Queue, Worker

#: Calls one method of the SDK's workers service and prints what it returns, or raises.
CALL = """
import json, sys
from importlib.metadata import version
from kubiya.control_plane_client import ControlPlaneClient
from kubiya.resources.exceptions import WorkerError
assert version("kubiya-sdk") == "2.1.6"
url, key, method, *arguments = json.load(sys.stdin)
client = ControlPlaneClient(api_key=key, base_url=url)
try:
    service, _, method = method.rpartition(".")
    print(json.dumps(getattr(getattr(client, service or "workers"), method)(*arguments)))
except WorkerError as error:
    print(json.dumps({"error": str(error)}))
"""

type Sdk = Callable[..., Any]


@pytest.fixture
def sdk(control_plane: ControlPlane, worker: Worker) -> Sdk:
    """Calls a method with a key of the demo's worker; the SDK is installed with the worker."""

    def call(method: str, *arguments: Any, key: str = "") -> Any:
        given = json.dumps([control_plane.url, key or control_plane.api_key, method, *arguments])
        done = subprocess.run([PYTHON, "-c", CALL], input=given, capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return call


def status_of(queue: Queue, worker_id: str) -> str:
    (status,) = {row["status"] for row in queue.workers() if row["worker_id"] == worker_id}
    return status


@pytest.mark.parametrize("arguments", [(), ({"system_info": {"hostname": "host-of-the-sdk"}},)])
def test_start_returns_the_fields_of_the_contract(arguments: Any, sdk: Sdk, control_plane: ControlPlane) -> None:
    answer = sdk("start", control_plane.worker_id, *arguments)
    assert list(answer) == list(CONTRACT["components"]["schemas"]["WorkerConfigResponse"]["properties"])
    assert len(answer) == 17
    assert answer["worker_id"] == control_plane.worker_id
    start = latest_start(control_plane, control_plane.worker_id)
    assert start["system_info"] == (arguments[0]["system_info"] if arguments else {})
    assert start["api_key"] == claims_of(control_plane.api_key)["sub"]
    assert start["user_agent"] == "kubiya-control-plane@2.1.6"


def test_a_refusal_says_why(sdk: Sdk, control_plane: ControlPlane) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    assert "404 Client Error: Not Found" in sdk("start", unknown)["error"]
    assert "Invalid API token" in sdk("start", unknown, key="nonsense")["error"]


def test_register_heartbeat_and_disconnect_are_recorded(
    sdk: Sdk, control_plane: ControlPlane, default_queue: Queue
) -> None:
    """The SDK fails to read the 204 that it gets for the latter two, as from the service that it was made for."""
    key = issue(control_plane, "--environment", default_queue.read()["environment_id"])["api_key"]
    environment = f"{control_plane.organization_id}.{control_plane.environment}"
    answer = sdk("register", {"environment_name": environment, "hostname": "host-of-the-sdk"}, key=key)
    worker_id, token = answer["worker_id"], answer["worker_token"]
    assert answer["environment_name"] == environment
    assert status_of(default_queue, worker_id) == "active"
    assert "Expecting value" in sdk("heartbeat_simple", worker_id, key=token)["error"]
    told = {"worker_id": worker_id, "environment_name": environment, "status": "busy"}
    assert "Expecting value" in sdk("heartbeat", told, key=token)["error"]
    assert status_of(default_queue, worker_id) == "busy"
    assert "Expecting value" in sdk("disconnect", worker_id, key=token)["error"]
    assert status_of(default_queue, worker_id) == "disconnected"


def test_lists_who_polls_which_task_queue(sdk: Sdk, control_plane: ControlPlane) -> None:
    key = issue(control_plane, "--organization", control_plane.organization_id)["api_key"]
    name = f"{control_plane.environment}.default"
    assert name in {row["runner_name"] for row in sdk("list", key=key)}
    assert sdk("get", name, key=key)["task_queue"] == f"{control_plane.organization_id}.{name}"


@pytest.mark.parametrize(("method", "status"), [("check", "healthy"), ("ready", "ready"), ("detailed", "healthy")])
def test_asks_whether_all_is_well(sdk: Sdk, method: str, status: str) -> None:
    assert sdk(f"health.{method}")["status"] == status
