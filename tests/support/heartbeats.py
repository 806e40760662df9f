"""Sends heartbeats and goodbyes of a worker that runs."""

import json
from datetime import timedelta
from typing import Any

from django.utils import timezone

from tests.support.calls import assert_error_shape, shared_client
from tests.support.factories import Fleet
from workers.models import WorkerInstance

SYSTEM_INFO = {
    "hostname": "build-7",
    "platform": "Linux-6.8.0-x86_64-with-glibc2.39",
    "os_name": "Linux",
    "os_version": "6.8.0",
    "python_version": "3.12.4",
    "cli_version": None,
    "sdk_version": "1.0.2",
    "pid": 4711,
    "cwd": "/srv/worker",
    "supported_runtimes": ["default", "claude_code"],
    "docker_available": True,
    "docker_version": "27.1.1",
    "cpu_count": 8,
    "cpu_percent": 12.5,
    "memory_total": 33_554_432_000,
    "memory_used": 8_123_456_789,
    "memory_percent": 24.2,
    "disk_total": 512_110_190_592,
    "disk_used": 101_234_567_890,
    "disk_percent": 19.8,
    "uptime_seconds": 86_400.25,
}
LIGHT = b'{"status":"active","tasks_processed":3,"current_task_id":null,"worker_metadata":{}}'
FULL = (
    b'{"status":"active","tasks_processed":3,"current_task_id":"task-1","worker_metadata":{},"system_info":'
    + json.dumps(SYSTEM_INFO).encode()
    + b',"logs":["10:00:00 connected","10:00:01 polling"]}'
)


def simple(fleet: Fleet, environment_name: str = "production", **members: Any) -> bytes:
    """The body of the form that names the worker and its environment itself."""
    named = {"worker_id": str(fleet.worker.pk), "environment_name": environment_name}
    return json.dumps(named | {"status": "active", "tasks_processed": 5, "worker_metadata": {}} | members).encode()


def post(fleet: Fleet, path: str, body: Any, *, token: str = "", **environ: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode(errors="backslashreplace")
    authorization = f"Bearer {token or fleet.token}"
    return shared_client().generic(
        "POST", f"/api/v1/workers/{path}", data, "application/json", HTTP_AUTHORIZATION=authorization, **environ
    )


def heartbeat(fleet: Fleet, body: Any = LIGHT, *, worker_id: Any = None, **options: Any) -> Any:
    return post(fleet, f"{worker_id or fleet.worker.pk}/heartbeat", body, **options)


def disconnect(fleet: Fleet, body: Any = b'{"reason":"shutdown"}', *, worker_id: Any = None, **options: Any) -> Any:
    return post(fleet, f"{worker_id or fleet.worker.pk}/disconnect", body, **options)


def assert_accepted(response: Any) -> None:
    assert response.status_code == 204, response.content[:500]
    assert response.content == b""


def assert_refused(response: Any, status: int) -> None:
    assert response.status_code == status, response.content[:500]
    assert_error_shape(response)


def current() -> WorkerInstance:
    return WorkerInstance.objects.with_liveness(timezone.now()).get(is_current=True)


def silence(**period: float) -> None:
    """Moves every instance's last heartbeat into the past."""
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(**period))
