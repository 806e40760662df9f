"""Counts by liveness, and metrics of a queue."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.support.factories import Fleet
from tests.support.reading import busy, call, change, offline, online, read, silence
from workers.models import DuplicatePolicy, WorkerInstance


def never_started(fleet: Fleet) -> None: ...


def idle(fleet: Fleet) -> None:
    call(fleet, "start")
    call(fleet, "heartbeat", status="idle")


def late(fleet: Fleet) -> None:
    busy(fleet)
    silence(seconds=100)


def stopped(fleet: Fleet) -> None:
    busy(fleet)
    call(fleet, "disconnect", reason="shutdown")


def stopped_long_ago(fleet: Fleet) -> None:
    stopped(fleet)
    silence(days=3)


def duplicate(fleet: Fleet) -> None:
    for pid in (1, 2):
        call(fleet, "start", system_info={"hostname": "build-7", "pid": pid})


def duplicate_of_an_offline_one(fleet: Fleet) -> None:
    offline(fleet)
    call(fleet, "start", system_info={"hostname": "build-8", "pid": 2})


def taken_over(fleet: Fleet) -> None:
    change(fleet.queue, duplicate_policy=DuplicatePolicy.TAKE_OVER)
    duplicate(fleet)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("arrange", "counts", "statuses"),
    [
        (never_started, (0, 0, 0), []),
        (online, (1, 0, 0), ["active"]),
        (idle, (1, 1, 0), ["idle"]),
        (busy, (1, 0, 1), ["busy"]),
        (late, (1, 0, 1), ["busy"]),
        (offline, (0, 0, 0), ["offline"]),
        (stopped, (0, 0, 0), ["disconnected"]),
        (stopped_long_ago, (0, 0, 0), ["disconnected"]),
        (duplicate, (2, 0, 0), ["active", "active"]),
        (duplicate_of_an_offline_one, (1, 0, 0), ["active"]),
        (taken_over, (1, 0, 0), ["active"]),
    ],
)
def test_counts_follow_liveness_everywhere(
    fleet: Fleet, arrange: Callable[[Fleet], None], counts: tuple[int, int, int], statuses: list[str]
) -> None:
    arrange(fleet)
    active = counts[0]
    metrics, environment = read(fleet, "worker-queues/{queue}/metrics"), read(fleet, "environments/{environment}")
    for row in (metrics, environment, *read(fleet, "environments")):
        assert (row["active_workers"], row["idle_workers"], row["busy_workers"]) == counts
    for path in ("worker-queues/{queue}", "worker-queues/{queue}/worker-command"):
        assert read(fleet, path)["active_workers"] == active
    for path in ("worker-queues", "environments/{environment}/worker-queues"):
        assert [row["active_workers"] for row in read(fleet, path)] == [active]
    told = {which: read(fleet, f"worker-queues/{{queue}}/workers?status={which}") for which in ("live", "all")}
    assert [row["status"] for row in told["all"]] == statuses
    assert told["live"] == [row for row in told["all"] if row["status"] not in {"offline", "disconnected"}]
    assert len(told["live"]) == active
    assert metrics["total_workers"] == 1


def test_an_interval_of_the_queue_decides_what_is_offline(fleet: Fleet) -> None:
    call(fleet, "start")
    silence(seconds=181)
    assert read(fleet, "worker-queues/{queue}")["active_workers"] == 0
    change(fleet.queue, heartbeat_interval=600)
    assert read(fleet, "worker-queues/{queue}")["active_workers"] == 1


def test_the_figures_of_a_queue_where_nothing_ever_happened(fleet: Fleet) -> None:
    metrics = read(fleet, "worker-queues/{queue}/metrics")
    assert (metrics["last_activity_at"], metrics["last_error_at"], metrics["tasks_processed_24h"]) == (None, None, 0)


@pytest.mark.sqlite
def test_the_figures_tell_the_last_activity_and_the_tasks_of_a_day(fleet: Fleet) -> None:
    call(fleet, "start")
    call(fleet, "heartbeat", tasks_processed=5)
    heard_at = silence(hours=23)
    metrics = read(fleet, "worker-queues/{queue}/metrics")
    assert metrics["tasks_processed_24h"] == 5
    assert datetime.fromisoformat(metrics["last_activity_at"]) == heard_at
    silence(hours=25)
    assert read(fleet, "worker-queues/{queue}/metrics")["tasks_processed_24h"] == 0


@pytest.mark.parametrize(
    ("goodbye", "is_error"),
    [
        ({"reason": "shutdown"}, False),
        ({"exit_code": 0}, False),
        ({"exit_code": 1}, True),
        ({"exit_code": -9}, True),
        ({"error_message": "out of memory"}, True),
    ],
)
def test_the_figures_tell_the_last_error(fleet: Fleet, goodbye: dict[str, Any], is_error: bool) -> None:
    call(fleet, "start")
    call(fleet, "disconnect", **goodbye)
    last_error_at = read(fleet, "worker-queues/{queue}/metrics")["last_error_at"]
    stopped_at = WorkerInstance.objects.get().stopped_at
    assert last_error_at is None if not is_error else datetime.fromisoformat(last_error_at) == stopped_at


def test_the_figures_tell_for_a_day_of_a_process_that_another_one_followed(fleet: Fleet) -> None:
    call(fleet, "start")
    call(fleet, "heartbeat", tasks_processed=5)
    call(fleet, "disconnect", exit_code=1)
    stopped_at = WorkerInstance.objects.get().stopped_at
    call(fleet, "start", system_info={"hostname": "another"})
    call(fleet, "heartbeat", tasks_processed=2)
    metrics = read(fleet, "worker-queues/{queue}/metrics")
    assert metrics["tasks_processed_24h"] == 7
    assert datetime.fromisoformat(metrics["last_error_at"]) == stopped_at
    long_ago = timezone.now() - timedelta(hours=25)
    WorkerInstance.objects.filter(is_current=False).update(stopped_at=long_ago, last_heartbeat_at=long_ago)
    metrics = read(fleet, "worker-queues/{queue}/metrics")
    assert (metrics["tasks_processed_24h"], metrics["last_error_at"]) == (2, None)
