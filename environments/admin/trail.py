"""How the console shows the audit trail: its filters, the pages of its objects, and what changed."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.text import capfirst

from environments.admin.periods import PeriodFilter
from environments.models import AuditEvent

#: Kinds of actions: how they are called, and how the names of their actions end.
KINDS_OF_ACTION = {
    "made": ("Created", ("created",)),
    "changed": ("Changed", ("updated", "disabled")),
    "removed": ("Deleted", ("deleted", "starts_pruned")),
    "keys": ("API key issued, rotated, revoked", ("issued", "rotated", "revoked")),
    "verified": ("Connection verified or tried", ("verified", "tried")),
    "person": (
        "Sign-in, password, second factor",
        (
            "logged_in",
            "password_changed",
            "identity_linked",
            "identity_unlinked",
            "second_factor_added",
            "second_factor_removed",
        ),
    ),
    "restored": ("Restored database accepted", ("restore_accepted",)),
    "sealing": ("Data key rewrapped or replaced", ("rewrapped", "replaced")),
}
#: Fields and characters of a value that an event's page shows: a page, whatever was recorded.
MOST_FIELDS = 100
MOST_CHARACTERS = 2_000


class OccurredWithin(PeriodFilter):
    """Events of the last day, week or month."""

    field = "occurred_at"


class ActionFilter(admin.SimpleListFilter):
    """Events by what was done, whatever it was done to."""

    title = "action"
    parameter_name = "did"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(name, label) for name, (label, _) in KINDS_OF_ACTION.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        if (value := self.value()) not in KINDS_OF_ACTION:
            return queryset
        _, endings = KINDS_OF_ACTION[value]
        return queryset.filter(reduce(or_, (Q(action__endswith=f".{ending}") for ending in endings)))


class ObjectFilter(admin.SimpleListFilter):
    """Events by the kind of their object."""

    title = "object"
    parameter_name = "of"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The kinds that the person has a page of."""
        pages = model_admin.admin_site._registry.items()
        seen = [model._meta for model, page in pages if page.has_view_permission(request)]
        return sorted((str(kind.model_name), capfirst(kind.verbose_name)) for kind in seen)

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        return queryset.filter(object_type=self.value()) if self.value() else queryset


class ActorFilter(admin.SimpleListFilter):
    """Events by the kind of who acted."""

    title = "actor"
    parameter_name = "by"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [("user", "A person"), ("command", "A command"), ("key", "An API key")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        return queryset.filter(actor__startswith=f"{self.value()}:") if self.value() else queryset


@dataclass(frozen=True)
class Value:
    """A recorded value as a page shows it."""

    text: str
    is_nested: bool = False


@dataclass(frozen=True)
class Change:
    """One field of an event."""

    field: str
    before: Value
    after: Value


def changes_of(event: AuditEvent) -> list[Change]:
    """What changed, field by field."""
    pairs = [(name, values) for name, values in sorted(event.changes.items()) if isinstance(values, list)]
    return [
        Change(name.replace("_", " "), *(_shown(value) for value in values)) for name, values in pairs[:MOST_FIELDS]
    ]


def pages_of(events: Iterable[AuditEvent], request: HttpRequest, site: Any) -> dict[UUID, str]:
    """By the events' ids the addresses of their objects' pages; one statement for each kind.

    That is, of those that still exist, are their organization's still, and that the person may see.
    """
    pages = {str(model._meta.model_name): page for model, page in site._registry.items()}
    by_kind = defaultdict(list)
    for event in events:
        if event.object_type in pages:
            by_kind[event.object_type].append(event)
    return {
        event.pk: reverse(f"admin:{pages[kind].opts.label_lower.replace('.', '_')}_change", args=[event.object_id])
        for kind, found in by_kind.items()
        for visible in [_visible(pages[kind], {event.object_id for event in found}, request)]
        for event in found
        if (event.object_id, event.organization_id) in visible
    }


def _visible(page: Any, ids: set[str], request: HttpRequest) -> set[tuple[str, str | None]]:
    """The ids of the rows that the person may see, each with its organization; None for a person, who is of none."""
    keys = [key for text in ids if (key := _key(page.model, text)) is not None]
    columns = {"pk", *(field.name for field in page.opts.fields)}
    owner = [page.organization_path] if page.organization_path in columns else []
    rows = page.get_queryset(request).order_by().filter(pk__in=keys)
    return {(str(pk), next(iter(organization), None)) for pk, *organization in rows.values_list("pk", *owner)}


def _key(model: Any, text: str) -> Any:
    try:
        return model._meta.pk.to_python(text)
    except ValidationError:
        return None


def _shown(value: Any) -> Value:
    if isinstance(value, dict | list):
        text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
        return Value(_cut(text), is_nested=True)
    return Value(_cut(text_of(value)))


def text_of(value: Any) -> str:
    """A recorded value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return "" if value is None else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} and {len(text) - MOST_CHARACTERS} more"
