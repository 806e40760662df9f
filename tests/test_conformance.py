"""The running control plane answers as its served document says, whatever is sent: schemathesis makes the requests."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth

from tests.servers import ControlPlane

type Ids = dict[str, str]
type Change = Callable[[schemathesis.Case, Ids], None]

#: The contract's own operation gets more requests than each of the others.
START = "POST /api/v1/workers/{worker_id}/start"
OPERATIONS = 20


def as_generated(case: schemathesis.Case, ids: Ids) -> None: ...


def for_what_is_known(case: schemathesis.Case, ids: Ids) -> None:
    case.path_parameters = {name: ids[name] for name in case.path_parameters or {}}
    if isinstance(case.body, dict):
        case.body |= {name: ids[name] for name in ("worker_id", "environment_name") if name in case.body}


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


@pytest.mark.parametrize("change", [as_generated, for_what_is_known])
def test_answers_only_as_the_document_says(
    change: Change, control_plane: ControlPlane, api_key: str, ids: Ids, subtests: pytest.Subtests
) -> None:
    document = schemathesis.openapi.from_url(f"{control_plane.url}/api/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == OPERATIONS
    for operation in operations:
        with subtests.test(operation.label):
            statuses = statuses_of(operation, lambda case: change(case, ids), api_key)
            assert change is as_generated or statuses & {200, 204}


def statuses_of(operation: Any, change: Callable[[schemathesis.Case], None], api_key: str) -> set[int]:
    """Sends what schemathesis makes up and checks each answer against the document; the statuses that came back."""
    statuses: set[int] = set()

    @settings(
        max_examples=100 if operation.label == START else 25, suppress_health_check=list(HealthCheck), deadline=None
    )
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        change(case)
        # Calls without a key are throttled after a while, which this check does not know; test_endpoints makes them.
        headers = {"Authorization": f"Bearer {api_key}"}
        response = case.call_and_validate(headers=headers, excluded_checks=[ignored_auth])
        statuses.add(response.status_code)

    check()
    return statuses
