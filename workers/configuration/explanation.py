"""Each field that a worker is given: its value, the level that set it, and what wider levels would have set."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from django.conf import settings

from environments.connections.levels import Candidate, Section, Sections
from environments.models import CredentialConnection, TelemetrySettings
from workers.configuration.effective import WorkerConfiguration, sections_of
from workers.models import Worker

CREDENTIALS = ("temporal_api_key", "litellm_api_key")
#: Section -> field of the contract -> attribute of the section's connection.
SECTION_FIELDS = {
    "temporal": {"temporal_namespace": "namespace", "temporal_host": "host", "temporal_api_key": "shown_fingerprint"},
    "litellm": {"litellm_api_url": "api_url", "litellm_api_key": "shown_fingerprint"},
    "telemetry": {field.name: field.name for field in fields(WorkerConfiguration) if field.name.startswith("otel_")},
}
SECTION_OF = {name: section for section, attributes in SECTION_FIELDS.items() for name in attributes}


@dataclass(frozen=True)
class Setting[Name]:
    """What one level sets a field to, by which connection."""

    level: str
    holder: Name
    connection: Name
    row: Any
    value: str


@dataclass(frozen=True)
class Field[Name]:
    """One field of what a worker is given; without value while no level sets it that has to."""

    name: str
    value: str | None
    #: The levels that point to a connection, the narrowest first: it wins, the others are shadowed.
    settings: tuple[Setting[Name], ...] = ()
    #: Where a field comes from that no connection sets.
    origins: tuple[Name, ...] = ()
    #: What it is part of, and the levels that were looked at, while none has it.
    section: str = ""
    searched: tuple[Name, ...] = ()

    @property
    def is_credential(self) -> bool:
        return self.name in CREDENTIALS

    @property
    def winner(self) -> Setting[Name] | None:
        return self.settings[0] if self.settings else None

    @property
    def shadowed(self) -> tuple[Setting[Name], ...]:
        return self.settings[1:]


def fields_of[Name](worker: Worker, named: Callable[..., Name]) -> list[Field[Name]]:
    """The fields of the contract in its order, for a worker loaded with its chain.

    `named` makes of a row, and of a text if it is to have another one, what stands for it: a link or a text.
    """
    sections, own = sections_of(worker), _own_fields(worker, named)
    return [
        own[field.name] if field.name in own else _of_section(field.name, worker, sections, named)
        for field in fields(WorkerConfiguration)
    ]


def _own_fields[Name](worker: Worker, named: Callable[..., Name]) -> dict[str, Field[Name]]:
    """What the worker and the levels around it are by themselves, whatever they point to."""
    queue, organization = worker.queue, named(worker.organization)
    queued, staged = named(queue), named(queue.environment)
    found: tuple[Field[Name], ...] = (
        Field("worker_id", str(worker.pk), origins=(named(worker),)),
        Field("worker_queue_name", queue.name, origins=(queued,)),
        Field("environment_name", queue.environment.name, origins=(staged,)),
        Field("task_queue_name", queue.task_queue_name, origins=(organization, staged, queued)),
        Field("organization_id", worker.organization_id, origins=(organization,)),
        Field("control_plane_url", settings.CONTROL_PLANE_URL),
        Field("heartbeat_interval", _text(queue.heartbeat_interval), origins=(queued,)),
    )
    return {field.name: field for field in found}


def _of_section[Name](name: str, worker: Worker, sections: Sections, named: Callable[..., Name]) -> Field[Name]:
    section: Section[Any] = getattr(sections, SECTION_OF[name])
    found = tuple(_setting(name, candidate, named) for candidate in section.candidates)
    if found:
        return Field(name, found[0].value, settings=found, section=section.name)
    levels = (worker, worker.queue, worker.queue.environment, worker.organization)
    searched = tuple(named(row, f"{level} {row}") for level, row in zip(section.searched, levels, strict=True))
    default = _value(name, TelemetrySettings()) if SECTION_OF[name] == "telemetry" else None
    return Field(name, default, section=section.name, searched=searched)


def _setting[Name](name: str, candidate: Candidate[Any], named: Callable[..., Name]) -> Setting[Name]:
    return Setting(
        level=str(candidate.level),
        holder=named(candidate.holder),
        connection=named(candidate.row),
        row=candidate.row if isinstance(candidate.row, CredentialConnection) else None,
        value=_value(name, candidate.row),
    )


def _value(name: str, row: Any) -> str:
    value = getattr(row, SECTION_FIELDS[SECTION_OF[name]][name])
    if name in CREDENTIALS:
        return str(value)
    return _text(None if name == "otel_exporter_otlp_endpoint" and not value else value)


def _text(value: Any) -> str:
    """The value as it is on the wire, a text without quotes."""
    return str(value) if isinstance(value, str) else json.dumps(value)
