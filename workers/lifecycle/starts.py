"""Starts: of a worker by its id, of a new worker in a queue; each on record before a secret leaves."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from typing import Any, cast
from uuid import UUID, uuid4

from django.db import IntegrityError, connection, models, transaction
from django.utils.text import slugify

from environments.connections.levels import Sections
from environments.database.joint_statements import Together
from environments.database.statements import Insert, Parameter, Select, Update, found_alone
from environments.encryption import Secret
from workers.api_keys.presented import PresentedKey
from workers.configuration.effective import WorkerConfiguration, open_configuration, revision_of, show_configuration
from workers.lifecycle.circumstances import (
    Circumstances,
    circumstances_of_queue,
    circumstances_of_worker,
    writing_for_queue,
    writing_for_worker,
)
from workers.lifecycle.decisions import refusal_of, refusal_of_start
from workers.lifecycle.process import SUCCEEDED, SUCCEEDED_ALONE, Client, Process
from workers.models import ApiKey, DuplicatePolicy, State, Worker, WorkerInstance, WorkerQueue, WorkerStart
from workers.models.instances import SUPERSEDED, InstanceQuerySet, live_in_queue

logger = logging.getLogger(__name__)

#: The stop reasons of what a later start has ended; a process that starts again itself has missed its first answer.
REPEATED, RESTARTED = "repeated start", "restarted"
#: Of a name with at most 63 characters, what is left for the host beside the random part.
HOST_IN_NAME = 48


class WorkerDisabledError(Exception):
    """A person disabled the worker."""


class StartRefusedError(Exception):
    """The worker's queue, or its own state, does not allow a start at the moment; the message says why."""


@dataclass(frozen=True)
class Started:
    """A worker that a start has made, and what it is given."""

    worker: Worker
    configuration: WorkerConfiguration[Secret]


@dataclass(frozen=True)
class Attempt:
    """Who wants to start, with which key, from where, when, and what it tells of its machine."""

    key: PresentedKey
    system_info: dict[str, Any]
    client: Client
    now: datetime

    @property
    def api_key(self) -> ApiKey:
        """The key's row; 401 when there is no usable one."""
        return self.key.row

    @cached_property
    def process(self) -> Process:
        return Process.of(self.system_info, self.client)


_ID = Parameter("id", models.UUIDField())
_WORKER_ID = Parameter("worker_id", models.UUIDField())
_NOW = Parameter("now", models.DateTimeField())
_LOCK_WORKER = Select(lambda: Worker.objects.filter(pk=_ID).select_for_update(no_key=True).only("id").order_by())
_LOCK_QUEUE = Select(lambda: WorkerQueue.objects.filter(pk=_ID).select_for_update(no_key=True).only("id").order_by())
#: So that its heartbeats wait, too, when a start that they have overtaken looks again.
_LOCK_PROCESS = Select(
    lambda: WorkerInstance.objects.filter(worker=_ID, is_current=True).select_for_update(no_key=True)
)
_LOAD_OF_QUEUE: Select[Any] = Select(
    lambda: WorkerQueue.objects.filter(pk=_ID).annotate(live=live_in_queue(_NOW)).order_by()
)


def _current() -> models.QuerySet[WorkerInstance]:
    """The process that a start has read, unless anything was heard of it since."""
    seen = Parameter("last_heartbeat_at", models.DateTimeField())
    return WorkerInstance.objects.filter(pk=_ID, is_current=True, last_heartbeat_at=seen)


_GONE = {"is_current": False, "queue": None}
_SUPERSEDED = {"stopped_at": _NOW, "stop_reason": SUPERSEDED, "is_superseded": True}
_RETIRE = Update(_current, _GONE, has_to_find=True)
#: What ended without a word, since the process that starts can only run after it, or is the same.
_REPLACED = {
    "stopped_at": _NOW,
    "stop_reason": Parameter("stop_reason", models.CharField()),
    "is_replaced": True,
}
_END_REPLACED, _END_SUPERSEDED = (
    Update(lambda: _current().filter(stopped_at=None), {**_GONE, **ended}, has_to_find=True)
    for ended in (_REPLACED, _SUPERSEDED)
)
_END_OLDER = Update(
    lambda: WorkerInstance.objects.filter(worker=_WORKER_ID, is_current=False, stopped_at=None), _SUPERSEDED
)
_END_OWN_OLDER = Update(
    lambda: WorkerInstance.objects.filter(SUCCEEDED, worker=_WORKER_ID, is_current=False, stopped_at=None), _REPLACED
)


def _before_in_queue() -> InstanceQuerySet:
    """The processes of ephemeral workers of a queue that the one which starts there comes after."""
    instances = WorkerInstance.objects.filter(queue=Parameter("queue_id", models.UUIDField()), is_current=True)
    is_ephemeral = found_alone(Worker.objects.filter(pk=models.OuterRef("worker"), is_ephemeral=True))
    return instances.filter(SUCCEEDED_ALONE, is_ephemeral, stopped_at=None)


_END_IN_QUEUE = Update(_before_in_queue, _REPLACED)
_BEFORE_IN_QUEUE = Select(lambda: _before_in_queue().that_live(_NOW).order_by())
#: The columns that a start and its instance have in common, and those of each alone; others have their defaults.
_COMMON = ("id", "organization_id", "worker_id", "api_key_id", "started_at", "client_address", "configuration_revision")
_NEW_WORKER = Insert(Worker, given=("id", "organization_id", "queue_id", "name", "is_ephemeral", "created_at"))
_START = Insert(
    WorkerStart,
    given=(
        *_COMMON,
        *("worker_name", "task_queue_name", "user_agent", "system_info", "displaced_instance_id"),
        *("temporal_connection_id", "temporal_api_key_version"),
        *("litellm_connection_id", "litellm_api_key_version", "telemetry_settings_id"),
    ),
)
_INSTANCE = Insert(
    WorkerInstance,
    given=(
        *dict.fromkeys((*_COMMON, *(field.name for field in fields(Process)))),
        *("queue_id", "is_contested", "heartbeat_address", "last_heartbeat_at"),
    ),
)
#: The ledger's row and the process's, which have much in common.
_ENTRIES = (_START, _INSTANCE)
#: What a start of a worker writes: what becomes of the process before, if there is one, and of older ones.
_WRITINGS: dict[tuple[Update, ...], Together] = {
    steps: writing_for_worker(*steps, _ENTRIES)
    for steps in (
        (),
        *((first,) for first in (_RETIRE, _END_REPLACED)),
        *((first, _END_OLDER) for first in (_RETIRE, _END_SUPERSEDED)),
        *((first, _END_OWN_OLDER) for first in (_RETIRE, _END_REPLACED)),
    )
}
_WRITING_OF_EPHEMERAL = writing_for_queue(_END_IN_QUEUE, _NEW_WORKER, _ENTRIES)
#: How often a start looks again when what it has read changes before it can write.
TRIES = 5


class StartContendedError(Exception):
    """What a start depends on changed each time that it was looked at."""


class _ChangedError(Exception):
    """Something that was read has changed before it could be written."""


def start_worker(worker_id: UUID, attempt: Attempt) -> WorkerConfiguration[Secret]:
    """Records the start of a worker and returns its complete configuration with opened credentials.

    The record is committed when this returns, so no secret leaves without one. What is answered was so when it was
    committed: the statement that writes compares what was read once more.
    """

    def start() -> WorkerConfiguration[Secret]:
        return _start_known(circumstances_of_worker(worker_id, attempt.key, attempt.now), attempt)

    configuration = _settled(start, worker_id, _LOCK_WORKER, _LOCK_PROCESS)
    _warn_of_expiry(attempt)
    return configuration


def start_in_queue(queue_id: UUID, attempt: Attempt) -> Started:
    """Makes an ephemeral worker in a queue and starts it."""

    def start() -> Started:
        return _start_ephemeral(circumstances_of_queue(queue_id, attempt.key, attempt.now), attempt)

    started = _settled(start, queue_id, _LOCK_QUEUE)
    _warn_of_expiry(attempt)
    return started


def _settled[Result](start: Callable[[], Result], identifier: UUID, *locks: Select[Any]) -> Result:
    """The outcome of a start: first without any lock that it would wait for, then waiting for who changes the row.

    On SQLite, whose writers take turns, there is nothing to lock.
    """
    is_shared = connection.vendor == "postgresql"
    if is_shared:
        with suppress(_ChangedError, IntegrityError):
            return start()
    for _ in range(TRIES):
        with suppress(_ChangedError, IntegrityError), transaction.atomic(durable=True):
            for lock in locks if is_shared else ():
                lock(id=identifier)
            return start()
    raise StartContendedError


def _require_startable(worker: Worker, now: datetime) -> None:
    if told := refusal_of(worker, now, State.DISABLED):
        raise WorkerDisabledError(told)
    if told := refusal_of_start(worker, now):
        raise StartRefusedError(told)


def _require_open(queue: WorkerQueue, now: datetime) -> None:
    if told := refusal_of(queue, now, State.DISABLED, State.DRAINING):
        raise StartRefusedError(told)


@dataclass(frozen=True)
class _Succession:
    """What becomes of the worker's process before: the steps that write it, each with its parameters."""

    steps: tuple[Update, ...] = ()
    parameters: tuple[dict[str, Any], ...] = ()
    displaced_id: UUID | None = None
    #: Whether any process before may come back.
    is_contested: bool = False
    #: Whether the worker was live already, so that a restart needs no further place in a full queue.
    has_place: bool = False


def _succession(worker: Worker, found: Circumstances, attempt: Attempt) -> _Succession:
    """Makes way for a start; StartRefusedError when another process is live and the queue rejects duplicates.

    A process that starts twice, since the answer to its first start was lost, is no duplicate of itself.
    """
    previous, process = found.process, attempt.process
    if previous is None:
        return _Succession()
    is_live = found.is_live(attempt.now)
    is_replaced = previous.stopped_at is None and process.succeeds(previous)
    policy = found.queue.duplicate_policy
    if is_live and not is_replaced and policy == DuplicatePolicy.REJECT:
        msg = "Another process of this worker is online, and its queue rejects a second one."
        raise StartRefusedError(msg)
    takes_over = policy == DuplicatePolicy.TAKE_OVER and not is_replaced
    is_contested = previous.is_contested or (previous.stopped_at is None and not is_replaced)
    first = _RETIRE
    if previous.stopped_at is None and (is_replaced or takes_over):
        first = _END_REPLACED if is_replaced else _END_SUPERSEDED
    others = (_END_OLDER,) if takes_over else (_END_OWN_OLDER,) if is_contested else ()
    known = {"id": previous.pk, "last_heartbeat_at": previous.last_heartbeat_at, "worker_id": worker.pk}
    parameters = {**known, **_replaced_by(attempt, previous)}
    return _Succession(
        steps=(first, *others),
        parameters=(parameters,) * (1 + len(others)),
        displaced_id=previous.pk if is_live and not is_replaced else None,
        is_contested=is_contested,
        has_place=is_live and (takes_over or not process.is_beside(previous)),
    )


def _replaced_by(attempt: Attempt, previous: WorkerInstance | None = None) -> dict[str, Any]:
    """The parameters that say which processes a start can only come after, and how they end."""
    process = attempt.process
    has_answer = previous is None or previous.last_heartbeat_at > previous.started_at
    is_same = previous is not None and process.is_certainly(previous)
    is_repeated = is_same and (bool(process.birth_digest) or not has_answer)
    reason = REPEATED if is_repeated else RESTARTED
    return {**process.as_parameters(), "now": attempt.now, "stop_reason": reason}


def _start_known(found: Circumstances, attempt: Attempt) -> WorkerConfiguration[Secret]:
    worker = cast("Worker", found.worker)
    _require_startable(worker, attempt.now)
    succession = _succession(worker, found, attempt)
    configuration, entries = _entries(worker, found, attempt, succession)
    writing, rows = _WRITINGS[succession.steps], (*succession.parameters, entries)
    _write(writing, (found.guard, *rows), None if succession.has_place else found.queue, attempt.now)
    return configuration


def _start_ephemeral(found: Circumstances, attempt: Attempt) -> Started:
    _require_open(found.queue, attempt.now)
    row: dict[str, Any] = {
        "id": uuid4(),
        "organization_id": found.queue.organization_id,
        "queue_id": found.queue.pk,
        "name": _ephemeral_name(attempt.process.hostname),
        "is_ephemeral": True,
        "created_at": attempt.now,
    }
    worker = Worker(**row)
    worker.queue = found.queue
    configuration, entries = _entries(worker, found, attempt, _Succession())
    replaced = {**_replaced_by(attempt), "queue_id": found.queue.pk}
    _write(_WRITING_OF_EPHEMERAL, (found.guard, replaced, row, entries), found.queue, attempt.now, replaced)
    return Started(worker, configuration)


def _write(
    writing: Together,
    rows: tuple[dict[str, Any], ...],
    queue: WorkerQueue | None,
    now: datetime,
    replaced: dict[str, Any] | None = None,
) -> None:
    """Writes if what was read still holds, and where a place in a queue is needed, if one is free.

    Places are counted one start at a time: whoever else wants one in this queue waits for it. What is `replaced`, if
    that is given, leaves its place to the start.
    """
    is_full, is_done = False, False
    if queue is None or queue.max_workers is None:
        is_done = writing(*rows)
    else:
        for statement in (writing, _LOAD_OF_QUEUE, _BEFORE_IN_QUEUE):
            statement.prepare()  # here, since it takes longer than all that is done while others wait
        with transaction.atomic(savepoint=False):
            if connection.vendor == "postgresql":
                _LOCK_QUEUE(id=queue.pk)
            live = _LOAD_OF_QUEUE(id=queue.pk, now=now)[0].live
            if live >= queue.max_workers and replaced:
                live -= len(_BEFORE_IN_QUEUE(**replaced))
            is_full = live >= queue.max_workers
            is_done = not is_full and writing(*rows)
    if queue is not None and is_full:
        msg = f"This worker's queue is full: it takes {queue.max_workers} live workers."
        raise StartRefusedError(msg)
    if not is_done:
        raise _ChangedError


def _ephemeral_name(hostname: str) -> str:
    """The host, so that a person knows where it runs, and random digits, since a host may run many."""
    host = slugify(hostname).replace("_", "-")[:HOST_IN_NAME].strip("-") or "worker"
    return f"{host}-{uuid4().hex[:12]}"


def _entries(
    worker: Worker, found: Circumstances, attempt: Attempt, succession: _Succession
) -> tuple[WorkerConfiguration[Secret], dict[str, Any]]:
    """What the worker is given, opened, and what its start and its instance say."""
    shown = show_configuration(worker, found.sections)
    configuration = open_configuration(shown, found.sections, found.data_key)
    process = attempt.process
    return configuration, {
        "id": uuid4(),
        "organization_id": worker.organization_id,
        "worker_id": worker.pk,
        "worker_name": worker.name,
        "queue_id": worker.queue_id,
        "task_queue_name": shown.task_queue_name,
        "api_key_id": attempt.api_key.pk,
        "started_at": attempt.now,
        "last_heartbeat_at": attempt.now,
        "user_agent": attempt.client.user_agent,
        "system_info": attempt.system_info,
        "heartbeat_address": process.client_address,
        "configuration_revision": revision_of(shown, worker.queue),
        "displaced_instance_id": succession.displaced_id,
        "is_contested": succession.is_contested,
        **_given_by(found.sections),
        **vars(process),
        "client_address": attempt.client.address,
    }


def _given_by(sections: Sections) -> dict[str, Any]:
    """Which connections a start is given, each with the version of its secret."""
    temporal, litellm, telemetry = sections.temporal.require(), sections.litellm.require(), sections.telemetry.row
    return {
        "temporal_connection_id": temporal.pk,
        "temporal_api_key_version": temporal.api_key_version,
        "litellm_connection_id": litellm.pk,
        "litellm_api_key_version": litellm.api_key_version,
        "telemetry_settings_id": telemetry.pk if telemetry else None,
    }


def _warn_of_expiry(attempt: Attempt) -> None:
    if (days := attempt.api_key.expiry_warning(attempt.now)) is not None:
        logger.warning("API key %s (%s) expires within %d days", attempt.api_key.pk, attempt.api_key.name, days)
