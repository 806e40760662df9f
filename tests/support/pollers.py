"""Processes that poll a real Temporal under names of the test's choice, and tasks that wait there."""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.utils import timezone
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest, StartWorkflowExecutionRequest
from temporalio.service import ConnectConfig, ServiceClient

from environments.connections.verification.temporal import _runtime, pollers_of, shown_identity
from environments.encryption import Secret
from environments.models import TemporalConnection
from tests.support.factories import Fleet
from tests.support.servers import TemporalServer
from workers.observation.lease import Lease
from workers.observation.sweeps import Asked, Backoff, Pass

SOON = 10.0


def connect(fleet: Fleet, host: str, namespace: str = "default") -> None:
    """Has the fleet's Temporal be this one."""
    fields = {"host": host, "namespace": namespace, "is_tls_enabled": False, "requires_api_key": False}
    TemporalConnection.objects.filter(pk=fleet.temporal.pk).update(**fields)
    fleet.temporal.refresh_from_db()


def sweep(backoff: Backoff | None = None) -> list[Asked]:
    """One pass by hand, and what became of each connection."""
    lease = Lease(timezone.now)
    assert lease.take_once()
    asked = [each for each, _ in Pass(lease, backoff or Backoff(), timezone.now).run()]
    lease.give_back()
    return asked


@contextmanager
def polling(server: TemporalServer, task_queue: str, *identities: str) -> Iterator[None]:
    """Within, processes of these names poll for activities; it begins when Temporal knows."""
    is_over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_poll(server, task_queue, identities, is_over)))
    thread.start()
    try:
        connection = TemporalConnection(host=server.host, namespace=server.namespace, is_tls_enabled=False)
        until, shown = time.monotonic() + SOON, set(map(shown_identity, identities))
        while not {p.identity for p in pollers_of(connection, Secret("-"), task_queue)} >= shown:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield
    finally:
        is_over.set()
        thread.join()


def let_a_task_wait(server: TemporalServer, task_queue: str) -> None:
    """Starts a workflow that nobody runs."""
    request = StartWorkflowExecutionRequest(
        namespace=server.namespace,
        workflow_id=str(uuid.uuid4()),
        request_id=str(uuid.uuid4()),
        workflow_type=WorkflowType(name="any"),
        task_queue=TaskQueue(name=task_queue),
    )

    async def begin() -> None:
        client = await ServiceClient.connect(ConnectConfig(server.host, runtime=_runtime()))
        await client.workflow_service.start_workflow_execution(request)
        vars(client.worker_service_client._bridge_client).clear()

    asyncio.run(begin())


async def _poll(server: TemporalServer, task_queue: str, identities: Any, is_over: threading.Event) -> None:
    client = await ServiceClient.connect(ConnectConfig(server.host, runtime=_runtime()))
    queue = TaskQueue(name=task_queue)
    polls = [
        asyncio.create_task(
            client.workflow_service.poll_activity_task_queue(
                PollActivityTaskQueueRequest(namespace=server.namespace, task_queue=queue, identity=identity)
            )
        )
        for identity in identities
    ]
    await asyncio.to_thread(is_over.wait)
    for poll in polls:
        poll.cancel()
        with suppress(asyncio.CancelledError):
            await poll
    vars(client.worker_service_client._bridge_client).clear()
