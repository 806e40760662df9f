"""The served OpenAPI document equals the contract, but for documented additional responses."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client

CONTRACT = yaml.safe_load((Path(__file__).parent / "contract" / "start_worker.openapi.yaml").read_text())
PATH = "/api/v1/workers/{worker_id}/start"
ADDITIONAL_STATUSES = {"400", "401", "403", "404", "405", "409", "411", "413", "415", "429", "503"}


@pytest.fixture
def served(client: Client) -> dict[str, Any]:
    response = client.get("/api/openapi.json")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("application/json") or "openapi+json" in response["Content-Type"]
    return response.json()


def differences(expected: Any, actual: Any, where: str = "") -> list[str]:
    """Every place where the two documents differ, in words."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return [
            difference
            for key in sorted({*expected, *actual})
            for difference in (
                differences(expected[key], actual[key], f"{where}/{key}")
                if key in expected and key in actual
                else [f"{where}/{key} is only in the {'contract' if key in expected else 'served document'}"]
            )
        ]
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return [
            d for i, pair in enumerate(zip(expected, actual, strict=True)) for d in differences(*pair, f"{where}/{i}")
        ]
    if isinstance(expected, str) and isinstance(actual, str):
        return [] if expected.strip() == actual.strip() else [f"{where}: {expected!r} became {actual!r}"]
    return [] if expected == actual else [f"{where}: {expected!r} became {actual!r}"]


def test_serves_the_contracts_operation_and_documents_every_other_status(served: dict[str, Any]) -> None:
    operation = served["paths"][PATH]["post"]
    additional = {status: operation["responses"].pop(status) for status in ADDITIONAL_STATUSES}
    assert differences(CONTRACT["paths"][PATH], served["paths"][PATH]) == []
    assert all(response["description"] for response in additional.values())
    assert all("Retry-After" in additional[status]["headers"] for status in ("429", "503"))


def test_serves_the_contracts_components(served: dict[str, Any]) -> None:
    expected = CONTRACT["components"]["schemas"]
    actual = {name: schema for name, schema in served["components"]["schemas"].items() if name in expected}
    assert differences(expected, actual) == []


@pytest.mark.parametrize("part", ["openapi", "info", "servers", "security"])
def test_serves_the_contracts(served: dict[str, Any], part: str) -> None:
    assert differences(CONTRACT[part], served[part]) == []


def test_serves_the_contracts_security_scheme(served: dict[str, Any]) -> None:
    assert differences(CONTRACT["components"]["securitySchemes"], served["components"]["securitySchemes"]) == []


def test_serves_only_tags_of_the_contract(served: dict[str, Any]) -> None:
    assert served["tags"]
    assert all(tag in CONTRACT["tags"] for tag in served["tags"])


def test_the_required_fields_are_in_the_contracts_order(served: dict[str, Any]) -> None:
    name = "WorkerConfigResponse"
    required = CONTRACT["components"]["schemas"][name]["required"]
    assert served["components"]["schemas"][name]["required"] == required


def test_the_comparison_itself_sees_a_difference() -> None:
    assert differences({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]}) == ["/a/1/b: 'x' became 'y'"]
