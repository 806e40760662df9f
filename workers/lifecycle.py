"""The life of a worker: its start and the record of it."""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from environments.configuration import Sections
from environments.encryption import Secret
from workers.configuration import (
    WorkerConfiguration,
    open_configuration,
    revision_of,
    sections_of,
    show_configuration,
)
from workers.models import ApiKey, Worker, WorkerInstance, WorkerStart

logger = logging.getLogger(__name__)


class UnknownWorkerError(Exception):
    """No worker of this id in the key's organization; whether another organization has it is not told."""


class KeyOutOfScopeError(Exception):
    """The API key is of the worker's organization, but not for this worker."""


class WorkerDisabledError(Exception):
    """A person disabled the worker."""


class QueueDisabledError(Exception):
    """A person disabled the worker's queue."""


@dataclass(frozen=True)
class Client:
    """Where a request comes from."""

    address: str | None
    user_agent: str


def start_worker(
    worker_id: UUID, *, api_key: ApiKey, system_info: dict[str, Any], client: Client, now: datetime
) -> WorkerConfiguration[Secret]:
    """Records the start of a worker and returns its complete configuration with opened credentials.

    The record is committed when this returns, so no secret leaves without one. Starts of one worker take turns; starts
    of different workers do not wait for each other.
    """
    with transaction.atomic(durable=True):
        worker = _worker_to_start(worker_id, api_key)
        sections = sections_of(worker)
        configuration = open_configuration(worker, sections)
        start = _record_start(worker, sections, api_key=api_key, system_info=system_info, client=client, now=now)
        _open_instance(start)
    if (days := api_key.expiry_warning(now)) is not None:
        logger.warning("API key %s (%s) expires within %d days", api_key.pk, api_key.name, days)
    return configuration


def _worker_to_start(worker_id: UUID, api_key: ApiKey) -> Worker:
    workers = Worker.objects.within(api_key).with_chain().select_for_update(of=("self",), no_key=True)
    try:
        worker = workers.get(pk=worker_id)
    except Worker.DoesNotExist:
        raise UnknownWorkerError from None
    if not api_key.covers(worker):
        raise KeyOutOfScopeError
    if worker.is_disabled:
        msg = "This worker is disabled."
        raise WorkerDisabledError(msg)
    if worker.queue.is_disabled:
        msg = "This worker's queue is disabled."
        raise QueueDisabledError(msg)
    return worker


def _record_start(  # noqa: PLR0913  # a start has these parts; each is named at the call
    worker: Worker,
    sections: Sections,
    *,
    api_key: ApiKey,
    system_info: dict[str, Any],
    client: Client,
    now: datetime,
) -> WorkerStart:
    temporal, litellm, telemetry = sections.temporal.require(), sections.litellm.require(), sections.telemetry.row
    return WorkerStart.objects.create(
        organization_id=worker.organization_id,
        worker=worker,
        api_key=api_key,
        started_at=now,
        worker_name=worker.name,
        task_queue_name=worker.queue.task_queue_name,
        client_address=client.address,
        user_agent=client.user_agent,
        system_info=system_info,
        configuration_revision=revision_of(show_configuration(worker, sections)),
        temporal_connection_id=temporal.pk,
        temporal_api_key_version=temporal.api_key_version,
        litellm_connection_id=litellm.pk,
        litellm_api_key_version=litellm.api_key_version,
        telemetry_settings_id=telemetry.pk if telemetry else None,
    )


def _open_instance(start: WorkerStart) -> None:
    """Makes the start's instance the worker's current one, in place of the one before."""
    WorkerInstance.objects.filter(worker=start.worker_id, is_current=True).update(is_current=False)
    WorkerInstance.objects.create(
        id=start.pk,
        organization_id=start.organization_id,
        worker_id=start.worker_id,
        started_at=start.started_at,
        last_heartbeat_at=start.started_at,
    )
