"""Calls the API as the existing command line and Terraform provider do, which are written in Go.

By hand, from what their sources send and decode: a member that is not known is ignored, null leaves a zero value, and a
value of another kind fails the whole call. Terraform then refuses an apply whose answer is not what was planned.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.support.calls import shared_client

#: With a zone, as Go's time.Time asks for.
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
ENVIRONMENT = {
    "id": "string",
    "organization_id": "string",
    "name": "string",
    "display_name": "*string",
    "description": "*string",
    "tags": "[]string",
    "settings": "map[string]any",
    "status": "string",
    "created_at": "time",
    "updated_at": "time",
    "execution_environment": "map[string]any",
    "worker_token": "*string",
    "provisioned_at": "*string",
    "error_message": "*string",
}
#: What the command line shows beside.
SHOWN_ENVIRONMENT = ENVIRONMENT | {"variables": "map[string]string", "secrets": "[]string", "integrations": "[]string"}
QUEUE = {
    "id": "string",
    "organization_id": "string",
    "environment_id": "string",
    "name": "string",
    "display_name": "*string",
    "description": "*string",
    "status": "string",
    "max_workers": "*int",
    "heartbeat_interval": "int",
    "tags": "[]string",
    "settings": "map[string]any",
    "created_at": "time",
    "updated_at": "time",
    "active_workers": "int",
    "task_queue_name": "string",
}
WORKER = {
    "id": "string",
    "queue_id": "string",
    "status": "string",
    "last_seen": "string",
    "worker_info": "map[string]any",
}
CONFIG = {"settings": "map[string]any", "config_version": "string", "recommended_package_version": "string"}
ZERO: dict[str, Any] = {"string": "", "int": 0, "bool": False, "time": None}


class GoError(Exception):
    """An answer that is no 2xx, or that the client cannot decode."""


def decoded(value: Any, kind: str) -> Any:
    """One value as Go reads it into a field of this kind."""
    if value is None:
        return ZERO.get(kind)
    if kind.startswith("*"):
        return decoded(value, kind[1:])
    is_right = {
        "string": lambda: isinstance(value, str),
        "int": lambda: type(value) is int,
        "time": lambda: isinstance(value, str) and RFC_3339.fullmatch(value) is not None,
        "[]string": lambda: isinstance(value, list) and all(item is None or isinstance(item, str) for item in value),
        "map[string]any": lambda: isinstance(value, dict),
        "map[string]string": lambda: isinstance(value, dict) and all(isinstance(v, str) for v in value.values() if v),
    }[kind]()
    if not is_right:
        msg = f"json: cannot unmarshal {value!r} into Go value of type {kind}"
        raise GoError(msg)
    return datetime.fromisoformat(value) if kind == "time" else value


def decoded_struct(value: Any, struct: dict[str, str]) -> dict[str, Any]:
    """An object as Go reads it into a struct."""
    if not isinstance(value, dict):
        msg = "json: cannot unmarshal into Go struct"
        raise GoError(msg)
    return {name: decoded(value.get(name), kind) for name, kind in struct.items()}


@dataclass(frozen=True)
class GoClient:
    """Go's HTTP client with a key: the same headers on every call, with a body or without."""

    token: str
    scheme: str = "Bearer"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; GoError for any status but 2xx, with the text by which the command line tells what it is."""
        sent = b"" if body is None else json.dumps(body).encode()
        headers: dict[str, Any] = {
            "HTTP_AUTHORIZATION": f"{self.scheme} {self.token}",
            "HTTP_USER_AGENT": "Go-http-client/1.1",
        }
        response = shared_client().generic(method, f"/api/v1{path}", sent, "application/json", **headers)
        if not 200 <= response.status_code < 300:
            msg = f"API error (status {response.status_code}): {response.content.decode()}"
            raise GoError(msg)
        return json.loads(response.content) if response.content else None

    def one(self, method: str, path: str, struct: dict[str, str], body: Any = None) -> dict[str, Any]:
        """An object, decoded."""
        return decoded_struct(self.call(method, path, body), struct)

    def many(self, path: str, struct: dict[str, str]) -> list[dict[str, Any]]:
        """A list, decoded."""
        return [decoded_struct(row, struct) for row in self.call("GET", path)]


class InconsistentError(AssertionError):
    """Provider produced inconsistent result after apply."""


def _require(name: str, planned: Any, found: Any) -> None:
    if planned != found:
        msg = f".{name}: was {planned!r}, but now {found!r}"
        raise InconsistentError(msg)


@dataclass
class EnvironmentResource:
    """`controlplane_environment`: what is configured, and what the provider then has in its state."""

    client: GoClient
    config: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)

    def create(self) -> None:
        """Sends "" for a display name that is not configured, and what else is not empty."""
        body = {"name": self.config["name"], "display_name": self.config.get("display_name", "")}
        if "description" in self.config:
            body["description"] = self.config["description"]
        optional = ("tags", "settings", "execution_environment")
        body |= {name: self.config[name] for name in optional if self.config.get(name)}
        self._take(self.client.one("POST", "/environments", ENVIRONMENT, body))

    def update(self, config: dict[str, Any]) -> None:
        """Computed attributes are unknown in the plan, of which the text is "": status always, the others if not set."""
        self.config = config
        texts = {name: config.get(name, "") for name in ("display_name", "description")}
        body = {"name": config["name"], **texts, "status": ""}
        self._take(self.client.one("PATCH", f"/environments/{self.state['id']}", ENVIRONMENT, body))

    def read(self) -> dict[str, Any]:
        """The state as the next plan refreshes it."""
        return self.client.one("GET", f"/environments/{self.state['id']}", ENVIRONMENT)

    def plan(self) -> dict[str, Any]:
        """What the next apply would change; tags, settings and the like stay in the provider's own state."""
        found = self.read()
        return {
            name: found[name] for name in ("name", "display_name", "description") if found[name] != self.planned(name)
        }

    def planned(self, name: str) -> Any:
        """A configured value; of the others the description is null, and the display name as the server says."""
        return self.config.get(name, None if name == "description" else self.state.get(name))

    def destroy(self) -> None:
        self.client.call("DELETE", f"/environments/{self.state['id']}")

    def _take(self, answer: dict[str, Any]) -> None:
        for name in ("name", "display_name", "description"):
            if name in self.config or name == "description":
                _require(name, self.config.get(name), answer[name])
        for name in ("id", "display_name", "status", "created_at", "updated_at"):
            if answer[name] is None or (name != "display_name" and answer[name] == ""):
                msg = f".{name}: provider returned an unknown value"
                raise InconsistentError(msg)
        self.state = answer


@dataclass
class QueueResource:
    """`controlplane_worker_queue`: attributes without a value have defaults, which are part of the plan."""

    client: GoClient
    environment_id: str
    config: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)

    DEFAULTS = {"display_name": "", "description": "", "heartbeat_interval": 60, "max_workers": None}

    def create(self) -> None:
        """Never sends a status."""
        body = {
            "name": self.config["name"],
            "heartbeat_interval": self.planned("heartbeat_interval"),
            **self._optional(),
        }
        self._take(self.client.one("POST", f"/environments/{self.environment_id}/worker-queues", QUEUE, body))

    def update(self, config: dict[str, Any]) -> None:
        """Always sends name, status and interval, and the others if they are not empty."""
        self.config = config
        body = {"name": config["name"], "status": config.get("status", self.state["status"])}
        body |= {"heartbeat_interval": self.planned("heartbeat_interval"), **self._optional()}
        self._take(self.client.one("PATCH", f"/worker-queues/{self.state['id']}", QUEUE, body))

    def read(self) -> dict[str, Any]:
        return self.client.one("GET", f"/worker-queues/{self.state['id']}", QUEUE)

    def plan(self) -> dict[str, Any]:
        """What the next apply would change."""
        found = self.read()
        shown = {name: found[name] or self.config.get(name) for name in ("tags", "settings")}
        known = {**found, **shown}
        names = ("name", *self.DEFAULTS, "tags", "settings", *(["status"] if "status" in self.config else []))
        return {name: known[name] for name in names if known[name] != self.planned(name)}

    def planned(self, name: str) -> Any:
        return self.config.get(name, self.DEFAULTS.get(name))

    def destroy(self) -> None:
        self.client.call("DELETE", f"/worker-queues/{self.state['id']}")

    def _optional(self) -> dict[str, Any]:
        return {
            name: self.config[name]
            for name in ("display_name", "description", "max_workers", "tags", "settings")
            if self.config.get(name)
        }

    def _take(self, answer: dict[str, Any]) -> None:
        for name in ("name", *self.DEFAULTS):
            _require(name, self.planned(name), answer[name])
        for name in ("tags", "settings", "status"):
            if name in self.config:
                _require(name, self.config[name], answer[name])
        for name in ("id", "status", "created_at", "updated_at", "task_queue_name"):
            if not answer[name]:
                msg = f".{name}: provider returned an unknown value"
                raise InconsistentError(msg)
        self.state = answer
