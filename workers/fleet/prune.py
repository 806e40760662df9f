"""Pruning: removes from an organization what its document does not name, and loses no history."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from django.db import models, transaction

from environments import audit
from workers.fleet.changes import Action, Journal
from workers.fleet.kinds import CONNECTIONS, ENVIRONMENT, WORKER, WORKER_QUEUE, Kind, Row
from workers.models import Worker, WorkerQueue, WorkerStart

#: Each kind with what its full name needs, and first what may stand in the way of the next.
ORDER: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (WORKER, ("queue__environment",)),
    (WORKER_QUEUE, ("environment",)),
    (ENVIRONMENT, ("organization",)),
    *((kind, ("organization",)) for kind in CONNECTIONS.values()),
)


def prune_organization(organization_id: str, *, named: Collection[Any], journal: Journal) -> None:
    """Deletes the rows whose ids are not in `named` and that nothing refers to.

    A worker or queue that something refers to is disabled instead; anything else is kept, with the reason.
    """
    for kind, needed in ORDER:
        rows = kind.model.objects.filter(organization=organization_id).select_related(*needed)
        if kind is WORKER:
            rows = rows.filter(is_ephemeral=False)  # a document names what people create
        for row in [row for row in rows if row.pk not in named]:
            reason = _history_of(row) or _delete(kind, row, journal)
            if reason:
                _retire(kind, row, journal, reason)


def _history_of(row: Row) -> str:
    """What would be lost or left without its subject although the database allows to delete the row."""
    if not isinstance(row, Worker):
        return ""
    has_history = WorkerStart.objects.filter(worker=row.pk).exists() or row.instances.exists()
    return "it has starts on record" if has_history else ""


def _delete(kind: Kind, row: Row, journal: Journal) -> str:
    """Deletes the row and notes it; else the reason why it stays."""
    before = audit.snapshot(row)
    try:
        with transaction.atomic():
            kind.model.objects.filter(pk=row.pk).delete()
    except models.ProtectedError as error:
        return _referrers(error)
    journal.note(Action.DELETED, kind, row, audit.difference(before, dict.fromkeys(before)))
    return ""


def _referrers(error: models.ProtectedError) -> str:
    counts = Counter(type(row) for row in error.protected_objects)
    parts = [
        f"{count} {model._meta.verbose_name if count == 1 else model._meta.verbose_name_plural}"
        for model, count in counts.items()
    ]
    return f"in use by {' and '.join(sorted(parts))}"


def _retire(kind: Kind, row: Row, journal: Journal, reason: str) -> None:
    if not isinstance(row, Worker | WorkerQueue):
        journal.keep(kind, row, reason=reason)
    elif row.is_disabled:
        journal.keep(kind, row, reason=f"disabled before; {reason}")
    else:
        row.is_disabled = True
        row.save(update_fields=["is_disabled"])
        journal.note(Action.DISABLED, kind, row, {"is_disabled": [False, True]}, reason=reason)
