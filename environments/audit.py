"""Writes the audit trail; call it inside the transaction of what it tells of."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from django.db import models
from django.db.models import Case, F, Max, When

from environments.database.expressions import Among, ListOf
from environments.database.statements import Parameter, Rows
from environments.fields import SealedField
from environments.models import AuditEvent, Organization
from environments.models.connections import VERIFICATION

#: Changes that say nothing of the object itself.
BOOKKEEPING = frozenset({"created_at", "updated_at", "last_login", *VERIFICATION})
#: A user's password hash is a secret too.
HIDDEN = frozenset({"password"})


#: Events that go to the database in one statement.
BATCH = 500


@dataclass(frozen=True)
class Actor:
    """Who acts: `user:<name>`, `command:<name>` or `key:<id>`, and from which address if over the network."""

    name: str
    client_address: str | None = None


def record(  # noqa: PLR0913  # an event has these parts; each is named at the call
    action: str,
    subject: models.Model,
    *,
    actor: Actor,
    now: datetime,
    changes: dict[str, list[Any]] | None = None,
    organization_id: str | None = None,
) -> AuditEvent:
    """Stores one event; `changes` maps a field to its value before and after."""
    event = event_of(action, subject, actor, now, changes or {})
    event.organization_id = organization_id or event.organization_id
    event.save(force_insert=True)
    return event


def record_many(
    action: str, subjects: Iterable[tuple[models.Model, dict[str, list[Any]]]], *, actor: Actor, now: datetime
) -> None:
    """Stores the same events as `record` would one by one, each subject with its changes, in a few statements."""
    events = (event_of(action, subject, actor, now, changes) for subject, changes in subjects)
    AuditEvent.objects.bulk_create(events, batch_size=BATCH)


def record_deletion(
    subject: models.Model, *, actor: Actor, now: datetime, lost: Mapping[str, int] | None = None
) -> None:
    """Stores that a row is deleted, with its last values, and how many rows of which kinds go along with it."""
    changes = difference(before := snapshot(subject), dict.fromkeys(before))
    changes |= {kind: [count, 0] for kind, count in (lost or {}).items()}
    event = event_of(f"{kind_of(subject)}.deleted", subject, actor, now, changes)
    if isinstance(subject, Organization):
        event.organization_id = None  # which is gone
    event.save(force_insert=True)


def event_of(
    action: str, subject: models.Model, actor: Actor, now: datetime, changes: dict[str, list[Any]]
) -> AuditEvent:
    """The event of a subject as it is now, to be stored with what it tells of."""
    return AuditEvent(
        organization_id=getattr(subject, "organization_id", None),
        occurred_at=now,
        actor=actor.name[:200],
        client_address=actor.client_address,
        action=action,
        object_type=str(subject._meta.model_name),
        object_id=str(subject.pk),
        object_name=str(subject)[:300],
        changes=changes,
    )


@dataclass(frozen=True)
class Provenance:
    """Who made an object, if that is on record, and when it was last changed."""

    created_by: str | None
    updated_at: datetime


def provenance_of(ids: Iterable[Any], organization_id: str) -> dict[str, Provenance]:
    """What the trail knows of the organization's objects with these ids, by their ids as text; one statement."""
    found = _HISTORY(ids=[str(identifier) for identifier in ids], organization_id=organization_id)
    return {object_id: Provenance(created_by, updated_at) for object_id, created_by, updated_at in found}


def _history() -> Any:
    ids = Parameter("ids", ListOf(models.CharField()))
    organization_id = Parameter("organization_id", models.CharField())
    events = AuditEvent.objects.filter(Among(F("object_id"), ids), organization=organization_id).order_by()
    creators = Max(Case(When(action__endswith=".created", then="actor")))
    return events.values_list("object_id").annotate(created_by=creators, updated_at=Max("occurred_at"))


_HISTORY = Rows(_history)


def kind_of(subject: models.Model) -> str:
    """What an action's name begins with, such as `worker_queue`: the same from the console, a command and a file."""
    return str(subject._meta.verbose_name).lower().replace(" ", "_")


def snapshot(subject: models.Model, among: Container[str] | None = None) -> dict[str, Any]:
    """A row's fields, or some of them, as the audit trail may show them: no sealed text, no hash, JSON types only."""
    return {
        name: _plain(getattr(subject, attribute))
        for name, attribute in _shown(type(subject))
        if among is None or name in among
    }


@cache
def _shown(model: type[models.Model]) -> list[tuple[str, str]]:
    """The names of fields that the trail may show, and of their values."""
    return [
        (field.name, field.attname)
        for field in model._meta.concrete_fields
        if field.name not in BOOKKEEPING | HIDDEN
        and not isinstance(field, SealedField)
        and not field.name.endswith("_hash")
    ]


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[Any]]:
    """The fields that differ between two snapshots, each with its value before and after."""
    return {name: [before.get(name), value] for name, value in after.items() if before.get(name) != value}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str | list | dict) else str(value)
