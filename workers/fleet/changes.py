"""What applying a document changes: one record for each object, for the screen and for the audit trail."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import transaction

from environments import audit
from environments.audit import Actor
from environments.fields import SealedField
from environments.models import AuditEvent, Environment, Organization
from workers.fleet.kinds import CONNECTIONS, WORKER, Kind, Row
from workers.models import Worker, WorkerQueue
from workers.models.states import whole_decision


class Action(StrEnum):
    """What happens to an object; `kept` is what pruning could not remove."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    DISABLED = "disabled"
    KEPT = "kept"


@dataclass(frozen=True)
class Change:
    """One object that is changed or, with the reason, kept; of a secret `fields` has the fingerprints."""

    action: Action
    kind: str
    name: str
    id: str
    #: Field -> its value before and after; connections by their names.
    fields: Mapping[str, list[Any]] = field(default_factory=dict)
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """The change as JSON shows it."""
        return {
            "action": str(self.action),
            "kind": self.kind,
            "name": self.name,
            "id": self.id,
            "fields": {name: {"before": before, "after": after} for name, (before, after) in self.fields.items()},
            "reason": self.reason,
        }

    def __str__(self) -> str:
        """One line for a person."""
        line = f"{self.action} {self.kind} {self.name}"
        if self.action is Action.CREATED and self.kind == "worker":
            line = f"{line} with id {self.id}"
        if self.action is Action.UPDATED:
            line = f"{line}: {', '.join(self._shown(name) for name in self.fields)}"
        return f"{line} ({self.reason})" if self.reason else line

    def _shown(self, name: str) -> str:
        before, after = self.fields[name]
        if name == "api_key":
            return f"api_key replaced (fingerprint {before or 'none'} -> {after})"
        return f"{name} {json.dumps(before, ensure_ascii=False)} -> {json.dumps(after, ensure_ascii=False)}"


#: Fields of a row that a document does not have, or has in another form.
NOT_IN_DOCUMENT = frozenset({"organization", "environment", "api_key_version", "api_key_set_at"})


#: Fields that hold the id of something with a name.
POINTERS = frozenset({"queue", *(kind.name for kind in CONNECTIONS.values())})


#: How a field that is empty in a new row differs from none.
ABSENT: tuple[list[Any], ...] = ([None, ""], [None, []], [None, {}])


class Journal:
    """The changes of one run, and the events of the audit trail that tell of them."""

    def __init__(self, *, actor: Actor, now: datetime) -> None:
        self.actor = actor
        self.now = now
        self.changes: list[Change] = []
        self.events: list[AuditEvent] = []
        #: Of what a field may point to, or did before.
        self.names: dict[str, str] = {}

    def note(  # noqa: PLR0913  # a change has these parts
        self,
        action: Action,
        kind: Kind,
        row: Row,
        changed: dict[str, list[Any]],
        *,
        reason: str = "",
        position: int | None = None,
    ) -> None:
        """Notes a change; `changed` is a difference of snapshots, `position` the place among the changes."""
        self.events.append(audit.event_of(f"{kind.name}.{action}", row, self.actor, self.now, changed))
        fields = {} if action is Action.DELETED else self._as_document(changed)
        change = Change(action, kind.name, full_name(row), str(row.pk), fields, reason)
        self.changes.insert(len(self.changes) if position is None else position, change)

    def keep(self, kind: Kind, row: Row, *, reason: str) -> None:
        """Reports what stays as it is; nothing happened, so there is no audit event."""
        self.changes.append(Change(Action.KEPT, kind.name, full_name(row), str(row.pk), reason=reason))

    def _as_document(self, changed: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Of a pointer the names of what it points to, of anything else the values themselves."""
        return {
            "api_key" if name == "api_key_fingerprint" else name: [
                self.names.get(value, value) if name in POINTERS else value for value in values
            ]
            for name, values in changed.items()
            if name not in NOT_IN_DOCUMENT and values not in ABSENT
        }


def full_name(row: Row) -> str:
    """The names from the organization down to the row."""
    match row:
        case Organization():
            return str(row.id)
        case WorkerQueue():
            return f"{row.organization_id}/{row.environment.name}/{row.name}"
        case Worker():
            return f"{row.organization_id}/{row.queue.environment.name}/{row.queue.name}/{row.name}"
        case Environment() | _:
            return f"{row.organization_id}/{row.name}"


def fields_to_write(row: Row, changed: dict[str, Any]) -> set[str]:
    """The fields to write: what changed and nothing else."""
    sealed = {each.name for each in row._meta.concrete_fields if isinstance(each, SealedField)}
    key = row._meta.pk.name
    hashed = {"settings_hash"} if set(changed) & set(getattr(row, "HASHED", ())) else set()
    written = whole_decision(name for name in changed if name != key)
    return written | (sealed if "api_key_version" in changed else set()) | hashed


@transaction.atomic
def create_worker(
    queue: WorkerQueue, *, name: str, actor: Actor, now: datetime, worker_id: UUID | None = None
) -> Worker:
    """A new worker of the queue, with an id of its own unless one is given; ValidationError when it cannot be."""
    worker = Worker(organization_id=queue.organization_id, queue=queue, name=name)
    if worker_id is not None:
        worker.id = worker_id
    worker.full_clean()
    worker.save(force_insert=True)
    changes = audit.difference({}, audit.snapshot(worker))
    audit.record(f"{WORKER.name}.{Action.CREATED}", worker, actor=actor, now=now, changes=changes)
    return worker
