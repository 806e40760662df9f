"""What a document is applied to: the rows of its organizations, read once and changed in memory."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from environments.models import Connection, DataKey, Environment, Organization
from environments.models.connections import VERIFICATION
from workers.configuration.effective import revision_for, revision_of_queue
from workers.configuration.revisions import Given, Group, group_of
from workers.fleet.kinds import CONNECTIONS, ENVIRONMENT, ORGANIZATION, WORKER, WORKER_QUEUE, Kind, Row
from workers.models import Worker, WorkerQueue
from workers.models.states import HasState

#: What lies in an organization before what it lies in, which is the order of a start's locks, too.
KINDS = (WORKER, WORKER_QUEUE, ENVIRONMENT, *CONNECTIONS.values(), ORGANIZATION)
KIND_OF: dict[type[Any], Kind] = {kind.model: kind for kind in KINDS}
#: The columns that are read of each model's rows, each row with its id in front.
COLUMNS: dict[type[Any], tuple[str, ...]] = {
    kind.model: tuple(field.attname for field in kind.model._meta.concrete_fields) for kind in KINDS
}

#: Of each model the columns of its rows, by their ids.
type Rows = dict[type[Any], dict[Any, tuple[Any, ...]]]


class StaleError(Exception):
    """What was read is no longer so: the run has to start over."""


def read_rows(organizations: Collection[str]) -> Rows:
    """All that a document may name in the organizations, and their data keys; a row before what it lies in."""
    rows: Rows = {}
    for kind in KINDS:
        within = {"pk__in" if kind is ORGANIZATION else "organization__in": organizations}
        found = kind.model._base_manager.filter(**within).order_by("pk")
        rows[kind.model] = {row[0]: row for row in found.values_list("pk", *COLUMNS[kind.model])}
    keys = DataKey.objects.filter(active_for__in=organizations).order_by("pk")
    rows[DataKey] = {row[0]: row for row in keys.values_list("pk", "active_for_id")}
    return rows


def told_apart(rows: Rows, *, touched: Collection[Any]) -> Rows:
    """The rows as far as somebody else's change of them would matter to a run that touches these ids.

    Ephemeral workers come and go with starts.
    """
    ephemeral = COLUMNS[Worker].index("is_ephemeral") + 1
    compared = {model: {pk: settled(model, row) for pk, row in found.items()} for model, found in rows.items()}
    compared[Worker] = {pk: row for pk, row in compared[Worker].items() if pk in touched or not row[ephemeral]}
    return compared


def settled(model: type[Any], row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row without what a verification writes, which says nothing of what is configured."""
    if not issubclass(model, Connection):
        return row
    return (
        row[0],
        *(value for name, value in zip(COLUMNS[model], row[1:], strict=True) if name not in VERIFICATION),
    )


class Fleet:
    """The rows of some organizations as objects that refer to each other; nothing here asks or changes the database."""

    def __init__(self, basis: Rows, now: datetime) -> None:
        self.basis = basis
        self.rows: dict[type[Any], dict[Any, Any]] = {kind.model: _objects(kind, basis) for kind in KINDS}
        self._places: dict[Any, tuple[type[Any], Any, str]] = {}
        self._below: dict[tuple[type[Any], Any], dict[str, Any]] = defaultdict(dict)
        try:
            for row in self:
                self._link(row)
                self.put(row)
                if isinstance(row, HasState):
                    row.forget_ended(now)
        except KeyError:  # somebody made or deleted it between two of the statements that read
            raise StaleError from None

    def __iter__(self) -> Iterator[Any]:
        """All rows."""
        for rows in self.rows.values():
            yield from rows.values()

    def _link(self, row: Any) -> None:
        if isinstance(row, Worker):
            row.queue = self.rows[WorkerQueue][row.queue_id]
        if isinstance(row, WorkerQueue):
            row.environment = self.rows[Environment][row.environment_id]
        if not isinstance(row, Organization):
            row.organization = self.rows[Organization][row.organization_id]
        for pointer in KIND_OF[type(row)].pointers:
            if (target_id := getattr(row, f"{pointer}_id")) is not None:
                setattr(row, pointer, self.rows[row._meta.get_field(pointer).related_model][target_id])

    def put(self, row: Row) -> None:
        """Adds a row, or puts one that was renamed or moved where it is now."""
        if row.pk in self._places:
            self.drop(row)
        self._places[row.pk] = place = _place_of(row)
        self._below[place[:2]][place[2]] = row
        self.rows[type(row)][row.pk] = row

    def drop(self, row: Row) -> None:
        """Takes a row out."""
        place = self._places.pop(row.pk)
        del self._below[place[:2]][place[2]]
        del self.rows[type(row)][row.pk]

    def below(self, kind: Kind, parent: Row) -> dict[str, Row | None]:
        """The rows of a kind right below another, by name."""
        return dict(self._below[kind.model, parent.pk])

    def namesake(self, row: Row) -> Row | None:
        """Another row that has this one's name in its place."""
        found: Row | None = self._below[_place_of(row)[:2]].get(_place_of(row)[2])
        return None if found is row else found

    def given(self) -> dict[UUID, Given]:
        """What every worker is given, and what every queue would give to a worker that it makes."""
        revisions = {Group(row.pk): revision_of_queue(row) for row in self.rows[WorkerQueue].values()}
        given = {group.queue_id: Given(group.queue_id, revision) for group, revision in revisions.items()}
        for worker in self.rows[Worker].values():
            if (group := group_of(worker)) not in revisions:
                revisions[group] = revision_for(worker)
            given[worker.pk] = Given(worker.queue_id, revisions[group])
        return given

    def disabled(self) -> set[UUID]:
        """The workers whose processes are told to end."""
        return {row.pk for row in self.rows[Worker].values() if row.is_disabled or row.queue.is_disabled}

    def referrers(self, organization_id: str) -> dict[Any, dict[type[Any], int]]:
        """By the id of each row of an organization how many rows of which model refer to it."""
        counts: dict[Any, dict[type[Any], int]] = defaultdict(lambda: defaultdict(int))
        for row in self:
            if row.organization_id == organization_id:
                for target_id in targets_of(row):
                    counts[target_id][type(row)] += 1
        return counts


def targets_of(row: Row) -> list[Any]:
    """The ids of the rows that a row refers to, but for its organization."""
    kind = KIND_OF[type(row)]
    names = [*kind.pointers, *[kind.parent] * (kind.parent not in {"", "organization"})]
    return [target_id for name in names if (target_id := getattr(row, f"{name}_id")) is not None]


def _place_of(row: Row) -> tuple[type[Any], Any, str]:
    """Its model, the id of what it is in, and its name there."""
    kind = KIND_OF[type(row)]
    return kind.model, getattr(row, f"{kind.parent}_id") if kind.parent else None, getattr(row, kind.key)


def _objects(kind: Kind, basis: Rows) -> dict[Any, Any]:
    names = COLUMNS[kind.model]
    return {pk: kind.model.from_db("default", names, row[1:]) for pk, row in basis[kind.model].items()}
