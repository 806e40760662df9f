"""Asks as readers of the fleet do, and says what they are to be answered."""

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.support.calls import shared_client
from tests.support.factories import Fleet
from workers.models import WorkerInstance

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
#: Beyond the protocol page: what a level points to.
POINTERS = {"temporal_connection_id": "uuid?", "litellm_connection_id": "uuid?", "telemetry_settings_id": "uuid?"}
#: The answers' members and types as the protocol page gives them; `?` may be null.
QUEUE = {
    "id": "uuid",
    "organization_id": "str",
    "environment_id": "uuid",
    "name": "str",
    "display_name": "text",
    "description": "text",
    "status": "str",
    "max_workers": "int?",
    "heartbeat_interval": "int",
    "tags": "[str]",
    "settings": "{}",
    "created_at": "time",
    "updated_at": "time",
    "created_by": "str?",
    "active_workers": "int",
    "state_reason": "str?",
    "state_ends_at": "time?",
    "task_queue_name": "str",
    **POINTERS,
}
ENVIRONMENT = {
    "id": "uuid",
    "organization_id": "str",
    "name": "str",
    "display_name": "text",
    "description": "str?",
    "tags": "[str]",
    "settings": "{}",
    "status": "str",
    "created_at": "time",
    "updated_at": "time",
    "created_by": "str?",
    "active_workers": "int",
    "idle_workers": "int",
    "busy_workers": "int",
    "execution_environment": "{}",
    "variables": "{}",
    "secrets": "[str]",
    "integrations": "[str]",
    **POINTERS,
}
WORKER = {
    "id": "uuid",
    "worker_id": "uuid",
    "status": "str",
    "tasks_processed": "int",
    "current_task_id": "str?",
    "last_heartbeat": "time",
    "registered_at": "time",
    "system_info": "{}?",
    "logs": "[str]?",
    "worker_metadata": "{}",
}
CONFIG = {
    "queue_id": "uuid",
    "name": "str",
    "display_name": "str?",
    "description": "str?",
    "status": "str",
    "max_workers": "int?",
    "heartbeat_interval": "int",
    "tags": "[str]",
    "settings": "{}",
    "config_version": "str",
    "config_updated_at": "time",
    "recommended_package_version": "str?",
    "environment_id": "uuid",
    "environment_name": "str",
}
METRICS = {
    "queue_id": "uuid",
    "active_workers": "int",
    "idle_workers": "int",
    "busy_workers": "int",
    "total_workers": "int",
    "tasks_processed_24h": "int",
    "tasks_failed_24h": "int",
    "tasks_pending": "int",
    "avg_task_duration_ms": "number",
    "error_rate_percent": "number",
    "last_error_at": "time?",
    "task_queue_backlog": "int",
    "task_queue_pollers": "int",
    "task_queue_observed_at": "time?",
    "last_activity_at": "time?",
    "updated_at": "time",
}
COMMAND = {
    "queue_id": "uuid",
    "command": "str",
    "command_parts": "{}",
    "can_register": "bool",
    "queue_status": "str",
    "active_workers": "int",
    "max_workers": "int?",
}
TYPES: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str) and value != "",
    "text": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int,
    "number": lambda value: type(value) in {int, float},
    "bool": lambda value: type(value) is bool,
    "uuid": lambda value: isinstance(value, str) and str(UUID(value)) == value,
    "time": lambda value: isinstance(value, str) and RFC_3339.fullmatch(value) is not None,
    "[str]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "[{}]": lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    "{}": lambda value: isinstance(value, dict),
}
TASK_QUEUE = {
    "task_queue": "str",
    "organization_id": "str",
    "runner_name": "str",
    "workers": "[{}]",
    "worker_count": "int",
    "approximate_backlog_count": "int?",
}
ENVIRONMENT_COMMAND = {"environment_name": "str", "command": "str", "namespace_status": "str"}
#: Path, and the shape of the answer or of each of its rows.
SHAPES = {
    "worker-queues": QUEUE,
    "environments/{environment}/worker-queues": QUEUE,
    "worker-queues/{queue}": QUEUE,
    "worker-queues/{queue}/workers": WORKER,
    "worker-queues/{queue}/config": CONFIG,
    "worker-queues/{queue}/metrics": METRICS,
    "worker-queues/{queue}/worker-command": COMMAND,
    "environments": ENVIRONMENT,
    "environments/{environment}": ENVIRONMENT,
    "environments/{environment}/worker-command": ENVIRONMENT_COMMAND,
    "workers": TASK_QUEUE,
    "workers/production.default": TASK_QUEUE,
}
LISTS = {
    "worker-queues",
    "environments/{environment}/worker-queues",
    "worker-queues/{queue}/workers",
    "environments",
    "workers",
}
DEPLOYMENT_TYPES = ("local", "docker", "kubernetes", "openshift")
READINGS = [
    *SHAPES,
    "worker-queues/{queue}/update-lock-status",
    *(f"worker-queues/{{queue}}/install-script?deployment_type={kind}" for kind in DEPLOYMENT_TYPES),
]


def ask(fleet: Fleet, path: str) -> Any:
    filled = path.format(queue=fleet.queue.pk, environment=fleet.environment.pk)
    return shared_client().get(f"/api/v1/{filled}", HTTP_AUTHORIZATION=f"Bearer {fleet.token}")


def read(fleet: Fleet, path: str) -> Any:
    response = ask(fleet, path)
    assert response.status_code == 200, response.content[:500]
    return response.json()


def call(fleet: Fleet, what: str, **body: Any) -> None:
    response = shared_client().generic(
        "POST",
        f"/api/v1/workers/{fleet.worker.pk}/{what}",
        json.dumps(body).encode(),
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {fleet.token}",
    )
    assert response.status_code in {200, 204}, response.content[:500]


def silence(**period: float) -> datetime:
    """Moves every instance's last heartbeat into the past."""
    heard_at = timezone.now() - timedelta(**period)
    WorkerInstance.objects.update(last_heartbeat_at=heard_at)
    return heard_at


def change(row: Any, **values: Any) -> None:
    """Saves other values, whatever has become of the row since it was loaded."""
    type(row).objects.filter(pk=row.pk).update(**values)


def assert_shape(row: Any, shape: dict[str, str]) -> None:
    assert set(row) == set(shape)
    for name, kind in shape.items():
        is_null = row[name] is None
        assert (is_null and kind.endswith("?")) or (not is_null and TYPES[kind.removesuffix("?")](row[name])), (
            name,
            row[name],
        )


def online(fleet: Fleet) -> None:
    call(fleet, "start")


def busy(fleet: Fleet) -> None:
    call(fleet, "start")
    call(fleet, "heartbeat", status="busy")


def offline(fleet: Fleet) -> None:
    busy(fleet)
    silence(seconds=181)


def statements(fleet: Fleet, path: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        read(fleet, path)
    return len(captured)
