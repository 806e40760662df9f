"""Starts in a queue, and registers."""

import json
from typing import Any

from tests.support.calls import assert_error_shape, shared_client
from tests.support.factories import Fleet
from workers.models import Worker

#: What the existing worker sends, byte for byte.
BODY = (
    b'{"worker_sdk_version": "1.0.2", "system_info": {"hostname": "build-7", "platform": "Linux-6.8", "os_name": "Linux", '
    b'"os_version": "6.8.0", "python_version": "3.12.4", "cli_version": null, "sdk_version": "1.0.2", "pid": 4711, '
    b'"cwd": "/srv", "supported_runtimes": ["default", "claude_code"], "docker_available": true, "docker_version": null, '
    b'"cpu_count": 8, "cpu_percent": 12.5, "memory_total": 33554432000, "memory_used": 8123456789, '
    b'"memory_percent": 24.2, "disk_total": 512110190592, "disk_used": 101234567890, "disk_percent": 19.8, '
    b'"uptime_seconds": 86400.25}, "control_plane_url": "https://control-plane.example.com/"}'
)


def post(fleet: Fleet, path: str, body: Any, *, token: str = "", **environ: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return shared_client().generic(
        "POST",
        f"/api/v1/{path}",
        data,
        "application/json" if data else "",
        HTTP_AUTHORIZATION=f"Bearer {token or fleet.token}",
        **environ,
    )


def boot(fleet: Fleet, body: Any = b"{}", *, queue_id: Any = None, **options: Any) -> Any:
    return post(fleet, f"worker-queues/{queue_id or fleet.queue.pk}/start", body, **options)


def register(fleet: Fleet, body: Any = None, **options: Any) -> Any:
    return post(fleet, "workers/register", {"environment_name": "production"} if body is None else body, **options)


BOOTS = {"queue start": boot, "register": register}


def change(row: Any, **values: Any) -> None:
    type(row).objects.filter(pk=row.pk).update(**values)


def assert_refused(response: Any, status: int) -> None:
    assert response.status_code == status, response.content[:500]
    assert_error_shape(response)


def made() -> Worker:
    return Worker.objects.get(is_ephemeral=True)
