"""Verifies a Temporal connection and asks who polls a task queue, with Temporal's own client at a guarded address."""

import asyncio
import atexit
import functools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Literal

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    GetSystemInfoRequest,
)
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import ConnectConfig, RPCError, RPCStatusCode, ServiceClient, TLSConfig, WorkflowService

from environments.connections.verification.credentials import key_to_send
from environments.connections.verification.guard import Destination, Resolver, resolve_name
from environments.connections.verification.outcome import (
    ConnectionProblemError,
    Deadline,
    Verification,
    measured,
    printable,
)
from environments.connections.verification.reach import problem_of
from environments.connections.verification.trial import try_out
from environments.encryption import Secret
from environments.models import TemporalConnection

#: temporalio 1.35 tells a call that failed while it connects in a text that begins like this.
FAILED_CALL = re.compile(r"Failed client connect: `get_system_info` call error after connection: Status \{ code: (\w+)")
POLLER_KINDS: dict[Literal["workflow", "activity"], TaskQueueType.ValueType] = {
    "workflow": TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    "activity": TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
}
LONGEST_IDENTITY = 200

type Question[Result] = Callable[[WorkflowService], Awaitable[Result]]


@dataclass(frozen=True)
class Poller:
    """A process that polls a task queue, as Temporal knows it."""

    kind: Literal["workflow", "activity"]
    #: What the process calls itself, such as `pid@host`: at most 200 printable characters.
    identity: str
    last_access_at: datetime | None


def verify_temporal(
    connection: TemporalConnection, secret: Secret, *, resolve: Resolver = resolve_name
) -> Verification:
    """Asks for the server's version and the namespace's description."""

    async def question(service: WorkflowService) -> str:
        info = await service.get_system_info(GetSystemInfoRequest())
        await service.describe_namespace(DescribeNamespaceRequest(namespace=connection.namespace))
        return f"Temporal {info.server_version}" if info.server_version else ""

    return measured(lambda deadline: answer(connection, secret, question, deadline, resolve))


def pollers_of(
    connection: TemporalConnection, secret: Secret, task_queue_name: str, *, resolve: Resolver = resolve_name
) -> tuple[Poller, ...]:
    """Who polls a task queue, or has within the last minutes; ConnectionProblemError if Temporal does not say."""

    async def question(service: WorkflowService) -> tuple[Poller, ...]:
        found: list[Poller] = []
        for kind, number in POLLER_KINDS.items():
            queue = TaskQueue(name=task_queue_name)
            request = DescribeTaskQueueRequest(namespace=connection.namespace, task_queue=queue, task_queue_type=number)
            for poller in (await service.describe_task_queue(request)).pollers:
                seen = poller.last_access_time.ToDatetime(UTC) if poller.HasField("last_access_time") else None
                found.append(Poller(kind, shown_identity(poller.identity), seen))
        return tuple(found)

    return answer(connection, secret, question, Deadline(), resolve)


def shown_identity(text: str) -> str:
    """What is harmless of what a process calls itself."""
    return "".join(character for character in text[:LONGEST_IDENTITY] if character.isprintable())


def answer[Result](  # noqa: PLR0913  # who asks whom what, and how long it may take
    connection: TemporalConnection,
    secret: Secret,
    question: Question[Result],
    deadline: Deadline,
    resolve: Resolver,
    *,
    seconds: float = 0,
) -> Result:
    """What the server answers to a question; ConnectionProblemError if it does not.

    `seconds` are for a question of many calls, each of which has a limit of its own: it has these once it is connected.
    """
    destination = try_out(connection, deadline, resolve)
    key = key_to_send(connection, secret)
    config = _config(destination, key, is_tls=connection.is_tls_enabled)
    try:
        return asyncio.run(_ask(config, question, deadline, seconds))
    except RPCError as error:
        raise ConnectionProblemError(_problem_of(error.status, connection.namespace)) from None
    except _CannotConnectError as error:
        raise ConnectionProblemError(_connect_problem_of(error, destination, connection)) from None
    except TimeoutError as error:
        raise ConnectionProblemError(problem_of(error, destination, deadline)) from None


def _config(destination: Destination, key: str, *, is_tls: bool) -> ConnectConfig:
    """To the decided address; in TLS the server keeps its name, which an address in the URL is by itself."""
    address = destination.address
    tls = TLSConfig(domain=destination.host if isinstance(destination.host, str) else None)
    return ConnectConfig(
        target_host=f"[{address}]:{destination.port}"
        if isinstance(address, IPv6Address)
        else f"{address}:{destination.port}",
        api_key=key or None,
        tls=tls if is_tls else False,
        runtime=_runtime(),
        dns_load_balancing_config=None,
        identity="control-plane",
    )


class _CannotConnectError(Exception):
    """Temporal's client could not connect; holds the name of the gRPC status, "" if there was none."""


async def _ask[Result](config: ConnectConfig, question: Question[Result], deadline: Deadline, seconds: float) -> Result:
    async with asyncio.timeout(deadline.left()) as limit:
        try:
            client = await ServiceClient.connect(config)
        except RuntimeError as error:
            found = FAILED_CALL.match(str(error))
            raise _CannotConnectError(found[1] if found else "") from None
        if seconds:
            limit.reschedule(asyncio.get_running_loop().time() + seconds)
        try:
            return await question(client.workflow_service)
        finally:
            # It cannot be closed, and refers to itself (after an error through the traceback, too): without this it
            # would stay connected, and hold the key, until a garbage collection.
            for part in (client.worker_service_client._bridge_client, client):
                vars(part).clear()


@functools.cache
def _runtime() -> Runtime:
    """The threads of Temporal's client, which are shared: to end them after each call is not safe after a time-out.

    Silent, since its log lines would bypass ours.
    """
    return Runtime(telemetry=TelemetryConfig(logging=None), worker_heartbeat_interval=None)


# Python's own end is too late for these threads: temporalio 1.35 sometimes crashes then.
atexit.register(_runtime.cache_clear)


def _problem_of(status: RPCStatusCode, namespace: str) -> str:
    match status:
        case RPCStatusCode.UNAUTHENTICATED | RPCStatusCode.PERMISSION_DENIED:
            return f"The API key is not accepted for the namespace {printable(namespace)}."
        case RPCStatusCode.NOT_FOUND:
            return f"Temporal has no namespace {printable(namespace)}."
        case RPCStatusCode.UNIMPLEMENTED:
            return "The server speaks gRPC, but is not Temporal."
    return f"Temporal refuses the call ({status.name.lower().replace('_', ' ')})."


def _connect_problem_of(error: _CannotConnectError, destination: Destination, connection: TemporalConnection) -> str:
    match str(error):
        case "Unauthenticated" | "PermissionDenied":
            return _problem_of(RPCStatusCode.PERMISSION_DENIED, connection.namespace)
        case "Unimplemented":
            return _problem_of(RPCStatusCode.UNIMPLEMENTED, connection.namespace)
    if connection.is_tls_enabled:
        return f"{destination} does not answer as Temporal does."
    return f"{destination} does not answer as Temporal does: does it want TLS?"
