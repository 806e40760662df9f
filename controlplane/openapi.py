"""Makes the served OpenAPI document say what the contract says, word for word where the contract has words."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

#: The contract's own words for parts that have no place in the code.
BEARER_DESCRIPTION = "Enter your Kubiya API token (format: Bearer <token>)"
START_DESCRIPTION = """Start a worker and fetch its configuration.

This endpoint is called by workers on startup with just worker_id and API key.
It returns all necessary configuration for the worker to connect to Temporal.

Args:
    worker_id: Worker ID (UUID created in UI)
    start_request: System information from worker

Returns:
    Complete worker configuration including Temporal credentials
"""

#: Beyond the contract: every status that can occur, so that a client or a fuzzer is not surprised.
ERRORS = {
    "400": "Bad request",
    "401": "No API key, or one that is not valid",
    "403": "The key is not for this worker, the worker is disabled, or the call came over plain HTTP",
    "404": "No such worker in the key's organization",
    "405": "Method not allowed",
    "409": "The queue is disabled or the configuration is incomplete",
    "411": "The body has no Content-Length",
    "413": "The body is larger than 64 KiB",
    "415": "The body is not application/json in UTF-8",
    "429": "Too many requests",
    "503": "The database or a credential is not available at the moment",
}
RETRYABLE = {"429", "503"}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The security scheme under the contract's name."""

    target_class = "workers.authentication.ApiKeyAuthentication"
    name = "BearerAuth"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": BEARER_DESCRIPTION}


class WorkerApiSchema(AutoSchema):
    """Operations without tags and security of their own: the document has them at its root, as the contract does."""

    def get_tags(self) -> list[str]:
        return []

    def get_auth(self) -> list[dict[str, Any]]:
        super().get_auth()  # registers the scheme's component
        return []


def as_the_contract_has_it(result: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
    """drf-spectacular's document in the contract's form: titles, `anyOf` with null, root security, error answers."""
    result["servers"] = []
    result["security"] = [{"BearerAuth": []}]
    schemas = result["components"]["schemas"]
    for name, schema in schemas.items():
        _in_pydantic_form(name, schema)
    schemas |= VALIDATION_SCHEMAS
    for operations in result["paths"].values():
        for operation in operations.values():
            _complete(operation)
    return result


def _complete(operation: dict[str, Any]) -> None:
    """Summary, parameter titles, required body, and every answer that can occur."""
    operation["summary"], operation["description"] = "Start Worker", START_DESCRIPTION.strip()
    for parameter in operation.get("parameters", []):
        parameter["schema"] = {"type": "string", "title": _title(parameter["name"])}
    operation["requestBody"]["required"] = True
    responses = operation["responses"]
    responses["200"]["description"] = "Successful Response"
    responses["422"] = {
        "description": "Validation Error",
        **_json({"$ref": "#/components/schemas/HTTPValidationError"}),
    }
    for status, description in ERRORS.items():
        responses[status] = {"description": description, **_json({"$ref": "#/components/schemas/Error"})}
        if status in RETRYABLE:
            header = {"description": "Seconds to wait before the next try", "schema": {"type": "integer"}}
            responses[status]["headers"] = {"Retry-After": header}
    operation["responses"] = dict(sorted(responses.items()))


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _in_pydantic_form(name: str, schema: dict[str, Any]) -> None:
    """The contract's generator titles everything and spells nullable as `anyOf`."""
    schema["title"] = name
    for field, definition in schema["properties"].items():
        schema["properties"][field] = _field(field, definition)
    required = [field for field, definition in schema["properties"].items() if field in schema.get("required", [])]
    defaulted = {field for field, definition in schema["properties"].items() if "default" in definition}
    schema["required"] = [field for field in required if field not in defaulted]
    if not schema["required"]:
        del schema["required"]


def _field(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    definition = {key: value for key, value in definition.items() if key not in {"format", "readOnly"}}
    if isinstance(definition.get("type"), list):
        definition["anyOf"] = [{"type": kind} for kind in definition.pop("type")]
    if definition.get("additionalProperties") == {}:
        definition["additionalProperties"] = True
        definition["default"] = {}
    definition["title"] = _title(name)
    return definition


def _title(name: str) -> str:
    return name.replace("_", " ").title()


VALIDATION_SCHEMAS: dict[str, Any] = {
    "HTTPValidationError": {
        "type": "object",
        "title": "HTTPValidationError",
        "properties": {
            "detail": {
                "type": "array",
                "title": "Detail",
                "items": {"$ref": "#/components/schemas/ValidationError"},
            }
        },
    },
    "ValidationError": {
        "type": "object",
        "title": "ValidationError",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {
                "type": "array",
                "title": "Location",
                "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            },
            "msg": {"type": "string", "title": "Message"},
            "type": {"type": "string", "title": "Error Type"},
        },
    },
    "Error": {
        "type": "object",
        "title": "Error",
        "required": ["detail"],
        "properties": {"detail": {"type": "string", "title": "Detail"}},
    },
}
