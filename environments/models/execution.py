"""What an environment tells the hosted tools of how to run: variables, names of secrets, integrations, MCP servers."""

from typing import Any

from django.core.exceptions import ValidationError

TEXTS = "an object of texts"
LIST = "a list of texts"
OBJECTS = "an object of objects"
#: The members of an execution environment, all optional, and what each holds; secrets are named, never told.
MEMBERS = {"env_vars": TEXTS, "secrets": LIST, "integration_ids": LIST, "mcp_servers": OBJECTS}


def check_execution_environment(value: Any) -> None:
    """ValidationError for a member that is not known, or not of its kind."""
    if not isinstance(value, dict):
        return  # which is told of already
    for name, inner in value.items():
        if name not in MEMBERS:
            msg = f"It has only the members {', '.join(MEMBERS)}."
            raise ValidationError(msg)
        if not _is(MEMBERS[name], inner):
            msg = f"{name} has to be {MEMBERS[name]}."
            raise ValidationError(msg)


def _is(kind: str, value: Any) -> bool:
    if kind == LIST:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    inner = str if kind == TEXTS else dict
    return isinstance(value, dict) and all(isinstance(item, inner) for item in value.values())
