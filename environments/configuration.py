"""The effective configuration: which level's connection wins each section; knows nothing of HTTP."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from environments.models import HasConnections, LiteLLMConnection, TelemetrySettings, TemporalConnection


class Level(StrEnum):
    """Where a section may be set, the narrowest first."""

    WORKER = "worker"
    QUEUE = "worker queue"
    ENVIRONMENT = "environment"
    ORGANIZATION = "organization"


@dataclass(frozen=True)
class Layer:
    """One level of a worker's chain and the row that points to connections there."""

    level: Level
    holder: HasConnections


@dataclass(frozen=True)
class Candidate[Row]:
    """A connection that a level points to."""

    level: Level
    holder: HasConnections
    row: Row


@dataclass(frozen=True)
class Section[Row]:
    """One section of the configuration: the candidates from the narrowest level to the widest; the first one wins."""

    name: str
    searched: tuple[Level, ...]
    candidates: tuple[Candidate[Row], ...]

    @property
    def winner(self) -> Candidate[Row] | None:
        return self.candidates[0] if self.candidates else None

    @property
    def row(self) -> Row | None:
        return self.candidates[0].row if self.candidates else None

    def require(self) -> Row:
        """The winning connection; ConfigurationIncompleteError when no level points to one."""
        if not self.candidates:
            raise ConfigurationIncompleteError(self.name, self.searched)
        return self.candidates[0].row


class ConfigurationIncompleteError(Exception):
    """No level points to a connection that every worker needs."""

    def __init__(self, section: str, searched: Sequence[Level]) -> None:
        levels = ", ".join(searched)
        super().__init__(f"The configuration is incomplete: no {section} connection at any of these levels: {levels}.")


@dataclass(frozen=True)
class Sections:
    """The three sections of one worker's configuration."""

    temporal: Section[TemporalConnection]
    litellm: Section[LiteLLMConnection]
    telemetry: Section[TelemetrySettings]

    def __iter__(self) -> Iterator[Section[Any]]:
        return iter((self.temporal, self.litellm, self.telemetry))


def resolve(layers: Sequence[Layer]) -> Sections:
    """The sections as the layers, given from the narrowest to the widest, set them.

    The narrowest level that points to a connection wins the whole section; fields are never merged across levels, so
    that one level's API key can never meet another level's host.
    """
    return Sections(
        temporal=_section("Temporal", "temporal_connection", layers),
        litellm=_section("LiteLLM", "litellm_connection", layers),
        telemetry=_section("telemetry", "telemetry_settings", layers),
    )


def _section[Row](name: str, pointer: str, layers: Sequence[Layer]) -> Section[Row]:
    candidates = tuple(
        Candidate(layer.level, layer.holder, row)
        for layer in layers
        if (row := getattr(layer.holder, pointer)) is not None
    )
    return Section(name, tuple(layer.level for layer in layers), candidates)
