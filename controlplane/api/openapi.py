"""Makes the served OpenAPI document say what the contract says, word for word where the contract has words."""

from functools import cache
from typing import Any

from django.conf import settings
from django.utils import translation
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent

from controlplane.api.examples import example_of
from workers.api.listing import NEXT
from workers.api.managing import REPEATED, ManagingView
from workers.api.serializers.managed import OutlookSerializer

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

START_PATH = "/api/v1/workers/{worker_id}/start"
SUCCESSES = {"200", "201", "204"}
#: What a worker calls, in its order: by its own id, in a queue, or in an environment.
WORKER_CALLS = [
    START_PATH,
    "/api/v1/worker-queues/{queue_id}/start",
    "/api/v1/workers/register",
    "/api/v1/workers/{worker_id}/heartbeat",
    "/api/v1/workers/heartbeat",
    "/api/v1/workers/{worker_id}/disconnect",
]

#: Beyond the contract: every status that can occur, so that a client or a fuzzer is not surprised.
ERRORS = {
    "400": "Bad request",
    "401": "No API key, or one that is not valid",
    "403": "The key does not reach that far or may change nothing, the worker is disabled, or it is plain HTTP",
    "404": "No such object in the key's organization",
    "405": "Method not allowed",
    "409": "Not in its present state: disabled, draining, full, taken by another, in use, or incompletely configured",
    "412": "The object has changed since the version in If-Match",
    "413": "The body is larger than 64 KiB, or that of a heartbeat or goodbye than 1 MiB",
    "415": "The body is not application/json in UTF-8",
    "429": "Too many requests",
    "503": "The database, a row or a credential is not available at the moment",
}
RETRYABLE = {"429", "503"}
#: Tags of resources that are told of together, or that are not written as their paths are.
TAGS = {"connections": "connections", "settings": "connections", "keys": "API keys", "members": "organization"}
#: Statuses of every endpoint, of those with an API key, and of those with a body.
EVERYWHERE = ("400", "403", "405", "503")
WITH_KEY = ("401", "429")
WITH_BODY = ("413", "415")
WRITING = ("POST", "PATCH", "DELETE")
HEADERS = {
    "ETag": "The version of the row, for If-Match.",
    REPEATED: "true where an earlier call with this key was answered so; an issued API key is not told again.",
    "X-Total-Count": "How long the whole list is.",
    NEXT: "The `cursor` of the next part; missing in the last one.",
}


class OneDocument(SchemaGenerator):
    """Makes the document once in a process, the same whoever asks in whatever language.

    It takes as long as some twenty starts, and anybody may ask for it.
    """

    def get_schema(self, *_arguments: Any, **_options: Any) -> Any:
        """The document, which nobody may change."""
        return _document()


@cache
def _document() -> Any:
    with translation.override(settings.LANGUAGE_CODE):
        return SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The security scheme under the contract's name."""

    target_class = "workers.api.authentication.ApiKeyAuthentication"
    name = "BearerAuth"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": BEARER_DESCRIPTION}


class WorkerApiSchema(AutoSchema):
    """Operations without tags and security of their own: the document has them at its root, as the contract does."""

    def get_tags(self) -> list[str]:
        return []

    def get_auth(self) -> list[dict[str, Any]]:
        """None: the document has one for all; but none is required where the view asks for none."""
        super().get_auth()  # registers the scheme's component
        return [] if self.view.authentication_classes else [{}]

    def get_summary(self) -> str:
        """The description's first sentence."""
        return str(self.get_description()).partition(".")[0]

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        """With every answer that can occur."""
        operation = super().get_operation(*args, **kwargs)
        if operation and any(p["name"] == "dry_run" for p in operation.get("parameters", [])):
            _add_dry_run(operation, self.resolve_serializer(OutlookSerializer(), "response").ref)
        if operation:
            _add_headers(operation, is_row=isinstance(self.view, ManagingView) and self.method == "GET")
            _add_refusals(operation, self.view, self.method)
            self._close(operation)
        return operation

    def _close(self, operation: dict[str, Any]) -> None:
        """Says of a body that no other members are taken, where that is so."""
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if getattr(self.view, "is_closed", False) and (ref := content.get("schema", {}).get("$ref")):
            component = self.registry._components[ref.rpartition("/")[2], ResolvedComponent.SCHEMA]
            component.schema["additionalProperties"] = False


def as_the_contract_has_it(result: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
    """drf-spectacular's document in the contract's form: titles, `anyOf` with null, root security, error answers."""
    result["servers"] = []
    result["security"] = [{"BearerAuth": []}]
    schemas = result["components"]["schemas"]
    for name, schema in schemas.items():
        _in_pydantic_form(name, schema)
    schemas |= VALIDATION_SCHEMAS
    result["paths"] = dict(sorted(result["paths"].items(), key=lambda item: _place_of(item[0])))
    for path, operations in result["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
            if path != START_PATH:  # which is as the contract has it
                operation["tags"] = [_tag_of(path)]
                _show_examples(operation, schemas)
    return result


def _place_of(path: str) -> tuple[int, str]:
    """The calls of a worker in the order in which it makes them, then the others by their resource."""
    return (WORKER_CALLS.index(path) if path in WORKER_CALLS else len(WORKER_CALLS), path)


def _tag_of(path: str) -> str:
    """What a call is about: a tag of the contract's where it has one."""
    if not path.startswith("/api/v1/"):
        return "health"
    if path in WORKER_CALLS:
        return "workers"
    if "update-lock" in path:
        return "update locks"
    resource = path.split("/")[3]
    return TAGS.get(resource.rpartition("-")[2], resource.replace("-", " "))


def _show_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Of the body and of each answer that is JSON."""
    for part in (operation.get("requestBody", {}), *operation["responses"].values()):
        for media_type, media in part.get("content", {}).items():
            if media_type == "application/json":
                media["example"] = example_of(media["schema"], schemas)


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Summary, parameter titles, and the words for success."""
    if path == START_PATH:
        operation["summary"], operation["description"] = "Start Worker", START_DESCRIPTION.strip()
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            parameter["schema"] = {"type": "string"}
        parameter["schema"]["title"] = _title(parameter["name"])
    for status, response in operation["responses"].items():
        if status in SUCCESSES:
            response["description"] = "Successful Response"
    operation["responses"] = dict(sorted(operation["responses"].items()))


def _add_headers(operation: dict[str, Any], *, is_row: bool) -> None:
    """What an answer tells beside its body, as its parameters tell; of a row that is read, its version."""
    asked = {parameter["name"] for parameter in operation.get("parameters", [])}
    told = {
        "ETag": bool(asked & {"If-Match", "Idempotency-Key"}) or (is_row and "limit" not in asked),
        REPEATED: "Idempotency-Key" in asked,
        "X-Total-Count": "offset" in asked,
        NEXT: {"offset", "cursor"} <= asked,
    }
    headers = {name: {"schema": {"type": "string"}, "description": HEADERS[name]} for name in HEADERS if told[name]}
    answer = operation["responses"].get("201") or operation["responses"].get("200")
    if headers and answer:
        answer["headers"] = headers


def _add_refusals(operation: dict[str, Any], view: Any, method: str) -> None:
    """The statuses with which a view refuses, as its class tells: authentication, body, query, and its own."""
    has_body, has_query = "requestBody" in operation, any(p["in"] == "query" for p in operation.get("parameters", []))
    statuses = {*EVERYWHERE, *map(str, view.refusals)} - ({"409"} if method == "DELETE" else set())
    if any(p["name"] == "If-Match" for p in operation.get("parameters", [])):
        statuses |= {"412"}
    if method in WRITING:
        statuses |= {str(status) for status in getattr(view, "refusals_of_writing", ())}
    statuses |= {*WITH_KEY} if view.authentication_classes else set()
    if has_body:
        statuses |= {*WITH_BODY}
        operation["requestBody"]["required"] = not view.is_body_optional
    for status in statuses:
        response = {"description": ERRORS[status], **_json({"$ref": "#/components/schemas/Error"})}
        if status in RETRYABLE:
            header = {"description": "Seconds to wait before the next try", "schema": {"type": "integer"}}
            response["headers"] = {"Retry-After": header}
        operation["responses"][status] = response
    if has_body or has_query:
        invalid = _json({"$ref": "#/components/schemas/HTTPValidationError"})
        operation["responses"]["422"] = {"description": "Validation Error", **invalid}


def _add_dry_run(operation: dict[str, Any], outlook: dict[str, Any]) -> None:
    """The answer to a call that only tells what it would do; of one that answers 200 itself it is the other answer."""
    if (usual := operation["responses"].get("200")) is None:
        operation["responses"]["200"] = _json(outlook) | {"description": "What it would do"}
        return
    media = usual["content"]["application/json"]
    media["schema"] = {"anyOf": [media["schema"], outlook]}


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
    definition = {key: value for key, value in definition.items() if key != "readOnly"}
    if definition.get("format") in {"double", "int64"}:
        del definition["format"]
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
