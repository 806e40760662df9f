"""Examples of the API's bodies and answers, made from their schemas: nobody has to keep them up by hand."""

from typing import Any

UUID = "443d8f0a-97ff-43e2-9fa7-0953bd1d01fd"
MOMENT = "2026-11-29T15:07:05Z"
#: What stands for a field of this name; the others have their default, or something of their type.
BY_NAME: dict[str, Any] = {
    "worker_id": UUID,
    "queue_id": UUID,
    "organization_id": "acme",
    "name": "default",
    "display_name": "Default",
    "description": "Runs whatever no other queue runs",
    "tags": ["gpu"],
    "queue_name": "default",
    "worker_queue_name": "default",
    "environment_name": "production",
    "task_queue_name": "acme.production.default",
    "temporal_namespace": "acme",
    "host": "temporal.acme.example:7233",
    "namespace": "acme",
    "api_url": "https://llm.acme.example",
    "api_key": "the secret, in plain text",
    "api_key_fingerprint": "0e4a1f7c9b32",
    "api_key_version": 1,
    "labels": "gpu, eu",
    "username": "ada",
    "verification_problem": "",
    "next_cursor": None,
    "changes": {"heartbeat_interval": {"before": 60, "after": 30}},
    "temporal_host": "temporal.acme.example:7233",
    "temporal_api_key": "the credential, in plain text",
    "litellm_api_url": "https://llm.acme.example",
    "litellm_api_key": "the credential, in plain text",
    "control_plane_url": "https://control.acme.example",
    "heartbeat_interval": 60,
    "hostname": "host-1",
    "status": "active",
    "system_info": {"hostname": "host-1", "pid": 4711},
    "logs": ["Polling acme.production.default"],
    "reason": "shutdown",
    "exit_code": 0,
    "max_workers": 10,
    "detail": "Not found.",
}
#: Names that stand for something else in one schema.
ELSEWHERE: dict[tuple[str, str], Any] = {
    ("HTTPValidationError", "detail"): [{"loc": ["body", "system_info"], "msg": "Field required", "type": "missing"}],
    ("Health", "status"): "healthy",
    ("WorkerCommand", "command"): "curl -fsSL https://control.acme.example/... | bash",
    ("UpdateLockRequest", "worker_id"): "host-1",
}


def example_of(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """Something that the schema takes; a whole object has all of its fields."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        fields = schemas[name].get("properties", {}).items()
        return {field: _field(name, field, definition, schemas) for field, definition in fields}
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0] | {"format": schema.get("format")}, schemas)
    if schema.get("type") == "array":
        return [example_of(schema.get("items", {}), schemas)]
    text = {"uuid": UUID, "date-time": MOMENT}.get(schema.get("format") or "", "text")
    return {"object": {}, "integer": 0, "number": 0, "boolean": True}.get(schema.get("type", ""), text)


def _field(name: str, field: str, definition: dict[str, Any], schemas: dict[str, Any]) -> Any:
    if (name, field) in ELSEWHERE:
        return ELSEWHERE[name, field]
    if field in BY_NAME:
        return BY_NAME[field]
    if "default" in definition:
        return definition["default"]
    return definition["enum"][0] if "enum" in definition else example_of(definition, schemas)
