"""Pruning: removes from an organization what its document does not name, and loses no history."""

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import batched
from typing import TYPE_CHECKING, Any

from django.db import models

from environments import audit
from environments.database.removal import ENDED_ALONG
from workers.fleet.changes import Action
from workers.fleet.kinds import CONNECTIONS, ENVIRONMENT, WORKER, WORKER_QUEUE, Kind, Row
from workers.fleet.state import KIND_OF, Fleet, targets_of
from workers.models import Worker, WorkerInstance, WorkerQueue, WorkerStart
from workers.models.states import STATE_FIELDS

if TYPE_CHECKING:
    from workers.fleet.plan import Plan

#: First what may stand in the way of the next.
ORDER: tuple[Kind, ...] = (WORKER, WORKER_QUEUE, ENVIRONMENT, *CONNECTIONS.values())
#: Ids that one statement names.
BATCH = 5_000


def prune_organization(organization_id: str, *, named: Collection[Any], fleet: Fleet, plan: "Plan") -> None:
    """Deletes the rows whose ids are not in `named` and that nothing refers to.

    A worker or queue that something refers to is disabled instead; anything else is kept, with the reason.
    """
    referrers = fleet.referrers(organization_id)
    for kind in ORDER:
        rows = [
            row
            for row in fleet.rows[kind.model].values()
            if row.organization_id == organization_id and row.pk not in named
        ]
        if kind is WORKER:
            rows = [row for row in rows if not row.is_ephemeral]  # a document names what people create
        outside = _referrers_outside(kind, [row.pk for row in rows])
        history = with_history([row.pk for row in rows]) if kind is WORKER else set()
        for row in sorted(rows, key=_order):
            # What would be lost, or left without its subject, although the database allows to delete the row.
            reason = "it has starts on record" if row.pk in history else ""
            reason = reason or _in_use(Counter(referrers[row.pk]) + outside.get(row.pk, Counter()))
            if reason:
                _retire(kind, row, plan, reason)
                continue
            for target_id in targets_of(row):
                referrers[target_id][kind.model] -= 1
            fleet.drop(row)
            _delete(kind, row, plan)


def with_history(ids: Collection[Any]) -> set[Any]:
    """Those of the workers of which there are starts or processes on record."""
    found: set[Any] = set()
    for some in batched(ids, BATCH):
        for rows in (WorkerStart.objects.all(), WorkerInstance.objects.all()):
            found |= set(rows.filter(worker__in=some).order_by().values_list("worker", flat=True).distinct())
    return found


def _order(row: Any) -> tuple[str, ...]:
    environment = row.environment.name if isinstance(row, WorkerQueue) else ""
    return environment, row.name, str(row.pk)


def _referrers_outside(kind: Kind, ids: list[Any]) -> dict[Any, Counter[type[Any]]]:
    """By id, how many rows of which models that no document names keep each of the rows from being deleted."""
    found: dict[Any, Counter[type[Any]]] = {pk: Counter() for pk in ids}
    for relation in _protecting(kind):
        name = relation.field.attname
        rows = relation.related_model._base_manager.order_by()
        for some in batched(ids, BATCH):
            counts = rows.filter(**{f"{name}__in": some}).values_list(name).annotate(count=models.Count("pk"))
            for pk, count in counts:
                found[pk][relation.related_model] += count
    return found


def _protecting(kind: Kind) -> Iterable[Any]:
    for relation in kind.model._meta.get_fields(include_hidden=True):
        is_pointed_to = (
            relation.auto_created and not relation.concrete and (relation.one_to_one or relation.one_to_many)
        )
        if (
            is_pointed_to
            and relation.on_delete in (models.PROTECT, ENDED_ALONG)
            and relation.related_model not in KIND_OF
        ):
            yield relation


def _in_use(counts: "Counter[type[Any]]") -> str:
    parts = [
        f"{count} {model._meta.verbose_name if count == 1 else model._meta.verbose_name_plural}"
        for model, count in counts.items()
        if count
    ]
    return f"in use by {' and '.join(sorted(parts))}" if parts else ""


def _delete(kind: Kind, row: Row, plan: "Plan") -> None:
    before = audit.snapshot(row)
    plan.deleted[row.pk] = row
    plan.journal.note(Action.DELETED, kind, row, audit.difference(before, dict.fromkeys(before)))


def _retire(kind: Kind, row: Row, plan: "Plan", reason: str) -> None:
    if not isinstance(row, Worker | WorkerQueue):
        plan.journal.keep(kind, row, reason=reason)
    elif row.is_disabled and row.state_ends_at is None:
        plan.journal.keep(kind, row, reason=f"disabled before; {reason}")
    else:
        before = audit.snapshot(row)
        row.is_disabled, row.state_reason, row.state_ends_at = True, "", None
        plan.update(row, STATE_FIELDS)
        plan.journal.note(Action.DISABLED, kind, row, audit.difference(before, audit.snapshot(row)), reason=reason)
