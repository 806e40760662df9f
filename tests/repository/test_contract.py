"""The served OpenAPI document equals the contract, but for documented additional responses."""

import re
from typing import Any

import pytest
from django.test import Client

from controlplane.api.openapi import WorkerApiSchema
from tests.support.contract import CONTRACT

PATH = "/api/v1/workers/{worker_id}/start"
ADDITIONAL_STATUSES = {"400", "401", "403", "404", "405", "409", "413", "415", "429", "503"}


@pytest.fixture
def served(client: Client) -> dict[str, Any]:
    response = client.get("/api/openapi.json")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("application/json") or "openapi+json" in response["Content-Type"]
    return response.json()


def test_asking_for_the_document_makes_it_once_whatever_is_asked(
    client: Client, served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(WorkerApiSchema, "get_operation", lambda *arguments: made.append(arguments))
    for query in ("", "?lang=de", "?version=17", "?lang=de&version=x"):
        assert client.get(f"/api/openapi.json{query}").json() == served
    assert made == []


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


# --- The other operations ------------------------------------------------------------------------------------------------

#: Of every operation, of one that takes a key, of one that takes a body too.
ALWAYS = {"400", "403", "405", "503"}
WITH_KEY = ALWAYS | {"401", "429"}
WITH_BODY = WITH_KEY | {"413", "415", "422"}
#: Every operation with exactly the statuses that it can answer with.
STATUSES = {
    "GET /api/health": {"200"} | ALWAYS,
    "POST /api/v1/workers/register": {"200", "404", "409"} | WITH_BODY,
    "POST /api/v1/workers/heartbeat": {"204", "404", "409"} | WITH_BODY,
    "POST /api/v1/workers/{worker_id}/start": {"200", "404", "409"} | WITH_BODY,
    "POST /api/v1/workers/{worker_id}/heartbeat": {"204", "404", "409"} | WITH_BODY,
    "POST /api/v1/workers/{worker_id}/disconnect": {"204", "404"} | WITH_BODY,
    "GET /api/v1/worker-queues": {"200", "422"} | WITH_KEY,
    "GET /api/v1/worker-queues/{queue_id}": {"200", "404"} | WITH_KEY,
    "POST /api/v1/worker-queues/{queue_id}/start": {"200", "404", "409"} | WITH_BODY,
    "GET /api/v1/worker-queues/{queue_id}/workers": {"200", "404", "422"} | WITH_KEY,
    "GET /api/v1/worker-queues/{queue_id}/config": {"200", "404"} | WITH_KEY,
    "GET /api/v1/worker-queues/{queue_id}/metrics": {"200", "404"} | WITH_KEY,
    "GET /api/v1/worker-queues/{queue_id}/worker-command": {"200", "404"} | WITH_KEY,
    "GET /api/v1/worker-queues/{queue_id}/install-script": {"200", "404", "422"} | WITH_KEY,
    "GET /api/v1/worker-queues/{queue_id}/update-lock-status": {"200", "404"} | WITH_KEY,
    "POST /api/v1/worker-queues/{queue_id}/workers/{worker_id}/update-lock": {"200", "404", "409"} | WITH_BODY,
    "DELETE /api/v1/worker-queues/{queue_id}/workers/{worker_id}/update-lock": {"204", "404"} | WITH_KEY,
    "GET /api/v1/environments": {"200", "422"} | WITH_KEY,
    "GET /api/v1/environments/{environment_id}": {"200", "404"} | WITH_KEY,
    "GET /api/v1/environments/{environment_id}/worker-queues": {"200", "404", "422"} | WITH_KEY,
    "GET /api/v1/environments/{environment_id}/worker-command": {"200", "404", "409"} | WITH_KEY,
    "GET /api/v1/workers": {"200", "422"} | WITH_KEY,
    "GET /api/v1/workers/{runner_name}": {"200", "404"} | WITH_KEY,
    "POST /api/v1/environments": {"200", "201", "409"} | WITH_BODY,
    "PATCH /api/v1/environments/{environment_id}": {"200", "404", "409", "412"} | WITH_BODY,
    "DELETE /api/v1/environments/{environment_id}": {"200", "204", "404", "409", "412", "422"} | WITH_KEY,
    "POST /api/v1/environments/{environment_id}/worker-queues": {"200", "201", "404", "409"} | WITH_BODY,
    "PATCH /api/v1/worker-queues/{queue_id}": {"200", "404", "409", "412"} | WITH_BODY,
    "DELETE /api/v1/worker-queues/{queue_id}": {"200", "204", "404", "409", "412", "422"} | WITH_KEY,
    "GET /api/v1/registered-workers": {"200", "422"} | WITH_KEY,
    "POST /api/v1/registered-workers": {"200", "201", "404", "409"} | WITH_BODY,
    "GET /api/v1/registered-workers/{worker_id}": {"200", "404"} | WITH_KEY,
    "PATCH /api/v1/registered-workers/{worker_id}": {"200", "404", "409", "412"} | WITH_BODY,
    "DELETE /api/v1/registered-workers/{worker_id}": {"200", "204", "404", "409", "412", "422"} | WITH_KEY,
    "GET /api/v1/api-keys": {"200", "422"} | WITH_KEY,
    "POST /api/v1/api-keys": {"200", "201", "404", "409"} | WITH_BODY,
    "GET /api/v1/api-keys/{key_id}": {"200", "404"} | WITH_KEY,
    "POST /api/v1/api-keys/{key_id}/rotate": {"200", "201", "404", "409", "412"} | WITH_BODY,
    "POST /api/v1/api-keys/{key_id}/revoke": {"200", "404", "409", "412"} | WITH_BODY,
    "GET /api/v1/organization": {"200"} | WITH_KEY,
    "PATCH /api/v1/organization": {"200", "409", "412"} | WITH_BODY,
    "GET /api/v1/members": {"200", "422"} | WITH_KEY,
    **{
        operation: statuses
        for kind in ("temporal-connections", "litellm-connections", "telemetry-settings")
        for operation, statuses in {
            f"GET /api/v1/{kind}": {"200", "422"} | WITH_KEY,
            f"POST /api/v1/{kind}": {"200", "201", "409"} | WITH_BODY,
            f"GET /api/v1/{kind}/{{connection_id}}": {"200", "404"} | WITH_KEY,
            f"PATCH /api/v1/{kind}/{{connection_id}}": {"200", "404", "409", "412"} | WITH_BODY,
            f"DELETE /api/v1/{kind}/{{connection_id}}": {"200", "204", "404", "409", "412", "422"} | WITH_KEY,
            f"POST /api/v1/{kind}/{{connection_id}}/verify": {"200", "404", "422"} | WITH_KEY,
        }.items()
    },
    "GET /api/health/detailed": {"200"} | ALWAYS,
    "GET /api/ready": {"200"} | ALWAYS,
}


@pytest.fixture
def operations(served: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in served["paths"].items()
        for method, operation in methods.items()
    }


def test_serves_every_operation_and_no_other(operations: dict[str, Any]) -> None:
    assert sorted(operations) == sorted(STATUSES)


@pytest.mark.parametrize("label", STATUSES)
def test_documents_each_status_that_an_operation_can_answer_with(operations: dict[str, Any], label: str) -> None:
    assert sorted(operations[label]["responses"]) == sorted(STATUSES[label])


@pytest.mark.parametrize("label", STATUSES)
def test_documents_what_each_status_comes_with(operations: dict[str, Any], label: str) -> None:
    for status, response in operations[label]["responses"].items():
        assert response["description"]
        assert ("Retry-After" in response.get("headers", {})) == (status in {"429", "503"})
        if status == "204":
            assert "content" not in response
        elif status >= "400":
            name = "HTTPValidationError" if status == "422" else "Error"
            schema = response["content"]["application/json"]["schema"]
            assert schema == {"$ref": f"#/components/schemas/{name}"}
        else:
            assert len(response["content"]) == 1


@pytest.mark.parametrize("label", STATUSES)
def test_documents_how_an_operation_is_called(operations: dict[str, Any], label: str) -> None:
    operation = operations[label]
    assert operation["operationId"]
    assert operation.get("summary") or operation["description"]
    assert operation.get("security") == (None if "/api/v1/" in label else [{}])
    parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", [])}
    in_the_path = re.findall(r"\{(\w+)\}", label)
    assert [name for name, parameter in parameters.items() if parameter["in"] == "path"] == in_the_path
    assert all(parameters[name]["required"] and parameters[name]["schema"]["type"] == "string" for name in in_the_path)
    has_body = label.startswith(("POST ", "PATCH ")) and not label.endswith("/verify")
    assert ("requestBody" in operation) == has_body
    if "requestBody" in operation:
        assert list(operation["requestBody"]["content"]) == ["application/json"]
        assert operation["requestBody"]["required"] == (label != "POST /api/v1/worker-queues/{queue_id}/start")


def test_no_two_operations_share_an_id(operations: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", ["WorkerHeartbeatInEnvironment", "WorkerRegisterRequest", "UpdateLockRequest"])
def test_a_text_that_must_not_be_empty_is_documented_so(served: dict[str, Any], name: str) -> None:
    schema = served["components"]["schemas"][name]
    texts = [field for field in schema.get("required", []) if schema["properties"][field]["type"] == "string"]
    assert {field: schema["properties"][field].get("minLength") for field in texts} == dict.fromkeys(texts, 1)
