"""Starts: of a worker by its id, of a new worker in a queue; each on record before a secret leaves."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import models
from django.utils.text import slugify

from environments.configuration import Sections
from environments.encryption import Secret
from environments.models import Environment
from environments.statements import Insert, Parameter, Select, Update, pipelined_transaction
from workers.access import KeyOutOfScopeError, UnknownObjectError, name_within, permit
from workers.authentication import PresentedKey
from workers.configuration import (
    WorkerConfiguration,
    open_configuration,
    revision_of,
    sections_of,
    show_configuration,
)
from workers.lifecycle.process import Client, Process
from workers.models import LIVE, ApiKey, DuplicatePolicy, Worker, WorkerInstance, WorkerQueue, WorkerStart
from workers.models.instances import SUPERSEDED, live_in_queue

logger = logging.getLogger(__name__)

#: The queue that a registering worker joins.
DEFAULT_QUEUE = "default"
REPEATED = "repeated start"
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

    @property
    def process(self) -> Process:
        return Process.of(self.system_info, self.client)


_ID = Parameter("id", models.UUIDField())
_WORKER_ID = Parameter("worker_id", models.UUIDField())
_ORGANIZATION_ID = Parameter("organization_id", models.CharField())
_NOW = Parameter("now", models.DateTimeField())
_WORKER = Select(
    lambda: (
        Worker.objects.with_chain()
        .select_for_update(of=("self",), no_key=True)
        .filter(pk=_ID, organization=_ORGANIZATION_ID)
        .order_by()
    )
)
_QUEUE = Select(lambda: WorkerQueue.objects.with_chain().filter(pk=_ID, organization=_ORGANIZATION_ID).order_by())
_CURRENT = Select(
    lambda: WorkerInstance.objects.filter(worker=_WORKER_ID, is_current=True).with_liveness(_NOW).order_by()
)
_LOCK_QUEUE = Select(lambda: WorkerQueue.objects.filter(pk=_ID).select_for_update(no_key=True).order_by())
_LOAD_OF_QUEUE: Select[Any] = Select(
    lambda: WorkerQueue.objects.filter(pk=_ID).annotate(live=live_in_queue(_NOW)).order_by()
)
_RETIRE = Update(lambda: WorkerInstance.objects.filter(pk=_ID), is_current=False, queue=None)
_RETIRE_REPEATED = Update(
    lambda: WorkerInstance.objects.filter(pk=_ID), is_current=False, queue=None, stopped_at=_NOW, stop_reason=REPEATED
)
_END_ALL = Update(
    lambda: WorkerInstance.objects.filter(worker=_WORKER_ID, stopped_at=None), stopped_at=_NOW, stop_reason=SUPERSEDED
)
_NEW_WORKER, _START, _INSTANCE = Insert(Worker), Insert(WorkerStart), Insert(WorkerInstance)


def start_worker(worker_id: UUID, attempt: Attempt) -> WorkerConfiguration[Secret]:
    """Records the start of a worker and returns its complete configuration with opened credentials.

    The record is committed when this returns, so no secret leaves without one. Starts of one worker take turns; starts
    of different workers do not wait for each other, unless their queue has a limit to keep.
    """
    with _transaction():
        attempt.key.ask()
        found = _WORKER(id=worker_id, organization_id=attempt.key.organization_id)
        current = _CURRENT(worker_id=worker_id, now=attempt.now)  # read when the worker is locked
        worker = permit(found.first(), attempt.api_key)
        _require_startable(worker)
        predecessor = _make_way(worker, current.first(), attempt)
        if not predecessor.has_place:
            _require_capacity(worker, attempt.now)
        configuration = _start(worker, predecessor, attempt)
    _warn_of_expiry(attempt)
    return configuration


def start_in_queue(queue_id: UUID, attempt: Attempt) -> Started:
    """Makes an ephemeral worker in a queue and starts it."""
    with _transaction():
        attempt.key.ask()
        found = _QUEUE(id=queue_id, organization_id=attempt.key.organization_id)
        started = _start_ephemeral(permit(found.first(), attempt.api_key), attempt)
    _warn_of_expiry(attempt)
    return started


def register_worker(environment_name: str, attempt: Attempt) -> Started:
    """The same in the queue `default` of an environment, given as `environment` or `organization.environment`."""
    with _transaction():
        started = _start_ephemeral(_default_queue(environment_name, attempt.api_key), attempt)
    _warn_of_expiry(attempt)
    return started


def _transaction() -> AbstractContextManager[None]:
    """Compiles before it what takes longest: others wait for its locks, on SQLite from its first statement on."""
    _LOAD_OF_QUEUE.prepare()
    return pipelined_transaction()


def _require_startable(worker: Worker) -> None:
    if worker.is_disabled:
        msg = "This worker is disabled."
        raise WorkerDisabledError(msg)
    _require_open(worker.queue)
    if worker.is_draining:
        msg = "This worker is draining: it does not start again."
        raise StartRefusedError(msg)


def _default_queue(environment_name: str, api_key: ApiKey) -> WorkerQueue:
    name = name_within(environment_name, api_key.organization_id)
    environment = Environment.objects.filter(organization=api_key.organization_id, name=name).first()
    if environment is None:
        raise UnknownObjectError
    queue = WorkerQueue.objects.with_chain().filter(environment=environment, name=DEFAULT_QUEUE).first()
    if not api_key.covers(queue or environment):
        raise KeyOutOfScopeError
    if queue is None:
        msg = f"This environment has no worker queue named {DEFAULT_QUEUE}."
        raise StartRefusedError(msg)
    return queue


def _require_open(queue: WorkerQueue) -> None:
    if queue.is_disabled:
        msg = "This worker's queue is disabled."
        raise StartRefusedError(msg)
    if queue.is_draining:
        msg = "This worker's queue is draining: nothing new starts."
        raise StartRefusedError(msg)


def _require_capacity(worker: Worker, now: datetime) -> None:
    """Counts the queue's live instances; where there is a limit, one start at a time gets here."""
    if worker.queue.max_workers is None:
        return
    _LOCK_QUEUE(id=worker.queue_id)
    queue = _LOAD_OF_QUEUE(id=worker.queue_id, now=now).first()
    if queue and queue.max_workers is not None and queue.live >= queue.max_workers:
        msg = f"This worker's queue is full: it takes {queue.max_workers} live workers."
        raise StartRefusedError(msg)


@dataclass(frozen=True)
class _Predecessor:
    """What a start has to know of the worker's instances before: the one still live, and whether any may come back."""

    displaced_id: UUID | None = None
    is_contested: bool = False
    #: Whether the worker was live already, so that a restart needs no further place in a full queue.
    has_place: bool = False


def _make_way(worker: Worker, previous: WorkerInstance | None, attempt: Attempt) -> _Predecessor:
    """Retires the worker's current instance; StartRefusedError when it is live and the queue rejects duplicates.

    A process that starts twice, since the answer to its first start was lost, is no duplicate of itself.
    """
    if previous is None:
        return _Predecessor()
    is_repeated = previous.stopped_at is None and attempt.process.is_certainly(previous)
    is_rival = previous.liveness in LIVE and not is_repeated
    policy = worker.queue.duplicate_policy
    if is_rival and policy == DuplicatePolicy.REJECT:
        msg = "Another process of this worker is online, and its queue rejects a second one."
        raise StartRefusedError(msg)
    if is_repeated:
        _RETIRE_REPEATED(id=previous.pk, now=attempt.now)
    else:
        _RETIRE(id=previous.pk)
    if policy == DuplicatePolicy.TAKE_OVER and not is_repeated:
        _END_ALL(worker_id=worker.pk, now=attempt.now)
    may_come_back = previous.is_contested or (previous.stopped_at is None and not is_repeated)
    return _Predecessor(previous.pk if is_rival else None, may_come_back, previous.liveness in LIVE)


def _start_ephemeral(queue: WorkerQueue, attempt: Attempt) -> Started:
    _require_open(queue)
    worker = Worker(
        organization=queue.organization,
        queue=queue,
        name=_ephemeral_name(attempt.process.hostname),
        is_ephemeral=True,
        created_at=attempt.now,
    )
    _require_capacity(worker, attempt.now)
    _NEW_WORKER(**{name: value for name, value in vars(worker).items() if name != "_state"})
    return Started(worker, _start(worker, _Predecessor(), attempt))


def _ephemeral_name(hostname: str) -> str:
    """The host, so that a person knows where it runs, and random digits, since a host may run many."""
    host = slugify(hostname).replace("_", "-")[:HOST_IN_NAME].strip("-")
    return f"{host or 'worker'}-{uuid4().hex[:12]}"


def _start(worker: Worker, predecessor: _Predecessor, attempt: Attempt) -> WorkerConfiguration[Secret]:
    """Opens what the worker is given, and writes the start and its instance."""
    sections = sections_of(worker)
    shown = show_configuration(worker, sections)
    configuration = open_configuration(shown, worker, sections)
    known = {
        "id": uuid4(),
        "organization_id": worker.organization_id,
        "worker_id": worker.pk,
        "api_key_id": attempt.api_key.pk,
        "started_at": attempt.now,
        "client_address": attempt.client.address,
        "configuration_revision": revision_of(shown),
    }
    _START(
        **known,
        worker_name=worker.name,
        task_queue_name=shown.task_queue_name,
        user_agent=attempt.client.user_agent,
        system_info=attempt.system_info,
        displaced_instance_id=predecessor.displaced_id,
        **_given_by(sections),
    )
    process = attempt.process
    _INSTANCE(
        **known,
        queue_id=worker.queue_id,
        is_contested=predecessor.is_contested,
        hostname=process.hostname,
        pid=process.pid,
        last_heartbeat_at=attempt.now,
    )
    return configuration


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
