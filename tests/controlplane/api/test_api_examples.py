"""The API's page has a tag for each resource, the calls in a worker's order, and examples that the schemas take."""

from typing import Any

import pytest
from django.test import Client

from controlplane.api.openapi import START_PATH, WORKER_CALLS

TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


@pytest.fixture(scope="module")
def served() -> dict[str, Any]:
    return Client().get("/api/openapi.json").json()  # type: ignore[no-any-return]


def problems(value: Any, schema: dict[str, Any], schemas: dict[str, Any], where: str) -> list[str]:
    """Where an example is not what its schema says."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        fields = schemas[name]["properties"]
        wrong = [f"{where}: {name} has no {field}" for field in value if field not in fields]
        wrong += [f"{where}.{field} is missing" for field in schemas[name].get("required", []) if field not in value]
        return wrong + [
            problem
            for field, inner in value.items()
            if field in fields
            for problem in problems(inner, fields[field], schemas, f"{where}.{field}")
        ]
    if "anyOf" in schema:
        return min((problems(value, one, schemas, where) for one in schema["anyOf"]), key=len)
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is none of {schema['enum']}"]
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (kind == "integer" and isinstance(value, bool))):
        return [f"{where}: {value!r} is no {kind}"]
    items = schema.get("items", {})
    return [found for item in value for found in problems(item, items, schemas, where)] if kind == "array" else []


def test_each_body_and_answer_in_json_has_an_example_that_its_schema_takes(served: dict[str, Any]) -> None:
    schemas = served["components"]["schemas"]
    wrong: list[str] = []
    for path, operations in served["paths"].items():
        for method, operation in operations.items():
            if path == START_PATH:
                continue
            for part in (operation.get("requestBody", {}), *operation["responses"].values()):
                media = part.get("content", {}).get("application/json")
                if media:
                    wrong += problems(media["example"], media["schema"], schemas, f"{method} {path}")
    assert wrong == []


def test_the_comparison_sees_what_a_schema_does_not_take() -> None:
    schemas = {"A": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}
    reference = {"$ref": "#/components/schemas/A"}
    assert problems({"n": 1}, reference, schemas, "a") == []
    assert len(problems({"n": "x"}, reference, schemas, "a")) == 1
    assert len(problems({"m": 1}, reference, schemas, "a")) == 2


def test_the_calls_of_a_worker_come_first_and_in_its_order(served: dict[str, Any]) -> None:
    assert list(served["paths"])[: len(WORKER_CALLS)] == WORKER_CALLS
    assert set(WORKER_CALLS) <= set(served["paths"])


def test_each_call_but_the_contract_s_has_the_tag_of_its_resource(served: dict[str, Any]) -> None:
    tags = {
        path: {tuple(operation.get("tags", [])) for operation in methods.values()}
        for path, methods in served["paths"].items()
    }
    assert tags.pop(START_PATH) == {()}
    assert {tag for found in tags.values() for one in found for tag in one} == {
        "workers",
        "worker queues",
        "environments",
        "registered workers",
        "API keys",
        "connections",
        "organization",
        "update locks",
        "health",
    }
    assert all(len(found) == 1 for found in tags.values())
