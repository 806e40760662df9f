"""The running control plane answers as its served document says, whatever is sent: schemathesis makes the requests.

A few for each operation, on either database; the drill `fuzzing` makes thousands.
"""

import json

import pytest

from tests.support.conformance import START, Change, Ids, as_generated, for_these, operations_of, try_operation
from tests.support.servers import ControlPlane

pytestmark = pytest.mark.sqlite


@pytest.fixture(scope="module")
def api_key(control_plane: ControlPlane) -> str:
    """A key that reaches everything, so that what it does not find is not there."""
    scope = ("--organization", control_plane.organization_id)
    issued = control_plane.manage("issue_api_key", *scope, "--name", "conformance", "--format", "json")
    return str(json.loads(issued.stdout)["api_key"])


@pytest.fixture(scope="module")
def ids(control_plane: ControlPlane, api_key: str) -> Ids:
    """What there is to be found, by the names that the document gives its parameters."""
    headers = {"Authorization": f"Bearer {api_key}"}
    status, _, body = control_plane.request("GET", "/api/v1/environments", headers=headers)
    assert status == 200, body
    path = f"/api/v1/workers/{control_plane.worker_id}/start"
    started, _, _ = control_plane.request("POST", path, json={}, headers=headers)
    assert started == 200  # only a worker that has started is heard
    environment = next(row for row in json.loads(body) if row["name"] == control_plane.environment)
    return {
        "worker_id": control_plane.worker_id,
        "queue_id": control_plane.queue_id,
        "environment_id": environment["id"],
        "environment_name": control_plane.environment,
    }


@pytest.mark.parametrize("change", [as_generated, for_these])
def test_answers_only_as_the_document_says(
    change: Change, control_plane: ControlPlane, api_key: str, ids: Ids, subtests: pytest.Subtests
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    for operation in operations_of(control_plane.url):
        with subtests.test(operation.label):
            statuses: set[int] = set()
            count = 40 if operation.label == START else 10
            try_operation(
                operation,
                lambda answer, seen=statuses: seen.add(answer.status_code),
                count=count,
                headers=headers,
                change=change,
                ids=ids,
            )
            assert change is as_generated or statuses & {200, 204}
