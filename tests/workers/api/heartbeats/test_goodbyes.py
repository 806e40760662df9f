"""The goodbye: what it says, and which process it ends."""

from typing import Any

import pytest
from django.utils import timezone

from tests.support.calls import start
from tests.support.documents import everything
from tests.support.factories import Fleet
from tests.support.heartbeats import (
    FULL,
    LIGHT,
    SYSTEM_INFO,
    assert_accepted,
    current,
    disconnect,
    heartbeat,
    post,
    silence,
    simple,
)
from workers.models import InstanceReport, Liveness, Worker, WorkerInstance, WorkerQueue

pytestmark = pytest.mark.sqlite


def test_a_goodbye_ends_the_instance_at_once_with_its_reason(running: Fleet) -> None:
    heartbeat(running, FULL)
    report = InstanceReport.objects.values().get()
    before = timezone.now()
    assert_accepted(disconnect(running, b'{"reason":"crash","exit_code":137,"error_message":"out of memory"}'))
    row = current()
    assert row.liveness == Liveness.STOPPED
    assert before <= row.stopped_at <= timezone.now()
    assert (row.stop_reason, row.exit_code, row.error_message) == ("crash", 137, "out of memory")
    assert (row.tasks_processed, row.current_task_id) == (3, "task-1")
    assert InstanceReport.objects.values().get() == report


@pytest.mark.parametrize("body", [{}, {"reason": None, "exit_code": None, "error_message": None}, {"reason": ""}])
def test_a_goodbye_without_a_reason_is_a_shutdown(running: Fleet, body: dict[str, Any]) -> None:
    assert_accepted(disconnect(running, body))
    row = current()
    assert (row.stop_reason, row.exit_code, row.error_message) == ("shutdown", None, "")


def test_a_repeated_goodbye_changes_nothing_and_the_first_reason_stays(running: Fleet) -> None:
    disconnect(running, {"reason": "crash", "exit_code": 1, "error_message": "first"})
    before = everything()
    assert_accepted(disconnect(running, {"reason": "crash", "exit_code": 1, "error_message": "first"}))
    assert_accepted(disconnect(running, {"reason": "shutdown", "exit_code": 0, "error_message": "second"}))
    assert everything() == before


def test_keeps_2000_characters_of_the_error_message(running: Fleet) -> None:
    message = "".join(f"{number:08}" for number in range(512))
    assert_accepted(disconnect(running, {"error_message": message}))
    assert current().error_message == message[:2_000]


def test_keeps_the_beginning_of_a_long_reason(running: Fleet) -> None:
    assert_accepted(disconnect(running, {"reason": "r" * 4_096}))
    assert current().stop_reason == "r" * 200


def test_a_goodbye_before_any_start_is_204_since_its_client_ends_anyhow_and_there_is_nothing_to_end(
    fleet: Fleet,
) -> None:
    """A worker whose start was refused says it, too: that refusal is on record, and no other one is to hide it."""
    before = everything()
    assert_accepted(disconnect(fleet))
    assert everything() == before


@pytest.mark.parametrize("model", [Worker, WorkerQueue])
def test_a_disabled_worker_may_say_goodbye(running: Fleet, model: Any) -> None:
    model.objects.update(is_disabled=True)
    assert_accepted(disconnect(running, {"reason": "told to end"}))
    assert (current().liveness, current().stop_reason) == (Liveness.STOPPED, "told to end")


def test_an_offline_worker_may_say_goodbye(running: Fleet) -> None:
    silence(days=2)
    assert current().liveness == Liveness.OFFLINE
    assert_accepted(disconnect(running))
    assert current().liveness == Liveness.STOPPED


@pytest.mark.parametrize("body", [LIGHT, FULL], ids=["light", "full"])
def test_a_heartbeat_after_the_goodbye_does_not_revive(running: Fleet, body: bytes) -> None:
    disconnect(running, {"reason": "crash", "exit_code": 1})
    before = everything()
    assert_accepted(heartbeat(running, body))
    assert_accepted(post(running, "heartbeat", simple(running)))
    assert everything() == before
    assert current().liveness == Liveness.STOPPED


def test_a_start_after_the_goodbye_begins_anew(running: Fleet) -> None:
    disconnect(running, {"reason": "crash"})
    assert start(running, {"system_info": SYSTEM_INFO}).status_code == 200
    assert_accepted(heartbeat(running))
    assert current().liveness == Liveness.ONLINE
    assert list(WorkerInstance.objects.filter(is_current=False).values_list("stop_reason", flat=True)) == ["crash"]
