"""Applies a fleet's document: creates and updates what it names, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import DatabaseError, IntegrityError, OperationalError, ProgrammingError, transaction

from environments import audit
from environments.audit import Actor
from environments.encryption import CannotOpenError
from environments.fields import SealedField
from environments.models import CredentialConnection, Organization
from environments.sealing import DataKeyExhaustedError, seal_api_key
from workers.fleet.changes import Action, Change, Journal
from workers.fleet.document import Document, Entry, read_document
from workers.fleet.errors import FleetError, Problem
from workers.fleet.kinds import CONNECTIONS, Kind, Row
from workers.fleet.prune import prune_organization
from workers.impact import QueueImpact, compare, look

KEY_REQUIRED = "is required: api_key: {env: NAME} or {file: PATH}; or requires_api_key: false for a server without one"


@dataclass(frozen=True)
class Applied:
    """What a document changed and, of a dry run, which workers would be given another configuration."""

    changes: list[Change]
    impact: list[QueueImpact]


def apply_document(  # noqa: PLR0913  # who, when, what from where and how; each is named at the call
    text: str,
    *,
    source: str,
    directory: Path,
    actor: Actor,
    now: datetime,
    environ: Mapping[str, str],
    is_dry_run: bool = False,
    prune: bool = False,
) -> Applied:
    """Reads a document and applies it; `source` is its name in messages, `directory` where its files' paths start.

    FleetError when it cannot be applied; then, and on a dry run, the database is as it was.
    """
    document = read_document(text, source=source, directory=directory, environ=environ)
    return apply(document, actor=actor, now=now, is_dry_run=is_dry_run, prune=prune)


def apply(document: Document, *, actor: Actor, now: datetime, is_dry_run: bool = False, prune: bool = False) -> Applied:
    """What changed, in the document's order, then what was pruned; nothing when all is as the document says."""
    organizations = [entry.key for entry in document.organizations]
    impact: list[QueueImpact] = []
    try:
        with transaction.atomic():
            given = look(organizations) if is_dry_run else {}
            changes = _Run(document, Journal(actor=actor, now=now)).changes(prune=prune)
            # A dry run is the same run, undone: so what it tells is what would happen.
            if is_dry_run:
                impact = compare(given, look(organizations), now=now)
                transaction.set_rollback(True)
    except (OperationalError, ProgrammingError) as error:
        reason = str(error).partition("\n")[0]
        failed = f"the database is busy, away or not migrated, run it again when it is ready: {reason}"
        raise FleetError(document.source, [Problem(failed)]) from None
    except IntegrityError:
        conflict = "somebody else changed the same objects meanwhile: run it again"
        raise FleetError(document.source, [Problem(conflict)]) from None
    return Applied(changes, impact)


class _Run:
    """One application of a document; every problem is collected, and any problem undoes everything."""

    def __init__(self, document: Document, journal: Journal) -> None:
        self.document = document
        self.journal = journal
        self.problems: list[Problem] = []
        #: The entry that names a row, by the row's id.
        self.named: dict[Any, Entry] = {}
        #: The current organization's connections, named in the document or not: pointer -> name -> row.
        self.connections: dict[str, dict[str, Row | None]] = {}

    def changes(self, *, prune: bool) -> list[Change]:
        organizations = self._locked_organizations()
        for entry in self.document.organizations:
            self._apply_organization(entry, organizations.get(entry.key))
        if self.problems:
            raise FleetError(self.document.source, self.problems)
        if prune:
            for organization_id in organizations:
                prune_organization(organization_id, named=self.named.keys(), journal=self.journal)
        return self.journal.changes

    def _locked_organizations(self) -> dict[str, Organization]:
        """The named organizations that exist; a second run that names one of them waits for this one.

        They are locked in one order, so that two runs do not wait for each other, and weakly, so that starts go on.
        """
        locked = Organization.objects.select_for_update(no_key=True)
        rows = [locked.filter(pk=key).first() for key in sorted(entry.key for entry in self.document.organizations)]
        return {row.pk: row for row in rows if row}

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
        kind, children = entry.kind.children[name], entry.children.get(name, [])
        if not children and name not in CONNECTIONS:
            return {}
        rows: dict[str, Row | None] = _rows_below(kind, parent)
        by_id = kind.model.objects.in_bulk([child.values["id"] for child in children if "id" in child.values])
        for child in children:
            existing = by_id.get(child.values.get("id")) or rows.get(child.key)
            if message := _mistaken_identity(child, existing, parent):
                self.problems.append(child.problem(message, "id"))
            else:
                rows[child.key] = self._apply_entry(child, existing, parent)
        return rows

    def _apply_entry(self, entry: Entry, existing: Row | None, parent: Row) -> Row | None:
        """The row as the entry has it, and all below; None when there is no such row because of a problem."""
        row: Any = existing or entry.kind.model(organization_id=parent.organization_id)
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
        for name in entry.kind.children:
            self._apply_list(entry, name, row)
        return cast("Row", row)

    def _claim(self, entry: Entry, row: Row) -> None:
        other = self.named.setdefault(row.pk, entry)
        if other is not entry:
            self.problems.append(entry.problem(f"is the same {entry.kind.words} as in line {other.line}"))

    def _assign(self, entry: Entry, row: Row) -> None:
        for name, value in entry.values.items():
            setattr(row, name, value)

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
            seal_api_key(row, entry.api_key, now=self.journal.now)
        except (CannotOpenError, DataKeyExhaustedError) as error:
            self.problems.append(entry.problem(str(error), "api_key"))

    def _store(self, entry: Entry, row: Row, changed: dict[str, Any] | None = None) -> bool:
        """Stores a new row, or the changed fields of one that exists; False when there are problems instead."""
        problems = _problems_of(entry, row)
        self.problems += problems
        if problems:
            return False
        try:
            if changed is None:
                row.save(force_insert=True)
            else:
                row.save(update_fields=_columns(row, changed))
        except (OperationalError, ProgrammingError):
            raise
        except DatabaseError:
            conflict = "the database refuses this; if somebody else changed it meanwhile, run it again"
            raise FleetError(self.document.source, [*self.problems, entry.problem(conflict)]) from None
        return True


def _rows_below(kind: Kind, parent: Row) -> dict[str, Row | None]:
    rows = kind.model.objects.filter(**{kind.parent: parent})
    if kind.has_api_key:
        # Whoever replaces the same API key takes turns, else a version would be counted once for two keys.
        rows = rows.select_for_update(no_key=True)
    return {getattr(row, kind.key): row for row in rows}


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


def _columns(row: Row, changed: dict[str, Any]) -> set[str]:
    """The fields to write: what changed and nothing else, so that another's edit of the rest is not lost."""
    sealed = {each.name for each in row._meta.concrete_fields if isinstance(each, SealedField)}
    key = row._meta.pk.name
    return {name for name in changed if name != key} | (sealed if "api_key_version" in changed else set())


def _problems_of(entry: Entry, row: Row) -> list[Problem]:
    """What the model's validators and constraints say, each at the line of its field."""
    lacks_key = isinstance(row, CredentialConnection) and row.requires_api_key and not row.sealed_api_key
    problems = [entry.problem(KEY_REQUIRED, "api_key")] if lacks_key else []
    try:
        row.full_clean(exclude={"sealed_api_key"} if lacks_key else None)
    except ValidationError as error:
        for name, errors in error.error_dict.items():
            field = "" if name == NON_FIELD_ERRORS else name
            problems += [entry.problem(text, field) for text in _texts(entry, name, errors)]
    return problems


def _texts(entry: Entry, name: str, errors: list[ValidationError]) -> list[str]:
    """The messages of one field; of a field that is not in the document, that it is missing."""
    if name not in entry.lines and any(error.code in {"blank", "null"} for error in errors):
        return ["is required"]
    return [text for error in errors for text in error.messages]
