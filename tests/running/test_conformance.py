"""The running control plane answers as its served document says, whatever is sent: schemathesis makes the requests.

A few for each operation, on either database; the drill `fuzzing` makes thousands.
"""

import json
import secrets
from typing import Any
from uuid import uuid4

import pytest

from controlplane.api.openapi import WORKER_CALLS
from tests.support.conformance import (
    CONNECTIONS,
    START,
    Change,
    Ids,
    as_generated,
    for_these,
    operations_of,
    try_operation,
)
from tests.support.servers import ControlPlane

pytestmark = pytest.mark.sqlite

#: What workers call gets more requests than what managers do.
WORKERS = {f"POST {path}" for path in WORKER_CALLS}


#: What the worker in it keeps from being deleted.
IN_USE = {
    "DELETE /api/v1/environments/{environment_id}",
    "DELETE /api/v1/worker-queues/{queue_id}",
    "DELETE /api/v1/registered-workers/{worker_id}",
    "POST /api/v1/api-keys/{key_id}/rotate",  # of a key that another call has revoked
    *(f"DELETE /api/v1/{kind}/{{connection_id}}" for kind in CONNECTIONS),
}
#: An organization of this module's own: other tests hold locks of updates and disable workers.
FLEET = """
organizations:
  - id: {organization}
    name: Conformance
    temporal_connection: cloud
    litellm_connection: gateway
    telemetry_settings: standard
    temporal_connections: [{{name: cloud, host: "temporal.example.com:7233", namespace: n, api_key: {{file: secret}}}}]
    litellm_connections: [{{name: gateway, api_url: "https://llm.example.com", api_key: {{file: secret}}}}]
    all_telemetry_settings: [{{name: standard}}]
    environments:
      - name: production
        worker_queues:
          - name: default
            workers:
              - name: first
                id: {worker}
                temporal_connection: cloud
                litellm_connection: gateway
                telemetry_settings: standard
"""


@pytest.fixture(scope="module")
def worker_id() -> str:
    return str(uuid4())


@pytest.fixture(scope="module")
def api_key(control_plane: ControlPlane, worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A key that reaches all of the organization, so that what it does not find is not there."""
    directory, organization = tmp_path_factory.mktemp("fleet"), f"org-{secrets.token_hex(4)}"
    (directory / "secret").write_text(secrets.token_urlsafe(24))
    (directory / "fleet.yaml").write_text(FLEET.format(organization=organization, worker=worker_id))
    control_plane.manage("apply", str(directory / "fleet.yaml"))
    scope = ("--organization", organization)
    issued = control_plane.manage(
        "issue_api_key", *scope, "--role", "manager", "--name", "conformance", "--format", "json"
    )
    return str(json.loads(issued.stdout)["api_key"])


@pytest.fixture(scope="module")
def ids(control_plane: ControlPlane, api_key: str, worker_id: str) -> Ids:
    """What there is to be found, by the names that the document gives its parameters."""
    headers = {"Authorization": f"Bearer {api_key}"}

    def the_one(path: str) -> Any:
        status, _, body = control_plane.request("GET", path, headers=headers)
        assert status == 200, body
        answer = json.loads(body)
        (row,) = answer if isinstance(answer, list) else answer["items"]
        return row

    environment = the_one("/api/v1/environments")
    started, _, _ = control_plane.request("POST", f"/api/v1/workers/{worker_id}/start", json={}, headers=headers)
    assert started == 200  # only a worker that has started is heard
    body = {"name": "spare", "queue_id": the_one("/api/v1/worker-queues")["id"]}
    issued, _, spare = control_plane.request("POST", "/api/v1/api-keys", json=body, headers=headers)
    assert issued == 201
    return {
        **{f"connection_id of {kind}": the_one(f"/api/v1/{kind}")["id"] for kind in CONNECTIONS},
        "key_id": json.loads(spare)["id"],
        "worker_id": worker_id,
        "queue_id": the_one("/api/v1/worker-queues")["id"],
        "environment_id": environment["id"],
        "environment_name": environment["name"],
        "runner_name": "production.default",
    }


@pytest.mark.parametrize("change", [as_generated, for_these])
def test_answers_only_as_the_document_says(
    change: Change, control_plane: ControlPlane, api_key: str, ids: Ids, subtests: pytest.Subtests
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    for operation in operations_of(control_plane.url):
        with subtests.test(operation.label):
            statuses: set[int] = set()
            count = 40 if operation.label == START else 10 if operation.label in WORKERS else 5
            try_operation(
                operation,
                lambda answer, seen=statuses: seen.add(answer.status_code),
                count=count,
                headers=headers,
                change=change,
                ids=ids,
            )
            served = {409} if operation.label in IN_USE else {200, 201, 204}
            assert change is as_generated or statuses & served
