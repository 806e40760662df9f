"""Writes a plan: one transaction of few statements, so that nobody waits for it longer than for a page of the console.

Locks are taken in the order of a start, which refers to its organization, its worker and its queue (KEY SHARE) and
locks at most its queue, last: the organizations' rows come first, weakly, so that no start waits for them and two runs
take turns; then workers, queues, environments, connections. Of each, what was read is compared under its lock.
"""

from collections.abc import Collection, Iterable
from copy import copy
from itertools import batched
from typing import Any

from django.db import IntegrityError, connection, models, transaction

from environments import audit
from environments.models import CONNECTION_POINTERS, Connection, Organization
from workers.fleet.kinds import CONNECTIONS, ENVIRONMENT, ORGANIZATION, WORKER, WORKER_QUEUE, Kind, Row
from workers.fleet.plan import Plan
from workers.fleet.prune import BATCH, with_history
from workers.fleet.state import StaleError, columns_of, read_rows, settled, told_apart
from workers.models import Worker

#: Rows of one INSERT.
INSERTED = 500


def write(plan: Plan, organizations: Collection[str]) -> None:
    """Writes all of it or nothing; StaleError when something is not as the plan has read it."""
    if not plan.journal.events:
        return
    try:
        with transaction.atomic():
            _take_turn(plan, organizations)
            _Writer(plan).write()
    except (IntegrityError, models.ProtectedError) as error:
        raise StaleError from error


def _take_turn(plan: Plan, organizations: Collection[str]) -> None:
    """Waits for other runs, and compares all that was read; what is not changed need not stay as it is from here on."""
    list(Organization.objects.filter(pk__in=organizations).order_by("pk").select_for_update(no_key=True))
    now = read_rows(organizations)
    if told_apart(now, touched=plan.touched) != told_apart(plan.basis, touched=plan.touched):
        raise StaleError


class _Writer:
    """The statements of one plan; first those for which nothing that a start needs is locked."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def write(self) -> None:
        audit.store(self.plan.journal.events)
        self._insert_organizations()
        self.plan.seals.store()
        for kind in (*CONNECTIONS.values(), ENVIRONMENT, WORKER_QUEUE):
            _insert(kind, self._created(kind))
        # A name that a worker gives up is free when that is written; all other new workers are made before.
        freed = {self._place_before(row) for row, _ in self.plan.updated.values() if isinstance(row, Worker)}
        new = self._created(WORKER)
        _insert(WORKER, [row for row in new if (row.queue_id, row.name) not in freed])
        self._change(WORKER)
        _insert(WORKER, [row for row in new if (row.queue_id, row.name) in freed])
        for kind in (WORKER_QUEUE, ENVIRONMENT):
            self._change(kind)
        for kind in CONNECTIONS.values():
            self._update(kind)
        self._update(ORGANIZATION)
        for kind in CONNECTIONS.values():
            self._delete(kind)

    def _insert_organizations(self) -> None:
        """Without their connections, which are in them."""
        rows = []
        for row in self._created(ORGANIZATION):
            bare = copy(row)
            for pointer in CONNECTION_POINTERS:
                setattr(bare, pointer, None)
            rows.append(bare)
        _insert(ORGANIZATION, rows)

    def _created(self, kind: Kind) -> list[Any]:
        return [row for row in self.plan.created.values() if isinstance(row, kind.model)]

    def _place_before(self, row: Worker) -> tuple[Any, ...] | None:
        names, before = columns_of(Worker), self.plan.basis[Worker].get(row.pk)
        return before and tuple(before[names.index(name) + 1] for name in ("queue_id", "name"))

    def _change(self, kind: Kind) -> None:
        self._update(kind)
        self._delete(kind)

    def _update(self, kind: Kind) -> None:
        changes = [(row, names) for row, names in self.plan.updated.values() if isinstance(row, kind.model)]
        there = [row.pk for row, _ in changes if row.pk not in self.plan.created]
        if kind is WORKER:
            there += [row.pk for row in self.plan.deleted.values() if isinstance(row, Worker)]
        self._lock(kind, there)
        if issubclass(kind.model, Connection):
            for row, names in changes:
                row.save(update_fields=names)  # which forgets what was verified
        else:
            _update(kind, changes)

    def _lock(self, kind: Kind, ids: Iterable[Any]) -> None:
        """Locks rows and compares them with what was read of them."""
        for some in batched(sorted(ids), BATCH, strict=False):
            rows = kind.model._base_manager.filter(pk__in=some).order_by("pk").select_for_update(no_key=True)
            found = {row[0]: row for row in rows.values_list("pk", *columns_of(kind.model))}
            for pk in some:
                if pk not in found or settled(kind.model, found[pk]) != settled(
                    kind.model, self.plan.basis[kind.model][pk]
                ):
                    raise StaleError

    def _delete(self, kind: Kind) -> None:
        ids = [row.pk for row in self.plan.deleted.values() if isinstance(row, kind.model)]
        if kind is WORKER and with_history(ids):
            raise StaleError
        for some in batched(ids, BATCH, strict=False):
            kind.model._base_manager.filter(pk__in=some).delete()


def _insert(kind: Kind, rows: list[Any]) -> None:
    kind.model._base_manager.bulk_create(rows, batch_size=INSERTED)


def _update(kind: Kind, changes: list[tuple[Row, set[str]]]) -> None:
    """One statement for each row, in the order of the changes and all of the same form, so that they are sent at once.

    A column that another row changes is written as it was compared.
    """
    if not changes:
        return
    quote, meta = connection.ops.quote_name, kind.model._meta
    fields = [meta.get_field(name) for name in sorted(set().union(*(names for _, names in changes)))]
    values = [
        [*(field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields), _key(row)]
        for row, _ in changes
    ]
    columns = ", ".join(f"{quote(field.column)} = %s" for field in fields)
    statement = f"UPDATE {quote(meta.db_table)} SET {columns} WHERE {quote(meta.pk.column)} = %s"  # noqa: S608  # quoted
    with connection.cursor() as cursor:
        if len(values) == 1:
            cursor.execute(statement, values[0])
        else:
            cursor.executemany(statement, values)


def _key(row: Row) -> Any:
    return row._meta.pk.get_db_prep_save(row.pk, connection)
