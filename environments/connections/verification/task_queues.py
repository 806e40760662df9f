"""Looks at many task queues by one connection to Temporal: who polls them, and what waits there.

Whoever imports it loads Temporal's client.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from temporalio.api.enums.v1 import WorkerStatus
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
    DescribeWorkerRequest,
    ListWorkersRequest,
)
from temporalio.service import RPCError, RPCStatusCode, WorkflowService

from environments.connections.verification.guard import Resolver, resolve_name
from environments.connections.verification.looks import POLLS_WITHIN, Look, Place, QueueLook, SeenPoller, place_in
from environments.connections.verification.outcome import TIME_LIMIT, ConnectionProblemError, Deadline
from environments.connections.verification.temporal import POLLER_KINDS, answer, shown_identity
from environments.encryption import Secret
from environments.models import TemporalConnection

#: Seconds for all calls of one connection together; what is left of it has its turn first the next time.
LONGEST_LOOK = 60.0
#: Of a namespace's list of workers, how much is read, and about how many of them more is asked.
PAGE_SIZE, MOST_PAGES, MOST_ASKED = 200, 50, 20
#: Of the pollers of one task queue, how many are looked at.
MOST_POLLERS = 10_000
#: What a server answers that has no list of workers, or none for this key.
HAS_NO_LIST = {RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.INVALID_ARGUMENT}
SLOTS = ("workflow_task_slots_info", "activity_task_slots_info")


@dataclass(frozen=True)
class Listed:
    """A worker as Temporal's own list has it: one of a process, of which there may be several."""

    key: str
    place: Place | None
    is_running: bool


@dataclass
class _Looking:
    """One look, while it lasts."""

    service: WorkflowService
    namespace: str
    clock: Callable[[], datetime]
    until: float
    #: By task queue and identity.
    listed: dict[str, dict[str, list[Listed]]] = field(default_factory=dict)
    asked: int = 0


def look_at(  # noqa: PLR0913  # what is asked of whom, and how gently
    connection: TemporalConnection,
    secret: Secret,
    names: Sequence[str],
    *,
    clock: Callable[[], datetime],
    pause: float = 0,
    is_wanted: Callable[[], bool] = lambda: True,
    resolve: Resolver = resolve_name,
) -> Look:
    """What Temporal says of the task queues, one after the other with a pause of so many seconds in between.

    Each call has three seconds; after the first that is not answered no other is made, and what was found stands.
    """
    found: dict[str, QueueLook] = {}

    async def question(service: WorkflowService) -> None:
        looking = _Looking(service, connection.namespace, clock, time.monotonic() + LONGEST_LOOK)
        await _list_workers(looking, frozenset(names))
        for name in names:
            if not is_wanted() or time.monotonic() > looking.until:
                msg = "Temporal answers too slowly: not all task queues had their turn."
                raise ConnectionProblemError(msg)
            found[name] = await _look_at_queue(looking, name)
            await asyncio.sleep(pause)

    try:
        answer(connection, secret, question, Deadline(), resolve, seconds=LONGEST_LOOK + 2 * TIME_LIMIT)
    except ConnectionProblemError as error:
        return Look(found, str(error))
    return Look(found)


async def _call[Answer](call: Callable[..., Any], request: Any) -> Any:
    async with asyncio.timeout(TIME_LIMIT):
        return await call(request, timeout=timedelta(seconds=TIME_LIMIT))


async def _look_at_queue(looking: _Looking, name: str) -> QueueLook:
    queue, answers = TaskQueue(name=name), {}
    for kind, number in POLLER_KINDS.items():
        request = DescribeTaskQueueRequest(
            namespace=looking.namespace, task_queue=queue, task_queue_type=number, report_stats=True
        )
        answers[kind] = await _call(looking.service.describe_task_queue, request)
    now = looking.clock()
    listed = looking.listed.get(name, {})
    seen = {kind: _seen(each, listed, now) for kind, each in answers.items()}
    pollers: dict[str, SeenPoller] = {}
    for each in (*seen["workflow"], *seen["activity"]):
        known = pollers.get(each.identity)
        pollers[each.identity] = each if known is None or known.polled_at < each.polled_at else known
    stats = [each.stats for each in answers.values() if each.HasField("stats")]
    ages = [each.approximate_backlog_age.ToTimedelta() for each in stats if each.approximate_backlog_count]
    return QueueLook(
        looked_at=now,
        workflow_pollers=len(seen["workflow"]),
        activity_pollers=len(seen["activity"]),
        pollers=tuple(pollers.values()),
        backlog=sum(each.approximate_backlog_count for each in stats) if stats else None,
        oldest_age=max(ages, default=None),
        full=await _full(looking, chain.from_iterable(listed.values()), pollers),
    )


def _seen(response: DescribeTaskQueueResponse, listed: Mapping[str, list[Listed]], now: datetime) -> list[SeenPoller]:
    """Those that poll: seen lately, and not known to have ended since."""
    found = []
    for poller in response.pollers[:MOST_POLLERS]:
        polled_at = poller.last_access_time.ToDatetime(UTC)
        workers = listed.get(poller.identity, ())
        if polled_at < now - POLLS_WITHIN or (workers and not any(each.is_running for each in workers)):
            continue
        places = {each.place for each in workers if each.is_running and each.place}
        if not places and (place := place_in(poller.identity)):
            places = {place}
        found.append(SeenPoller(shown_identity(poller.identity), polled_at, frozenset(places)))
    return found


async def _list_workers(looking: _Looking, names: frozenset[str]) -> None:
    """Asks for the namespace's workers where the server says that it hears of them; whoever has no list has none."""
    request = DescribeNamespaceRequest(namespace=looking.namespace)
    described = await _call(looking.service.describe_namespace, request)
    if not described.namespace_info.capabilities.worker_heartbeats:
        return
    token = b""
    try:
        for _ in range(MOST_PAGES):
            wanted = ListWorkersRequest(namespace=looking.namespace, page_size=PAGE_SIZE, next_page_token=token)
            page = await _call(looking.service.list_workers, wanted)
            for worker in page.workers:
                if worker.task_queue in names:
                    of_queue = looking.listed.setdefault(worker.task_queue, {})
                    of_queue.setdefault(worker.worker_identity, []).append(_listed(worker))
            token = page.next_page_token
            if not token:
                return
    except RPCError as error:
        if error.status not in HAS_NO_LIST:
            raise


def _listed(worker: Any) -> Listed:
    place = place_in(f"{worker.process_id}@{worker.host_name}") or place_in(worker.worker_identity)
    is_running = worker.status == WorkerStatus.WORKER_STATUS_RUNNING
    return Listed(worker.worker_instance_key, place, is_running)


async def _full(looking: _Looking, listed: Iterable[Listed], pollers: dict[str, SeenPoller]) -> frozenset[Place]:
    """Processes that run and do not poll, since all of their slots are taken; some of them are asked about."""
    polling = {place for poller in pollers.values() for place in poller.places}
    found = set()
    for worker in listed:
        if not worker.is_running or worker.place is None or worker.place in polling or looking.asked >= MOST_ASKED:
            continue
        looking.asked += 1
        request = DescribeWorkerRequest(namespace=looking.namespace, worker_instance_key=worker.key)
        try:
            described = await _call(looking.service.describe_worker, request)
        except RPCError:  # it has gone meanwhile, or the key may not ask
            continue
        slots = [getattr(described.worker_info.worker_heartbeat, name) for name in SLOTS]
        if any(each.current_used_slots and not each.current_available_slots for each in slots):
            found.add(worker.place)
    return frozenset(found)
