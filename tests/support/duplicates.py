"""Two processes of one worker."""

import json
from datetime import timedelta
from typing import Any

from django.utils import timezone

from tests.support.calls import shared_client
from tests.support.factories import Fleet
from workers.models import WorkerInstance

OLD = {"hostname": "old-host", "pid": 100}
NEW = {"hostname": "new-host", "pid": 200}
OLD_ADDRESS, NEW_ADDRESS = "203.0.113.7", "203.0.113.8"


def post(fleet: Fleet, verb: str, body: Any, address: str) -> Any:
    """What a worker at this address sends through a trusted proxy."""
    return shared_client().generic(
        "POST",
        f"/api/v1/workers/{fleet.worker.pk}/{verb}",
        json.dumps(body).encode(),
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {fleet.token}",
        HTTP_X_FORWARDED_FOR=address,
        HTTP_X_FORWARDED_PROTO="https",
    )


def start(fleet: Fleet, system_info: Any, address: str = OLD_ADDRESS) -> Any:
    return post(fleet, "start", {"system_info": system_info}, address)


def heartbeat(fleet: Fleet, system_info: Any = None, address: str = OLD_ADDRESS, **members: Any) -> Any:
    told = {"system_info": system_info} if system_info else {}
    return post(fleet, "heartbeat", {"status": "active", **members, **told}, address)


def disconnect(fleet: Fleet, address: str = OLD_ADDRESS, reason: str = "shutdown") -> Any:
    return post(fleet, "disconnect", {"reason": reason}, address)


def instance(system_info: dict[str, Any]) -> Any:
    """The latest instance of this host and process id."""
    rows = WorkerInstance.objects.with_liveness(timezone.now())
    return rows.filter(hostname=system_info["hostname"], pid=system_info["pid"]).order_by("-started_at")[0]


def silence(**period: float) -> None:
    """Moves every instance's last heartbeat into the past."""
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(**period))
