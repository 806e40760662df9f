"""The checklist of a worker's first boot."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from environments.limits import counts
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import Fleet
from tests.support.new_workers import HOSTILE, page, revoked, steps, told
from tests.support.servers import TemporalServer
from workers.models import ApiKey, Refusal, Worker, WorkerInstance, WorkerQueue
from workers.reports import first_boot

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


STEPS = ("key", "start", "heartbeat", "polling")


def heartbeat(fleet: Fleet) -> None:
    path, headers = f"/api/v1/workers/{fleet.worker.pk}/heartbeat", {"Authorization": f"Bearer {fleet.token}"}
    assert Client().post(path, b"{}", "application/json", headers=headers).status_code == 204


def test_a_boot_goes_from_waiting_to_its_first_heartbeat(fleet: Fleet, client: Client) -> None:
    assert told(client, fleet) == dict.fromkeys(STEPS, "Waiting")
    assert start(fleet).status_code == 200
    assert steps(client, fleet) == ["Done", "Done", "Waiting", "Waiting"]
    text = page(client, "boot_steps", fleet)
    assert f">{fleet.api_key.name}<" in text
    assert "127.0.0.1" in text
    assert WorkerInstance.objects.get().configuration_revision in text
    heartbeat(fleet)
    assert steps(client, fleet)[:3] == ["Done"] * 3


def test_what_cannot_be_seen_from_here_is_said_and_ends_the_waiting(fleet: Fleet, client: Client) -> None:
    type(fleet.temporal).objects.update(host="127.0.0.1:1", is_tls_enabled=False)
    start(fleet)
    heartbeat(fleet)
    text = page(client, "boot_steps", fleet)
    assert told(client, fleet)["polling"] == "Cannot tell"
    assert "Not to be seen from the control plane: Nothing listens at 127.0.0.1:1." in text
    assert "data-final" not in text
    assert fleet.temporal_secret not in text
    WorkerInstance.objects.update(started_at=timezone.now() - timedelta(minutes=3))
    assert "data-final" in page(client, "boot_steps", fleet)


def test_the_checklist_costs_a_fixed_number_of_statements(
    fleet: Fleet, client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    start(fleet)
    page(client, "boot_steps", fleet)
    # The session, the person, the worker, its process, refusals of three kinds, the worker's refused start, the key.
    with django_assert_num_queries(9):
        page(client, "boot_steps", fleet)


def expired(fleet: Fleet) -> None:
    ApiKey.objects.update(expires_at=timezone.now())


def of_another_worker(fleet: Fleet) -> None:
    fleet.token = factories.issue_token(factories.create_worker(fleet.queue, "other"))


def of_another_organization(fleet: Fleet) -> None:
    fleet.token = factories.create_fleet().token


def of_the_queue_but_incomplete(fleet: Fleet) -> None:
    fleet.token = factories.issue_token(fleet.queue)
    factories.point(fleet.organization, litellm_connection=None)


def disabled(fleet: Fleet) -> None:
    Worker.objects.update(is_disabled=True)


def queue_draining(fleet: Fleet) -> None:
    WorkerQueue.objects.update(is_draining=True)


@pytest.mark.parametrize(
    ("arrange", "states", "reason"),
    [
        (expired, ["Failed", "Waiting"], "This API key has expired."),
        (revoked, ["Failed", "Waiting"], "This API key is revoked."),
        (of_another_worker, ["Failed", "Waiting"], "The API key's scope does not cover this worker."),
        (of_another_organization, ["Failed", "Waiting"], "A key of another organization was used."),
        (of_the_queue_but_incomplete, ["Done", "Failed"], "no LiteLLM connection at any of these levels: worker, "),
        (disabled, ["Done", "Failed"], "This worker is disabled."),
        (queue_draining, ["Done", "Failed"], "This worker's queue is draining: nothing new starts."),
    ],
)
def test_a_failed_step_says_why(
    fleet: Fleet, client: Client, arrange: Callable[[Fleet], None], states: list[str], reason: str
) -> None:
    arrange(fleet)
    assert start(fleet).status_code >= 400
    assert steps(client, fleet) == [*states, "Waiting", "Waiting"]
    text = page(client, "boot_steps", fleet)
    assert reason in text
    assert "data-final" not in text
    for secret in (fleet.token, fleet.temporal_secret, fleet.litellm_secret):
        assert secret not in text


def test_a_refused_body_is_told(fleet: Fleet, client: Client) -> None:
    start(fleet, b"{")
    assert steps(client, fleet) == ["Done", "Failed", "Waiting", "Waiting"]
    assert "The body was refused: JSON decode error" in page(client, "boot_steps", fleet)


def test_of_another_organization_s_key_no_more_is_told(fleet: Fleet, client: Client) -> None:
    foreign = factories.create_fleet()
    ApiKey.objects.filter(pk=foreign.api_key.pk).update(name="their-secret-name")
    start(fleet, token=foreign.token, REMOTE_ADDR="127.0.0.77")
    text = page(client, "boot_steps", fleet)
    for private in ("their-secret-name", str(foreign.api_key.pk), foreign.organization.id, "127.0.0.77"):
        assert private not in text


def test_another_organization_s_key_says_nothing_of_a_process_that_lives(fleet: Fleet, client: Client) -> None:
    start(fleet)
    start(fleet, token=factories.create_fleet().token)
    assert steps(client, fleet)[:2] == ["Done", "Done"]
    WorkerInstance.objects.update(stopped_at=timezone.now())
    assert steps(client, fleet)[0] == "Failed"


def test_the_worker_s_key_with_a_wrong_id_is_told(fleet: Fleet, client: Client) -> None:
    for worker_id in (uuid4(), "nonsense", factories.create_worker(fleet.queue, "other").pk):
        Refusal.objects.all().delete()
        cache.clear()
        start(fleet, worker_id=worker_id)
        assert steps(client, fleet)[:2] == ["Done", "Failed"]
        assert "is the worker's id right?" in page(client, "boot_steps", fleet)


def test_what_came_last_counts(fleet: Fleet, client: Client) -> None:
    start(fleet, b"{")
    start(fleet)
    assert steps(client, fleet)[:2] == ["Done", "Done"]
    WorkerQueue.objects.update(duplicate_policy="reject")
    assert start(fleet).status_code == 409
    assert steps(client, fleet) == ["Done", "Failed", "Waiting", "Waiting"]
    assert "Another process of this worker is online" in page(client, "boot_steps", fleet)


def test_a_process_that_never_beat_is_told(fleet: Fleet, client: Client) -> None:
    start(fleet)
    long_ago = timezone.now() - timedelta(hours=1)
    WorkerInstance.objects.update(started_at=long_ago, last_heartbeat_at=long_ago)
    assert steps(client, fleet) == ["Done", "Done", "Failed", "Waiting"]
    WorkerInstance.objects.update(stopped_at=long_ago, stop_reason=HOSTILE)
    assert "The process ended before its first heartbeat." in page(client, "boot_steps", fleet)


def test_a_process_that_has_ended_polls_nothing(fleet: Fleet, client: Client) -> None:
    start(fleet)
    heartbeat(fleet)
    WorkerInstance.objects.update(stopped_at=timezone.now(), stop_reason="error")
    assert steps(client, fleet) == ["Done", "Done", "Done", "Failed"]


@pytest.mark.parametrize("is_heard_of", [True, False])
def test_a_process_that_ended_well_is_done(fleet: Fleet, client: Client, is_heard_of: bool) -> None:
    start(fleet)
    if is_heard_of:
        heartbeat(fleet)
    WorkerInstance.objects.update(stopped_at=timezone.now(), stop_reason="finished", exit_code=0)
    assert steps(client, fleet)[:3] == ["Done", "Done", "Done"]
    text = page(client, "boot_steps", fleet)
    assert "The process has ended, as it was meant to." in text
    assert "data-final" not in text  # its next start is shown


@pytest.mark.parametrize(
    "ending",
    [
        {"stop_reason": "error"},
        {"stop_reason": "shutdown", "exit_code": 1},
        {"stop_reason": "shutdown", "error_message": "ValueError"},
        {"is_replaced": True},
        {"is_superseded": True},
    ],
)
def test_an_ending_that_is_none_of_a_well_one_is_told_from_it(ending: dict[str, Any]) -> None:
    assert WorkerInstance(stopped_at=timezone.now(), stop_reason="finished", exit_code=0).has_ended_well
    assert not WorkerInstance(**{"stopped_at": timezone.now(), **ending}).has_ended_well
    assert not WorkerInstance().has_ended_well


POLLS = """
import asyncio, sys
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

@activity.defn
async def work() -> None: ...

async def main() -> None:
    client = await Client.connect(sys.argv[1])
    async with Worker(client, task_queue=sys.argv[2], activities=[work]):
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def test_a_process_that_polls_is_told_from_others(
    fleet: Fleet, client: Client, temporal_server: TemporalServer
) -> None:
    host, namespace = temporal_server.host, temporal_server.namespace
    type(fleet.temporal).objects.update(host=host, namespace=namespace, is_tls_enabled=False)
    command = [sys.executable, "-c", POLLS, host, fleet.queue.task_queue_name]
    start(fleet)
    heartbeat(fleet)
    assert f"Nobody polls {fleet.queue.task_queue_name} yet." in page(client, "boot_steps", fleet)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: S603
        try:
            assert polling_becomes(client, fleet, "Cannot tell")
            assert "1 process polls" in page(client, "boot_steps", fleet)
            start(fleet, {"system_info": {"hostname": socket.gethostname(), "pid": process.pid}})
            heartbeat(fleet)
            assert polling_becomes(client, fleet, "Done")
            assert "data-final" in page(client, "boot_steps", fleet)
        finally:
            process.terminate()


def polling_becomes(client: Client, fleet: Fleet, state: str) -> bool:
    deadline = time.monotonic() + 20
    while (is_so := told(client, fleet)["polling"] == state) is False and time.monotonic() < deadline:
        time.sleep(0.2)
        first_boot.answers.forget()
        counts.forget()
    return is_so
