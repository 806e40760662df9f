"""Writes a plan: one transaction of few statements that are ready before it begins, so that nobody waits for it long.

Locks are taken in the order of a start, which refers to its organization, its worker and its queue (KEY SHARE) and
locks at most its queue, last: the organizations' rows come first, weakly, so that no start waits for them and two runs
take turns; then workers, queues, environments, connections. What was read of each row is compared under its lock.
"""

from collections.abc import Collection
from copy import copy
from itertools import batched
from typing import Any

from django.db import IntegrityError, connection, models, transaction

from environments.database.for_many import ForMany, insert_of
from environments.models import AuditEvent, Organization
from environments.models.connections import CONNECTION_POINTERS
from workers.fleet.kinds import CONNECTIONS, ENVIRONMENT, ORGANIZATION, WORKER, WORKER_QUEUE, Kind
from workers.fleet.plan import Plan
from workers.fleet.prune import BATCH, with_history
from workers.fleet.state import COLUMNS, StaleError, read_rows, settled, told_apart
from workers.models import Worker


def write(plan: Plan, organizations: Collection[str]) -> None:
    """Writes all of it or nothing; StaleError when something is not as the plan has read it."""
    if not plan.journal.events:
        return
    writer = _Writer(plan)
    try:
        with transaction.atomic():
            _take_turn(plan, organizations)
            writer.make()
            writer.change()
    except (IntegrityError, models.ProtectedError) as error:
        raise StaleError from error


def _take_turn(plan: Plan, organizations: Collection[str]) -> None:
    """Waits for other runs, and compares all that was read; what is not changed need not stay as it is from here on."""
    list(Organization.objects.filter(pk__in=organizations).order_by("pk").select_for_update(no_key=True))
    now = read_rows(organizations)
    if told_apart(now, touched=plan.touched) != told_apart(plan.basis, touched=plan.touched):
        raise StaleError


class _Writer:
    """The statements of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # A name that a worker gives up is free when that is written; all other new workers are made before.
        freed = {_place_in(plan, row.pk) for row, _ in self._updated(WORKER)}
        new = self._created(WORKER)
        self.organizations = insert_of(Organization, [_bare(row) for row in self._created(ORGANIZATION)])
        self.rows = [
            insert_of(kind.model, self._created(kind)) for kind in (*CONNECTIONS.values(), ENVIRONMENT, WORKER_QUEUE)
        ]
        self.rows.append(insert_of(Worker, [row for row in new if (row.queue_id, row.name) not in freed]))
        self.successors = insert_of(Worker, [row for row in new if (row.queue_id, row.name) in freed])
        self.events = insert_of(AuditEvent, plan.journal.events)
        self.updates = {
            kind.name: _update(kind, self._updated(kind)) for kind in (WORKER, WORKER_QUEUE, ENVIRONMENT, ORGANIZATION)
        }

    def make(self) -> None:
        """Writes what is new: nobody waits for these rows."""
        self.organizations.run()
        self.plan.seals.make()
        for statement in (*self.rows, self.events):
            statement.run()

    def change(self) -> None:
        """Writes what was there before."""
        for kind in (WORKER, WORKER_QUEUE, ENVIRONMENT):
            self._lock(kind)
            self.updates[kind.name].run()
            self._delete(kind)
            if kind is WORKER:
                self.successors.run()
        for kind in CONNECTIONS.values():
            self._lock(kind)
            for row, names in self._updated(kind):
                row.save(update_fields=names)  # which forgets what was verified
        self.plan.seals.count()
        self.updates[ORGANIZATION.name].run()
        for kind in CONNECTIONS.values():
            self._delete(kind)

    def _created(self, kind: Kind) -> list[Any]:
        return [row for row in self.plan.created.values() if isinstance(row, kind.model)]

    def _updated(self, kind: Kind) -> list[tuple[Any, set[str]]]:
        return [(row, names) for row, names in self.plan.updated.values() if isinstance(row, kind.model)]

    def _deleted(self, kind: Kind) -> list[Any]:
        return [row.pk for row in self.plan.deleted.values() if isinstance(row, kind.model)]

    def _lock(self, kind: Kind) -> None:
        """Locks the rows that are changed, and compares them with what was read of them; workers to be deleted, too."""
        basis = self.plan.basis[kind.model]
        ids = [row.pk for row, _ in self._updated(kind)] + (self._deleted(kind) if kind is WORKER else [])
        for some in batched(sorted(ids), BATCH):
            rows = kind.model._base_manager.filter(pk__in=some).order_by("pk").select_for_update(no_key=True)
            found = {row[0]: settled(kind.model, row) for row in rows.values_list("pk", *COLUMNS[kind.model])}
            if found != {pk: settled(kind.model, basis[pk]) for pk in some}:
                raise StaleError

    def _delete(self, kind: Kind) -> None:
        ids = self._deleted(kind)
        if kind is WORKER and with_history(ids):
            raise StaleError
        for some in batched(ids, BATCH):
            kind.model._base_manager.filter(pk__in=some).delete()


def _update(kind: Kind, changes: list[tuple[Any, set[str]]]) -> ForMany:
    """In the order of the changes; a column that only another row changes is written as it was compared."""
    quote, meta = connection.ops.quote_name, kind.model._meta
    names = sorted(set().union(*(names for _, names in changes)))
    fields = [meta.get_field(name) for name in names]
    columns = ", ".join(f"{quote(field.column)} = %s" for field in fields)
    text = f"UPDATE {quote(meta.db_table)} SET {columns} WHERE {quote(meta.pk.column)} = %s"  # noqa: S608  # quoted
    return ForMany(text, ([(field, getattr(row, field.attname)) for field in (*fields, meta.pk)] for row, _ in changes))


def _bare(row: Organization) -> Organization:
    """The organization without its connections, which are in it."""
    bare = copy(row)
    for pointer in CONNECTION_POINTERS:
        setattr(bare, pointer, None)
    return bare


def _place_in(plan: Plan, worker_id: Any) -> tuple[Any, ...] | None:
    """Where a worker was, and its name there."""
    before = plan.basis[Worker].get(worker_id)
    return before and tuple(before[COLUMNS[Worker].index(name) + 1] for name in ("queue_id", "name"))
