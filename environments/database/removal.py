"""What goes when a row is deleted, and what stands in the way of that."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, models
from django.db.models.deletion import PROTECT, Collector, ProtectedError

#: Of the rows of one kind that stand in the way, how many are looked at.
MOST_BARRIERS = 1_000


def ENDED_ALONG(collector: Any, field: Any, sub_objs: Any, using: str) -> None:  # noqa: N802  # named as Django's own
    """Protects like PROTECT, but from a `Removal`, which takes the row along and knows that it has to be recorded.

    It is for rows that have a record of their own, such as API keys: no cascade ends them silently.
    """
    if isinstance(collector, Removal):
        collector.end_along(field, sub_objs)
    else:
        PROTECT(collector, field, sub_objs, using)


class Removal(Collector):
    """Some rows with all that goes along with them; `barriers` are the rows that keep them from being deleted."""

    def __init__(self, rows: Sequence[models.Model]) -> None:
        super().__init__(using=DEFAULT_DB_ALIAS, origin=rows[0])
        self.rows = rows
        self.barriers: set[models.Model] = set()
        self._ended: dict[type[models.Model], set[Any]] = defaultdict(set)
        self.collect(rows)

    def collect(self, objs: Any, **kwargs: Any) -> None:  # type: ignore[override]  # Django's arguments, passed on
        """Notes what stands in the way, and goes on looking."""
        try:
            super().collect(objs, **kwargs)
        except ProtectedError as error:
            self.barriers.update(error.protected_objects)

    def related_objects(self, related_model: Any, related_fields: Any, objs: Any) -> Any:
        """Not all that stands in the way, which may be a ledger of millions."""
        rows = super().related_objects(related_model, related_fields, objs)
        is_barrier = all(field.remote_field.on_delete is PROTECT for field in related_fields)
        return rows.order_by()[: MOST_BARRIERS + 1] if is_barrier else rows

    def end_along(self, field: Any, rows: Any) -> None:
        """Takes rows along that have a record of their own."""
        self._ended[rows.model].update(row.pk for row in rows)
        self.collect(rows, source=field.remote_field.model, fail_on_restricted=False)

    def ended(self) -> list[models.Model]:
        """The rows that go along and have a record of their own, as they are stored."""
        return [row for model, ids in self._ended.items() for row in model._base_manager.filter(pk__in=ids)]

    def along(self) -> Counter[type[models.Model]]:
        """How many rows of each kind go along."""
        counts = Counter({kind: len(rows) for kind, rows in self.data.items() if kind is not type(self.rows[0])})
        for rows in self.fast_deletes:
            counts[rows.model] += rows.count()
        return +counts

    def lost(self) -> Counter[type[models.Model]]:
        """How many rows of each kind go along that have no record of their own."""
        return Counter({kind: count for kind, count in self.along().items() if kind not in self._ended})
