"""The configuration that one worker is given: the contract's 17 fields, and the revision that names them."""

import hashlib
import json
from dataclasses import dataclass

from django.conf import settings

from environments.connections.levels import REQUIRED, ConfigurationIncompleteError, Layer, Level, Sections, resolve
from environments.encryption import Secret
from environments.models import DataKey, TelemetrySettings
from environments.sealing.data_keys import open_api_key
from workers.models import Worker, WorkerQueue

#: A worker's chain, the narrowest level first.
LEVELS = (Level.WORKER, Level.QUEUE, Level.ENVIRONMENT, Level.ORGANIZATION)
#: Of workers for which no level sets any.
_DEFAULTS = TelemetrySettings()


@dataclass(frozen=True)
class WorkerConfiguration[Credential]:
    """The fields of the contract's WorkerConfigResponse, in its order; credentials as Secret or as fingerprint."""

    worker_id: str
    worker_queue_name: str
    environment_name: str
    task_queue_name: str
    temporal_namespace: str
    temporal_host: str
    temporal_api_key: Credential
    organization_id: str
    control_plane_url: str
    heartbeat_interval: int
    litellm_api_url: str
    litellm_api_key: Credential
    otel_enabled: bool
    otel_exporter_otlp_endpoint: str | None
    otel_service_name: str
    otel_traces_sampler: str
    otel_traces_sampler_arg: float | None


def sections_of(worker: Worker) -> Sections:
    """Which level wins each section for a worker loaded with `with_chain`."""
    holders = (worker, worker.queue, worker.queue.environment, worker.organization)
    return resolve([Layer(level, holder) for level, holder in zip(LEVELS, holders, strict=True)])


def show_configuration(worker: Worker, sections: Sections) -> WorkerConfiguration[str]:
    """What the worker is given, with fingerprints instead of credentials; opens nothing.

    ConfigurationIncompleteError when a section is missing.
    """
    temporal, litellm = sections.temporal.require(), sections.litellm.require()
    telemetry = sections.telemetry.row or _DEFAULTS
    return WorkerConfiguration(
        worker_id=str(worker.pk),
        worker_queue_name=worker.queue.name,
        environment_name=worker.queue.environment.name,
        task_queue_name=worker.queue.task_queue_name,
        temporal_namespace=temporal.namespace,
        temporal_host=temporal.host,
        temporal_api_key=temporal.shown_fingerprint,
        organization_id=worker.organization_id,
        control_plane_url=settings.CONTROL_PLANE_URL,
        heartbeat_interval=worker.queue.heartbeat_interval,
        litellm_api_url=litellm.api_url,
        litellm_api_key=litellm.shown_fingerprint,
        otel_enabled=telemetry.otel_enabled,
        otel_exporter_otlp_endpoint=telemetry.otel_exporter_otlp_endpoint or None,
        otel_service_name=telemetry.otel_service_name,
        otel_traces_sampler=str(telemetry.otel_traces_sampler),
        otel_traces_sampler_arg=telemetry.otel_traces_sampler_arg,
    )


def open_configuration(
    shown: WorkerConfiguration[str], sections: Sections, data_key: DataKey | None
) -> WorkerConfiguration[Secret]:
    """The same with the credentials opened; CannotOpenError when one does not open.

    `data_key` is the organization's active one, if there is any.
    """
    opened = {
        "temporal_api_key": open_api_key(sections.temporal.require(), data_key=data_key),
        "litellm_api_key": open_api_key(sections.litellm.require(), data_key=data_key),
    }
    return WorkerConfiguration(**{**vars(shown), **opened})


def revision_of(configuration: WorkerConfiguration[str], queue: WorkerQueue) -> str:
    """12 hexadecimal digits that change exactly when what a worker is given changes, a rotated secret included.

    Computed from fingerprints, so it reveals no secret; without the worker's id, so that workers which are given the
    same have the same revision. The settings of the queue and its environment, which the command line applies when it
    starts a worker, are part of it.
    """
    given = {name: value for name, value in vars(configuration).items() if name != "worker_id"}
    settings_hashes = [queue.settings_hash, queue.environment.settings_hash]
    if any(settings_hashes):
        given["settings"] = settings_hashes
    return _digest(json.dumps(given, sort_keys=True, separators=(",", ":")))


def revision_or_reason(worker: Worker) -> tuple[str, str]:
    """The revision of what the worker would be given now and "", or "" and what is missing for it.

    The worker has to be loaded with its chain.
    """
    try:
        return revision_of(show_configuration(worker, sections_of(worker)), worker.queue), ""
    except ConfigurationIncompleteError as error:
        return "", str(error)


def revision_for(worker: Worker) -> str:
    """The same revision; while something is missing, it names that."""
    revision, reason = revision_or_reason(worker)
    return revision or _digest(reason)


def missing_in(revision: str) -> str:
    """What is missing where `revision_for` gave this revision, so that a start would be refused; "" if nothing is."""
    return _MISSING.get(revision, "")


def is_outdated(running: str, now: str) -> bool:
    """Whether a start would give something else than a process runs with; `now` is what `revision_for` gives.

    Not where the start would be refused, for then a restart would lose the process; nor where either is unknown ("").
    """
    return bool(running and now) and running != now and not missing_in(now)


def revision_of_queue(queue: WorkerQueue) -> str:
    """The revision of what any worker of the queue is given that has no connections of its own.

    The queue has to be loaded with its chain.
    """
    return revision_for(Worker(queue=queue, organization=queue.organization))


def lacking(name: str) -> str:
    """What is missing where no level points to a connection of this name."""
    return f"no {name} connection at any level"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


#: What the revisions of incomplete configurations name.
_MISSING = {_digest(str(ConfigurationIncompleteError(name, LEVELS))): lacking(name) for name in REQUIRED}
