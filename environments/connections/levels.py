"""The effective configuration: which level's connection wins each section; knows nothing of HTTP."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from django.db.models import F
from django.db.models.functions import Coalesce

from environments.models import HasConnections, LiteLLMConnection, TelemetrySettings, TemporalConnection
from environments.models.connections import CONNECTION_KINDS, CONNECTION_POINTERS, CREDENTIAL_KINDS

#: What each section is called, by the pointer that levels have to its connection, in the order of `Sections`.
SECTIONS = {kind.POINTER: kind.SECTION for kind in CONNECTION_KINDS}

#: The sections that every worker needs.
REQUIRED_POINTERS = tuple(kind.POINTER for kind in CREDENTIAL_KINDS)
REQUIRED = tuple(SECTIONS[pointer] for pointer in REQUIRED_POINTERS)


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
    """One section of the configuration: the row that wins, if any, and what it was chosen from."""

    name: str
    searched: tuple[Level, ...]
    row: Row | None
    #: From the narrowest level to the widest; the first one wins. None where the database chose (`winning_id`).
    candidates: tuple[Candidate[Row], ...] = ()

    @property
    def winner(self) -> Candidate[Row] | None:
        return self.candidates[0] if self.candidates else None

    def require(self) -> Row:
        """The winning connection; ConfigurationIncompleteError when no level points to one."""
        if self.row is None:
            raise ConfigurationIncompleteError(self.name, self.searched)
        return self.row


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
    found = {pointer: _candidates(pointer, layers) for pointer in CONNECTION_POINTERS}
    rows = {pointer: candidates[0].row if candidates else None for pointer, candidates in found.items()}
    return sections(tuple(layer.level for layer in layers), rows, found)


def winning_id(pointer: str, levels: Iterable[str]) -> str:
    """The same rule in SQL: the id that wins, of tables named for the levels, the narrowest first."""
    return f"COALESCE({', '.join(f'{level}.{pointer}_id' for level in levels)})"


def winning(pointer: str, lookups: Iterable[str]) -> Coalesce:
    """The same rule for a query: the id that wins, of rows that these lookup prefixes lead to, the narrowest first."""
    return Coalesce(*(F(f"{lookup}{pointer}_id") for lookup in lookups))


def sections(
    searched: tuple[Level, ...],
    rows: Mapping[str, Any],
    candidates: Mapping[str, tuple[Candidate[Any], ...]] = MappingProxyType({}),
) -> Sections:
    """The sections with the rows that won, by the pointers that led to them."""
    return Sections(
        *(Section(name, searched, rows[pointer], candidates.get(pointer, ())) for pointer, name in SECTIONS.items())
    )


def _candidates(pointer: str, layers: Sequence[Layer]) -> tuple[Candidate[Any], ...]:
    return tuple(
        Candidate(layer.level, layer.holder, row)
        for layer in layers
        if (row := getattr(layer.holder, pointer)) is not None
    )
