"""The sweep against a real Temporal: each state that both sides together tell, and where it is shown."""

import io
import json
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from controlplane.monitoring.metrics import exposition
from environments.connections.verification import task_queues
from environments.limits import counts
from tests.support import factories
from tests.support.calls import heartbeat, start
from tests.support.console import person, signed_in
from tests.support.endpoints import Endpoint, firewalled, silent
from tests.support.factories import Fleet
from tests.support.pollers import connect, let_a_task_wait, polling, sweep
from tests.support.reading import read
from tests.support.servers import TemporalServer
from workers.models import ProcessObservation, QueueObservation, Sweep, Work, WorkerInstance
from workers.models.work import with_work
from workers.observation.lease import Lease
from workers.observation.sweeps import Backoff, Pass

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

HOST, PID = "machine", 4711
NAME = f"{PID}@{HOST}"
AGO = timedelta(minutes=5)
#: An organization in whose queue a task has waited since the first test of this module: the server counts now and then.
WAITS = "waits"


@pytest.fixture(scope="module", autouse=True)
def waiting(temporal_server: TemporalServer) -> None:
    let_a_task_wait(temporal_server, f"{WAITS}.production.default")


@pytest.fixture
def fleet(fleet: Fleet, temporal_server: TemporalServer) -> Fleet:
    connect(fleet, temporal_server.host)
    return fleet


@pytest.fixture
def client(db: None) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def begin(fleet: Fleet, *, pid: int = PID, hostname: str = HOST) -> None:
    """The fleet's worker has started a while ago, and beats."""
    assert start(fleet, {"system_info": {"hostname": hostname, "pid": pid}}).status_code == 200
    heartbeat(fleet)
    WorkerInstance.objects.filter(worker=fleet.worker).update(started_at=timezone.now() - AGO)


def fall_silent() -> None:
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(hours=1))


def work(fleet: Fleet) -> str:
    now = timezone.now()
    rows = with_work(WorkerInstance.objects.filter(worker=fleet.worker, is_current=True).with_liveness(now), now)
    return str(rows.get().work)


def observed(fleet: Fleet) -> QueueObservation:
    return QueueObservation.objects.get(queue=fleet.queue)


def page(client: Client, path: str) -> str:
    response = client.get(f"/admin/{path}")
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def attention(client: Client) -> str:
    (found,) = re.findall(r'id="attention".*?</(?:ul|p)>', page(client, ""))
    return re.sub(r"<[^>]+>", "", found)


def listed(*arguments: str) -> list[str | None]:
    out = io.StringIO()
    call_command("list_workers", "--format=json", *arguments, stdout=out)
    return [json.loads(line)["work"] for line in out.getvalue().splitlines()]


def figures() -> dict[str, float]:
    """The metrics of queues by name and last label, as Prometheus reads them."""
    lines = re.findall(
        r'^(controlplane_\w+)\{.*?(?:(?:kind|work)="(\w+)".*?)?\} (\S+)$', exposition().decode(), re.MULTILINE
    )
    return {f"{name.removeprefix('controlplane_')} {label}".strip(): float(value) for name, label, value in lines}


def test_a_process_that_beats_and_polls_works(fleet: Fleet, client: Client, temporal_server: TemporalServer) -> None:
    begin(fleet)
    assert (work(fleet), listed()) == (Work.UNKNOWN, [None])
    with polling(temporal_server, fleet.queue.task_queue_name, NAME):
        (asked,) = sweep()
    assert (asked.queues, asked.answered, asked.problem) == (1, 1, "")
    row = observed(fleet)
    assert (row.workflow_pollers, row.activity_pollers, row.pollers, row.strangers) == (0, 1, 1, 0)
    assert (row.backlog, row.problem, ProcessObservation.objects.get().is_conspicuous) == (0, "", False)
    assert (work(fleet), listed("--work=working")) == (Work.WORKING, [Work.WORKING])
    assert 'id="work">Working<' in page(client, f"workers/worker/{fleet.worker.pk}/change/")
    assert "Nothing. All that runs is as it should be." in attention(client)
    metrics = read(fleet_reader(fleet), "worker-queues/{queue}/metrics")
    assert (metrics["task_queue_pollers"], metrics["task_queue_backlog"]) == (1, 0)
    assert metrics["task_queue_observed_at"]
    told = figures()
    assert (told["queue_pollers activity"], told["queue_pollers workflow"], told["queue_backlog"]) == (1, 0, 0)
    assert (told["workers_amiss not_polling"], told["workers_amiss cut_off"], told["queue_strangers"]) == (0, 0, 0)
    type(fleet.temporal).objects.update(host="127.0.0.1:1")
    assert "This process polls" in page(client, f"workers/worker/{fleet.worker.pk}/boot/steps/")


def fleet_reader(fleet: Fleet) -> Fleet:
    """The fleet with a key that reads its queue."""
    fleet.token = factories.issue_token(fleet.queue)
    return fleet


def test_a_process_that_polls_and_does_not_beat_is_cut_off(
    fleet: Fleet, client: Client, temporal_server: TemporalServer
) -> None:
    begin(fleet)
    with polling(temporal_server, fleet.queue.task_queue_name, NAME):
        sweep()
        fall_silent()
        assert work(fleet) == Work.CUT_OFF
        sweep()
    assert ProcessObservation.objects.get().is_conspicuous
    text = page(client, f"workers/worker/{fleet.worker.pk}/change/")
    assert 'id="work">Cut off<' in text
    assert "does not reach the control plane" in text
    assert "1 worker that polls but does not beat" in attention(client)
    assert "offline" not in attention(client)
    assert ">Cut off<" in page(client, "workers/worker/?attention=cut-off")
    assert "0 workers" in page(client, "workers/worker/?liveness=Offline&attention=unseen")
    assert (listed("--work=cut-off"), figures()["workers_amiss cut_off"]) == ([Work.CUT_OFF], 1)
    heartbeat(fleet)
    assert work(fleet) == Work.WORKING  # at once: who was heard of again is not looked for
    assert figures()["workers_amiss cut_off"] == 0


#: A worker of Temporal's SDK with one slot, within a process that goes on without it.
WORKER = """
import asyncio, datetime, sys
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

SECOND = datetime.timedelta(seconds=1)
over = asyncio.Event()

@activity.defn
async def work() -> None:
    print("busy", flush=True)
    await over.wait()

@workflow.defn
class Flow:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(work, start_to_close_timeout=60 * SECOND)

async def main() -> None:
    runtime = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=SECOND)
    client = await Client.connect(sys.argv[1], identity="a name of its own", runtime=runtime)
    parts = {"workflows": [Flow], "activities": [work], "workflow_runner": UnsandboxedWorkflowRunner()}
    async with Worker(client, task_queue=sys.argv[2], max_concurrent_activities=1, **parts):
        print("polls", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await client.start_workflow(Flow.run, id=sys.argv[2], task_queue=sys.argv[2])
        await asyncio.to_thread(sys.stdin.readline)
        over.set()
    print("stopped", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


def test_a_process_whose_worker_stops_is_told_although_it_beats(
    fleet: Fleet, client: Client, temporal_server: TemporalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Temporal's list of workers: it says where a process of any name runs, that its slots are taken, that it ended."""
    command = [sys.executable, "-c", WORKER, temporal_server.host, fleet.queue.task_queue_name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout
        try:
            begin(fleet, pid=process.pid, hostname=socket.gethostname())
            assert process.stdout.readline() == "polls\n"
            assert becomes(fleet, Work.WORKING)
            say(process, "busy")
            with monkeypatch.context() as patched:
                patched.setattr(task_queues, "POLLS_WITHIN", timedelta(0))  # as if its last poll were long ago
                assert becomes(fleet, Work.UNKNOWN)
            assert ProcessObservation.objects.get().is_full
            say(process, "stopped")
            assert becomes(fleet, Work.NOT_POLLING)
        finally:
            process.kill()
    assert observed(fleet).strangers == 0
    assert 'id="work">Not polling<' in page(client, f"workers/worker/{fleet.worker.pk}/change/")
    assert "1 worker that beats but does not poll" in attention(client)
    assert ">Not polling<" in page(client, "workers/worker/?attention=not-polling")
    assert (listed("--work=not-polling"), figures()["workers_amiss not_polling"]) == ([Work.NOT_POLLING], 1)


def say(process: Any, answer: str) -> None:
    """One line to the process, which answers so."""
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == f"{answer}\n"


def becomes(fleet: Fleet, wanted: Work) -> bool:
    until = time.monotonic() + 20
    while sweep() and (found := work(fleet)) != wanted and time.monotonic() < until:
        time.sleep(0.2)
    return found == wanted


def test_not_polling_is_said_of_nobody_who_has_a_reason(fleet: Fleet) -> None:
    begin(fleet)
    sweep()
    assert work(fleet) == Work.NOT_POLLING
    for excuse in ({"started_at": timezone.now()}, {"activity": "busy"}, {"current_task_id": "some"}):
        before = WorkerInstance.objects.values(*excuse).get()
        WorkerInstance.objects.update(**excuse)
        assert work(fleet) == Work.UNKNOWN, excuse
        WorkerInstance.objects.update(**before)
    ProcessObservation.objects.update(is_full=True)
    assert work(fleet) == Work.UNKNOWN
    sweep()
    assert work(fleet) == Work.NOT_POLLING
    QueueObservation.objects.update(observed_at=timezone.now() - timedelta(minutes=4))
    assert work(fleet) == Work.UNKNOWN  # what was seen is too old
    fall_silent()
    sweep()
    assert (work(fleet), ProcessObservation.objects.count()) == (Work.UNKNOWN, 0)


def test_who_polls_without_a_worker_here_is_named(
    fleet: Fleet, client: Client, temporal_server: TemporalServer
) -> None:
    begin(fleet)
    with polling(temporal_server, fleet.queue.task_queue_name, NAME, "7@elsewhere", "<b>a name"):
        sweep()
    row = observed(fleet)
    assert (row.pollers, row.strangers, row.stranger_identities) == (3, 2, ["7@elsewhere", "<b>a name"])
    assert work(fleet) == Work.WORKING
    text = page(client, f"workers/workerqueue/{fleet.queue.pk}/change/")
    assert "2 processes poll this queue without being a worker here" in text
    assert "<li><bdi>7@elsewhere</bdi></li><li><bdi>&lt;b&gt;a name</bdi></li></ul>" in text
    assert "1 worker queue that an unknown process polls" in attention(client)
    assert fleet.queue.task_queue_name in page(client, "workers/workerqueue/?temporal=strangers")
    assert "0 worker queues" in page(client, "workers/workerqueue/?temporal=waiting")
    assert figures()["queue_strangers"] == 2


def test_a_name_that_tells_no_place_may_be_any_process(fleet: Fleet, temporal_server: TemporalServer) -> None:
    begin(fleet)
    with polling(temporal_server, fleet.queue.task_queue_name, "a name"):
        sweep()
    assert (observed(fleet).strangers, work(fleet)) == (0, Work.UNKNOWN)
    assert not ProcessObservation.objects.exists()


def test_a_name_that_no_database_keeps_costs_nobody_a_look(fleet: Fleet, temporal_server: TemporalServer) -> None:
    connect(factories.create_fleet("other"), temporal_server.host)
    with polling(temporal_server, "other.production.default", "1@\0", "2@host\0name"):
        asked = sweep()
    assert [(each.answered, each.problem) for each in asked] == [(1, ""), (1, "")]
    assert observed(fleet).observed_at
    assert QueueObservation.objects.get(organization="other").strangers == 2


def test_the_workers_own_connection_is_asked_about_them(fleet: Fleet, temporal_server: TemporalServer) -> None:
    begin(fleet)
    own = factories.create_temporal(fleet.organization, "own", host="127.0.0.1:1", requires_api_key=False)
    factories.point(fleet.worker, temporal_connection=own)
    with polling(temporal_server, fleet.queue.task_queue_name, NAME):
        asked = {each.connection.name: each for each in sweep()}
        assert "Nothing listens" in asked["own"].problem or "does not complete a TLS" in asked["own"].problem
        assert work(fleet) == Work.UNKNOWN  # the queue's connection has not to say
        type(own).objects.filter(pk=own.pk).update(host=temporal_server.host, is_tls_enabled=False, namespace="default")
        sweep()
    assert work(fleet) == Work.WORKING
    assert ProcessObservation.objects.get().observed_at


def test_the_address_is_guarded_and_a_key_that_does_not_open_is_said(fleet: Fleet, client: Client) -> None:
    connect(fleet, "169.254.169.254:7233")
    (asked,) = sweep()
    assert "never connects" in asked.problem
    assert "never connects" in page(client, f"workers/workerqueue/{fleet.queue.pk}/change/")
    type(fleet.temporal).objects.update(requires_api_key=True, sealed_api_key="cp1.x.y")
    (asked,) = sweep()
    assert "cannot be opened" in asked.problem


@pytest.fixture
def never_answers() -> Iterator[Endpoint]:
    endpoint = Endpoint(silent)
    yield endpoint
    endpoint.stop()


def test_a_temporal_that_never_answers_costs_itself_three_seconds(
    fleet: Fleet, client: Client, never_answers: Endpoint, settings: Settings
) -> None:
    """Whether it takes the connection and is silent, or a firewall lets no packet through: both at once, here."""
    settings.CONNECTION_HOSTS = ()
    other, behind = factories.create_fleet(), factories.create_fleet()
    connect(other, never_answers.host)
    counts.forget()
    begun = time.monotonic()
    out, errors = io.StringIO(), io.StringIO()
    with firewalled() as host, pytest.raises(CommandError, match="did not answer: 2 of 3"):
        connect(behind, host)
        call_command("sweep", "--format=json", stdout=out, stderr=errors)
    assert time.monotonic() - begun < 6
    asked: dict[str, Any] = {each["organization"]: each for each in map(json.loads, out.getvalue().splitlines())}
    assert asked[fleet.organization.pk] == {
        "organization": fleet.organization.pk,
        "connection": "temporal",
        "queues": 1,
        "answered": 1,
        "problem": None,
    }
    assert "connections asked: 3 of 3" in errors.getvalue()
    for silent_one in (other, behind):
        assert "did not answer within 3 seconds" in asked[silent_one.organization.pk]["problem"]
        row = observed(silent_one)
        assert row.observed_at is None
        assert "within 3 seconds" in row.problem
        assert "It did not answer" in page(client, f"workers/workerqueue/{silent_one.queue.pk}/change/")
        assert start(silent_one).status_code == 200


def test_one_that_answers_too_slowly_is_left_after_a_while(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queues, "LONGEST_LOOK", 0)  # so that any server is too slow
    (asked,) = sweep()
    assert (asked.queues, asked.answered) == (1, 0)
    assert "answers too slowly" in observed(fleet).problem


def test_a_pass_ends_when_another_process_has_taken_over(fleet: Fleet) -> None:
    lease = Lease(timezone.now)
    assert lease.take_once()
    Sweep.objects.update(holder=uuid.uuid4())
    assert list(Pass(lease, Backoff(), timezone.now).run()) == []
    assert not QueueObservation.objects.exists()
    assert Sweep.objects.get().finished_at is None


def test_tasks_that_wait_for_nobody_are_counted(client: Client, temporal_server: TemporalServer) -> None:
    fleet = factories.create_fleet(WAITS)
    connect(fleet, temporal_server.host)
    until = time.monotonic() + 10
    while not (sweep() and observed(fleet).backlog) and time.monotonic() < until:
        time.sleep(0.2)
    row = observed(fleet)
    assert (row.backlog, row.pollers, row.is_waiting_in_vain) == (1, 0, True)
    assert row.oldest_age is not None
    assert "Tasks wait and nobody polls" in page(client, f"workers/workerqueue/{fleet.queue.pk}/change/")
    assert "1 worker queue in which tasks wait and nobody polls" in attention(client)
    assert "1, nobody polls" in page(client, "workers/workerqueue/?temporal=waiting")
    told = figures()
    assert (told["queue_backlog"], told["queue_pollers workflow"]) == (1, 0)
    assert told["queue_oldest_task_seconds"] > 0
    metrics = read(fleet_reader(fleet), "worker-queues/{queue}/metrics")
    assert (metrics["tasks_pending"], metrics["task_queue_backlog"], metrics["task_queue_pollers"]) == (1, 1, 0)
