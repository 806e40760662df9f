"""Finds out what a document changes: in memory, so that nothing is locked for as long as it takes."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from environments import audit
from environments.audit import Actor
from environments.encryption import CannotOpenError
from environments.models import CredentialConnection, Organization
from environments.sealing.data_keys import DataKeyExhaustedError
from workers.configuration.impact import (
    CannotStart,
    CutOff,
    Ending,
    QueueImpact,
    cannot_start,
    compare,
    cut_off,
    ending,
)
from workers.fleet.changes import Action, Journal, fields_to_write
from workers.fleet.document import Document, Entry
from workers.fleet.errors import FleetError, Problem
from workers.fleet.kinds import CONNECTIONS, Row
from workers.fleet.prune import prune_organization
from workers.fleet.seals import Seals
from workers.fleet.state import Fleet, Rows
from workers.fleet.validation import problems_of
from workers.models import Worker, WorkerQueue
from workers.models.states import STATE_FIELDS, HasState


@dataclass
class Plan:
    """What is to be written, all of it checked and sealed, and what to tell of it."""

    basis: Rows
    journal: Journal
    seals: Seals = field(default_factory=Seals)
    #: New rows, each after those that it refers to.
    created: dict[Any, Row] = field(default_factory=dict)
    #: Changed rows by their ids in the order of the changes, and which of their fields are to be written.
    updated: dict[Any, tuple[Row, set[str]]] = field(default_factory=dict)
    deleted: dict[Any, Row] = field(default_factory=dict)
    impact: list[QueueImpact] = field(default_factory=list)
    cannot_start: list[CannotStart] = field(default_factory=list)
    cut_off: list[CutOff] = field(default_factory=list)
    ending: list[Ending] = field(default_factory=list)

    @property
    def touched(self) -> Collection[Any]:
        """The ids of the rows that are there and do not stay as they are."""
        return {*self.updated, *self.deleted} - self.created.keys()

    def update(self, row: Row, fields: Collection[str]) -> None:
        """Has the row's fields written."""
        _, before = self.updated.get(row.pk, (row, set()))
        self.updated[row.pk] = row, before | set(fields)


def make_plan(document: Document, basis: Rows, *, actor: Actor, now: datetime, prune: bool) -> Plan:
    """The plan for rows as they were read; FleetError with every problem at once when there can be none."""
    plan = Plan(basis, Journal(actor=actor, now=now))
    fleet = Fleet(basis, now)
    given, disabled = fleet.given(), fleet.disabled()
    queue_of = {worker.pk: worker.queue_id for worker in fleet.rows[Worker].values()}
    _Planner(document, fleet, plan).run(prune=prune)
    then = fleet.given()
    plan.impact = compare(given, then, now=now, queues=fleet.rows[WorkerQueue])
    plan.cannot_start = cannot_start(given, then, now=now)
    there = [row for row in fleet.rows[Worker].values() if row.pk in queue_of]
    plan.cut_off = cut_off({row.pk: row.queue for row in there if row.queue_id != queue_of[row.pk]}, now=now)
    newly = fleet.disabled() - disabled
    plan.ending = ending({row.pk: row.queue for row in there if row.pk in newly}, now=now)
    return plan


class _Planner:
    """Goes through a document once; every problem is collected, and with any there is no plan."""

    def __init__(self, document: Document, fleet: Fleet, plan: Plan) -> None:
        self.document = document
        self.fleet = fleet
        self.plan = plan
        self.journal = plan.journal
        self.journal.names |= {str(row.pk): str(getattr(row, "name", "")) for row in fleet}
        self.problems: list[Problem] = []
        #: The entry that names a row, by the row's id.
        self.named: dict[Any, Entry] = {}
        #: The current organization's connections, named in the document or not: pointer -> name -> row.
        self.connections: dict[str, dict[str, Row | None]] = {}
        #: Workers of organizations that the document does not name, but whose ids it does.
        ids = {entry.values["id"] for entry in document if entry.kind.takes_id and "id" in entry.values}
        self.foreign = Worker.objects.in_bulk(ids - fleet.rows[Worker].keys())

    def run(self, *, prune: bool) -> None:
        """Makes the plan."""
        existing = dict(self.fleet.rows[Organization])
        for entry in self.document.organizations:
            self._apply_organization(entry, existing.get(entry.key))
        if self.problems:
            raise FleetError(self.document.source, self.problems)
        if prune:
            for organization_id in sorted(existing):
                prune_organization(organization_id, named=self.named.keys(), fleet=self.fleet, plan=self.plan)

    def _apply_organization(self, entry: Entry, existing: Organization | None) -> None:
        """Stores an organization before its connections, so that it may point to them; all the same one change."""
        row = existing or Organization()
        before = audit.snapshot(row) if existing else {}
        position = len(self.journal.changes)
        self._assign(entry, row)
        if not existing and not self._store(entry, row):
            return
        self.connections = {kind.name: self._apply_list(entry, name, row) for name, kind in CONNECTIONS.items()}
        self._point(entry, row)
        changed = audit.difference(before, audit.snapshot(row))
        if changed and self._store(entry, row, changed):
            action = Action.UPDATED if existing else Action.CREATED
            self.journal.note(action, entry.kind, row, changed, position=position)
        self._apply_list(entry, "environments", row)

    def _apply_list(self, entry: Entry, name: str, parent: Row) -> dict[str, Row | None]:
        """Applies one list of an entry; all rows below the parent by name, in the list or not, None for what failed."""
        kind = entry.kind.children[name]
        rows = self.fleet.below(kind, parent)
        for child in entry.children.get(name, []):
            existing = self._named_by_id(child) or rows.get(child.key)
            if message := _mistaken_identity(child, existing, parent):
                self.problems.append(child.problem(message, "id"))
            else:
                rows[child.key] = self._apply_entry(child, existing, parent)
        return rows

    def _named_by_id(self, entry: Entry) -> Row | None:
        wanted = entry.values.get("id")
        return self.fleet.rows[Worker].get(wanted) or self.foreign.get(wanted) if entry.kind.takes_id else None

    def _apply_entry(self, entry: Entry, existing: Row | None, parent: Row) -> Row | None:
        """The row as the entry has it, and all below; None when there is no such row because of a problem."""
        organization = parent if isinstance(parent, Organization) else parent.organization
        row: Any = existing or entry.kind.model(organization=organization)
        before = audit.snapshot(row) if existing else {}
        setattr(row, entry.kind.parent, parent)
        self._assign(entry, row)
        self._claim(entry, row)
        self._point(entry, row)
        self._seal(entry, row)
        changed = audit.difference(before, audit.snapshot(row))
        if changed and self._store(entry, row, changed if existing else None):
            self.journal.note(Action.UPDATED if existing else Action.CREATED, entry.kind, row, changed)
        elif not existing:
            return None
        self._tell_ended(entry, row)
        for name in entry.kind.children:
            self._apply_list(entry, name, row)
        return cast("Row", row)

    def _claim(self, entry: Entry, row: Row) -> None:
        other = self.named.setdefault(row.pk, entry)
        if other is not entry:
            self.problems.append(entry.problem(f"is the same {entry.kind.words} as in line {other.line}"))

    def _assign(self, entry: Entry, row: Row) -> None:
        decided = _decided(row)
        for name, value in entry.values.items():
            setattr(row, name, value)
        if isinstance(row, HasState):
            if _decided(row) != decided:  # of another decision, the reason and the end are other ones, or none
                row.state_reason, row.state_ends_at = "", None
                for name in STATE_FIELDS & entry.values.keys():
                    setattr(row, name, entry.values[name])
            row.forget_ended(self.journal.now)

    def _tell_ended(self, entry: Entry, row: Row) -> None:
        """A document may go on to say what has ended meanwhile; a year that is mistyped shows here."""
        until = entry.values.get("state_ends_at")
        if isinstance(until, datetime) and until <= self.journal.now:
            self.journal.keep(entry.kind, row, reason="its state_ends_at has passed, so it is enabled")

    def _point(self, entry: Entry, row: Row) -> None:
        for pointer, name in entry.pointers.items():
            connections = self.connections[pointer]
            if name is None:
                setattr(row, pointer, None)
            elif name not in connections:
                message = f"organization {row.organization_id} has no {pointer.replace('_', ' ')} of this name"
                self.problems.append(entry.problem(message, pointer))
            elif target := connections[name]:
                setattr(row, pointer, target)

    def _seal(self, entry: Entry, row: Row) -> None:
        if entry.api_key is None or not isinstance(row, CredentialConnection):
            return
        try:
            self.plan.seals.put(row, entry.api_key, now=self.journal.now)
        except (CannotOpenError, DataKeyExhaustedError) as error:
            self.problems.append(entry.problem(str(error), "api_key"))

    def _store(self, entry: Entry, row: Row, changed: dict[str, Any] | None = None) -> bool:
        """Plans a new row, or the changed fields of one that exists; False when there are problems instead."""
        problems = problems_of(entry, row, self.fleet, changed)
        self.problems += problems
        if problems:
            return False
        self.fleet.put(row)
        self.journal.names[str(row.pk)] = str(getattr(row, "name", ""))
        if changed is None:
            self.plan.created[row.pk] = row
        else:
            self.plan.update(row, fields_to_write(row, changed))
        return True


def _mistaken_identity(entry: Entry, existing: Row | None, parent: Row) -> str:
    """Why the id in the document cannot be that of the object; "" if it can."""
    wanted = entry.values.get("id")
    if not entry.kind.takes_id or wanted is None or existing is None:
        return ""
    if existing.pk != wanted:
        return f"the {entry.kind.words} of this name has the id {existing.pk}, and ids never change"
    if existing.organization_id != parent.organization_id:
        return f"this id belongs to a {entry.kind.words} of another organization"
    return ""


def _decided(row: Row) -> tuple[bool, bool]:
    return getattr(row, "is_disabled", False), getattr(row, "is_draining", False)
