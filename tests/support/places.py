"""Processes that are alike in this or that: what they tell of themselves, and what they send."""

import json
from typing import Any

from django.utils import timezone

from tests.support import factories
from tests.support.calls import assert_error_shape, fresh_fleet, shared_client
from tests.support.factories import Fleet
from workers.models import DuplicatePolicy, WorkerInstance, WorkerQueue

HERE, THERE = "192.0.2.20", "192.0.2.21"
PLACE = {"hostname": "worker", "pid": 1}
AAA, BBB = (PLACE | {"container_id": name} for name in ("aaa", "bbb"))
EARLY, LATE = ({"process_started_at": f"2026-11-29T10:0{minute}:00+00:00"} for minute in (0, 5))
REJECT, ALLOW, TAKE_OVER = DuplicatePolicy.REJECT, DuplicatePolicy.ALLOW, DuplicatePolicy.TAKE_OVER

#: What the running process tells and what the one that starts tells, and whether that one can only come after it.
ANOTHER = {
    "another container": (AAA, BBB),
    "another container on one node": (AAA | EARLY, BBB | LATE),
    "another container of one boot": (AAA | {"boot_id": "b"}, BBB | {"boot_id": "b"}),
    "another container after a reboot": (AAA | {"boot_id": "b"}, BBB | {"boot_id": "c"}),
    "another pid": (PLACE | {"boot_id": "b"}, PLACE | {"pid": 2, "boot_id": "b"}),
    "another host": (AAA, AAA | {"hostname": "other"}),
    "another pid of the container": (AAA, AAA | {"pid": 2}),
}
LATER = {
    "nothing more told": (PLACE, PLACE),
    "the same container": (AAA, AAA),
    "the same container, later": (AAA | EARLY, AAA | LATE),
    "a later process at the place": (PLACE | EARLY, PLACE | LATE),
    "after a reboot": (PLACE | {"boot_id": "b"}, PLACE | {"boot_id": "c"}),
    "another pid after a reboot": (PLACE | {"boot_id": "b"}, PLACE | {"pid": 2, "boot_id": "c"}),
    "the same process": (AAA | EARLY, AAA | EARLY),
    "a number": (PLACE | {"process_started_at": 1.5}, PLACE | {"process_started_at": 2.5}),
}


def open_fleet() -> Fleet:
    """A fleet whose key reaches all of it."""
    fleet = fresh_fleet()
    fleet.token = factories.issue_token(fleet.organization)
    return fleet


def post(fleet: Fleet, path: str, body: Any, address: str = HERE) -> Any:
    """What a worker at this address sends through a trusted proxy."""
    return shared_client().generic(
        "POST",
        f"/api/v1/{path}",
        json.dumps(body).encode(),
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {fleet.token}",
        HTTP_X_FORWARDED_FOR=address,
        HTTP_X_FORWARDED_PROTO="https",
    )


def start(fleet: Fleet, info: Any, address: str = HERE) -> Any:
    return post(fleet, f"workers/{fleet.worker.pk}/start", {"system_info": info}, address)


def queue_start(fleet: Fleet, info: Any, address: str = HERE) -> Any:
    return post(fleet, f"worker-queues/{fleet.queue.pk}/start", {"system_info": info}, address)


def register(fleet: Fleet, info: Any, address: str = HERE) -> Any:
    body = {"environment_name": fleet.environment.name, "system_info": info}
    return post(fleet, "workers/register", body, address)


def register_in_metadata(fleet: Fleet, info: Any, address: str = HERE) -> Any:
    body = {"environment_name": fleet.environment.name, "hostname": info["hostname"], "worker_metadata": info}
    return post(fleet, "workers/register", body, address)


def beat(fleet: Fleet, info: Any = None, address: str = HERE, worker_id: Any = None, **members: Any) -> Any:
    told = {"system_info": info} if info else {}
    return post(fleet, f"workers/{worker_id or fleet.worker.pk}/heartbeat", {**members, **told}, address)


def goodbye(fleet: Fleet, info: Any = None, address: str = HERE, worker_id: Any = None) -> None:
    told = {"system_info": info} if info else {}
    response = post(fleet, f"workers/{worker_id or fleet.worker.pk}/disconnect", {"reason": "end", **told}, address)
    assert response.status_code == 204


def apply(policy: DuplicatePolicy) -> None:
    WorkerQueue.objects.update(duplicate_policy=policy)


def instance_of(response: Any) -> WorkerInstance:
    """The latest one of the worker that a queue start has made."""
    return of_worker(response.json()["worker_id"])


def of_worker(worker_id: Any) -> WorkerInstance:
    rows = WorkerInstance.objects.with_liveness(timezone.now()).filter(worker=worker_id)
    return rows.order_by("-started_at")[0]


def instances() -> list[WorkerInstance]:
    """All of them, the oldest first."""
    return list(WorkerInstance.objects.with_liveness(timezone.now()).order_by("started_at"))


def live_count() -> int:
    return WorkerInstance.objects.live(timezone.now()).count()


def assert_refused(response: Any, words: str) -> None:
    assert response.status_code == 409, response.content[:500]
    assert_error_shape(response)
    assert words in response.json()["detail"]
