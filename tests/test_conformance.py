"""The running control plane answers as its served document says, whatever is sent: schemathesis makes the requests."""

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth

from tests.servers import ControlPlane

type Change = Callable[[schemathesis.Case, ControlPlane], None]


def as_generated(case: schemathesis.Case, control_plane: ControlPlane) -> None: ...


def for_the_known_worker(case: schemathesis.Case, control_plane: ControlPlane) -> None:
    case.path_parameters = {"worker_id": control_plane.worker_id}


@pytest.mark.parametrize("change", [as_generated, for_the_known_worker])
def test_answers_only_as_the_document_says(change: Change, control_plane: ControlPlane) -> None:
    document = schemathesis.openapi.from_url(f"{control_plane.url}/api/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert operations
    statuses = set()

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
    @given(case=operations[0].as_strategy())
    def check(case: Any) -> None:
        change(case, control_plane)
        # Calls without a key are throttled after a while, which this check does not know; test_authentication makes them.
        headers = {"Authorization": f"Bearer {control_plane.api_key}"}
        response = case.call_and_validate(headers=headers, excluded_checks=[ignored_auth])
        statuses.add(response.status_code)

    check()
    assert (200 in statuses) == (change is for_the_known_worker)
