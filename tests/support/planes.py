"""What a running control plane has issued and recorded."""

import json
from typing import Any

from environments.encryption import decode
from tests.support.crawler import Console
from tests.support.servers import ControlPlane


def records(plane: ControlPlane, model: str) -> list[dict[str, Any]]:
    """All rows of a model, each with its id as `pk`."""
    rows = json.loads(plane.manage("dumpdata", model).stdout)
    return [{"pk": row["pk"], **row["fields"]} for row in rows]


def latest_start(plane: ControlPlane, worker_id: str) -> dict[str, Any]:
    rows = [row for row in records(plane, "workers.workerstart") if row["worker"] == worker_id]
    return max(rows, key=lambda row: row["started_at"])


def claims_of(key: str) -> dict[str, Any]:
    return json.loads(decode(key.split(".")[1]))  # type: ignore[no-any-return]


def issue(plane: ControlPlane, *scope: str) -> dict[str, Any]:
    return json.loads(plane.manage("issue_api_key", *scope, "--name", "end-to-end", "--format", "json").stdout)  # type: ignore[no-any-return]


def console_of(plane: ControlPlane) -> Console:
    """A browser that is signed in as the control plane's administrator."""
    return Console(plane.url, plane.admin_username, plane.admin_password)
