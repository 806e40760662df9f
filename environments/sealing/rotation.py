"""Rotation of encryption: rewraps data keys under the active key of the ring, and reseals secrets under new data keys.

Both can be stopped and run again: they look for what is not yet on the active key. Each row is written only if it is
still what was read, so a concurrent edit is never lost; it is found again in the next pass. While a row is waited for,
no other is held: an edit may hold it and want what would be held.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from django.apps import apps
from django.db import models, transaction
from django.db.models import Count
from django.db.models.functions import Substr

from environments import audit
from environments.audit import Actor
from environments.encryption import VERSION, CannotOpenError
from environments.fields import SealedField
from environments.models import DataKey
from environments.sealing.data_keys import (
    count_seals,
    create_data_key,
    fingerprint_key_of,
    key_ring,
    open_sealed,
    place_of,
    unwrap,
    verify_known_answer,
    wrap,
)

BATCH = 100
#: An edit that began before a new data key became active may still end on the old one; it is found in a later pass.
PASSES = 5
#: Of a data key's id, as it is written in what the key sealed.
UUID_LENGTH = 36


class SealedColumn(NamedTuple):
    """A sealed column that a data key seals."""

    model: type[models.Model]
    field: str


class RingSealed(Protocol):
    """Secrets of an app above this one that belong to no organization, so the ring's keys seal them themselves."""

    @property
    def name(self) -> str:
        """What they are, in the plural."""

    def rows(self) -> Iterable[Any]:
        """The rows that hold such a secret."""

    def is_current(self, row: Any) -> bool:
        """Whether the ring's active key sealed it."""

    def rewrap(self, row: Any) -> None:
        """Seals it under the ring's active key; CannotOpenError leaves it as it is."""

    def verify(self, row: Any) -> None:
        """CannotOpenError unless it opens."""


class Progress(NamedTuple):
    """How far a step is: rows done of rows to do."""

    done: int
    total: int


def sealed_columns() -> list[SealedColumn]:
    """Every sealed column of every model, but for the data keys themselves: found, not listed."""
    return [
        SealedColumn(model, field.name)
        for model in apps.get_models()
        if model is not DataKey
        for field in model._meta.concrete_fields
        if isinstance(field, SealedField)
    ]


def ring_sealed() -> list[RingSealed]:
    """What each app has declared as its `ring_sealed`: found in the registry, not listed."""
    return [kind for config in apps.get_app_configs() for kind in getattr(config, "ring_sealed", ())]


def sealed_rows(column: SealedColumn) -> "models.QuerySet[models.Model]":
    """The rows that hold a secret in a sealed column."""
    return column.model._default_manager.exclude(**{column.field: ""}).order_by("pk")


def data_keys_to_rewrap() -> "models.QuerySet[DataKey]":
    """Data keys that another key than the ring's active one wraps."""
    return DataKey.objects.exclude(wrapped_by=key_ring().active.id).order_by("pk")


def data_keys_to_replace(made_before: datetime) -> "models.QuerySet[DataKey]":
    """Active data keys made before a time."""
    return DataKey.objects.filter(active_for__isnull=False, created_at__lt=made_before).order_by("pk")


def rewrap_data_keys(*, actor: Actor, now: datetime) -> Iterator[Progress]:
    """Wraps every data key with the ring's active key, each in a transaction of its own; secrets stay untouched.

    This and the next three go on past what cannot be opened, and raise RowsCannotOpenError after the rest is done.
    """
    failures = Failures()
    total = data_keys_to_rewrap().count()
    done = 0
    for batch in _batches(data_keys_to_rewrap()):
        for row in batch:
            failures.attempt(_rewrap, row, actor=actor, now=now)
        done += len(batch)
        yield Progress(done, max(total, done))
    failures.raise_any()


def rewrap_ring_sealed(kind: RingSealed) -> Iterator[Progress]:
    """Seals each of these secrets that is not under the ring's active key under that one."""
    failures = Failures()
    rows = rows_to_rewrap(kind)
    for done, row in enumerate(rows, 1):
        failures.attempt(kind.rewrap, row)
        yield Progress(done, len(rows))
    failures.raise_any()


def rows_to_rewrap(kind: RingSealed) -> list[Any]:
    """The rows of a kind that another key than the ring's active one sealed."""
    return [row for row in kind.rows() if not kind.is_current(row)]


def replace_data_keys(*, made_before: datetime, actor: Actor, now: datetime) -> Iterator[Progress]:
    """Gives every organization whose data key was made before a time a new one; the old one still opens."""
    failures = Failures()
    rows = list(data_keys_to_replace(made_before))
    for done, row in enumerate(rows, 1):
        failures.attempt(_replace, row, actor=actor, now=now)
        yield Progress(done, len(rows))
    failures.raise_any()


def reseal_secrets() -> Iterator[Progress]:
    """Seals every secret that is not under its organization's active data key under that one."""
    for _ in range(PASSES):
        failures = Failures()
        remaining = count_secrets_to_reseal()
        done = 0
        for data_key in DataKey.objects.filter(active_for__isnull=False).order_by("pk").iterator():
            for column in sealed_columns():
                for batch in _batches(_to_reseal(column, data_key)):
                    count_seals(data_key, len(batch))
                    for row in batch:
                        failures.attempt(_reseal, row, column, data_key)
                    done += len(batch)
                    yield Progress(done, max(remaining, done))
        if count_secrets_to_reseal() == len(failures.errors):
            break
    failures.raise_any()


def count_secrets_to_reseal(of_every: Collection[str] = ()) -> int:
    """Secrets that are not under their organization's active data key; all secrets of the organizations `of_every`."""
    return sum(
        (
            sealed_rows(column).filter(organization=data_key.organization_id)
            if data_key.organization_id in of_every
            else _to_reseal(column, data_key)
        ).count()
        for data_key in DataKey.objects.filter(active_for__isnull=False).iterator()
        for column in sealed_columns()
    )


def count_sealed() -> int:
    """How much `verify_all` has to open."""
    secrets = sum(sealed_rows(column).count() for column in sealed_columns())
    return DataKey.objects.count() + secrets + sum(len(list(kind.rows())) for kind in ring_sealed())


class Standing(NamedTuple):
    """How far a rotation is for one kind of what keys seal: under the active key, and under older ones."""

    kind: str
    current: int
    older: int


def standings() -> Iterator[Standing]:
    """Of everything that a key seals; one statement for each sealed column, and one for the active data keys."""
    wrapped = DataKey.objects.order_by().values_list("wrapped_by").annotate(count=Count("*"))
    yield _standing("data keys", dict(wrapped), {key_ring().active.id})
    active = {
        str(pk) for pk in DataKey.objects.filter(active_for__isnull=False).order_by().values_list("pk", flat=True)
    }
    counts: dict[str, Counter[str]] = defaultdict(Counter)  # a kind of row may have several sealed columns
    for column in sealed_columns():
        key_id = Substr(column.field, len(VERSION) + 2, UUID_LENGTH)
        found = sealed_rows(column).order_by().annotate(key_id=key_id).values_list("key_id").annotate(count=Count("*"))
        counts[str(column.model._meta.verbose_name_plural)].update(dict(found))
    for name, by_key in counts.items():
        yield _standing(name, by_key, active)
    for kind in ring_sealed():
        rows = list(kind.rows())
        current = sum(kind.is_current(row) for row in rows)
        yield Standing(kind.name, current, len(rows) - current)


def _standing(kind: str, counts: Mapping[str, int], active: Collection[str]) -> Standing:
    """From the number of rows by the id of the key that seals them."""
    current = sum(count for key_id, count in counts.items() if key_id in active)
    return Standing(kind, current, sum(counts.values()) - current)


def verify_all() -> Iterator[CannotOpenError | None]:
    """Opens every data key and every secret; yields None for each that opens and the error for each that does not."""
    for data_key in DataKey.objects.order_by("pk").iterator():
        yield Failures().attempt(verify_known_answer, data_key)
    for column in sealed_columns():
        for row in sealed_rows(column).iterator():
            yield Failures().attempt(open_sealed, row, column.field)
    for kind in ring_sealed():
        for row in kind.rows():
            yield Failures().attempt(kind.verify, row)


class RowsCannotOpenError(Exception):
    """Some rows could not be opened and stay as they were; the others are done."""

    def __init__(self, errors: list[CannotOpenError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))
        self.errors = errors


class Failures:
    """Collects what cannot be opened, so that one damaged row does not keep everybody on an old key."""

    def __init__(self) -> None:
        self.errors: list[CannotOpenError] = []

    def attempt(self, step: Callable[..., object], *arguments: Any, **kwargs: Any) -> CannotOpenError | None:
        """Runs a step in a transaction; the error if something in it does not open."""
        try:
            with transaction.atomic():
                step(*arguments, **kwargs)
        except CannotOpenError as error:
            self.errors.append(error)
            return error
        return None

    def raise_any(self) -> None:
        """RowsCannotOpenError if anything failed."""
        if self.errors:
            raise RowsCannotOpenError(self.errors)


def _batches(rows: "models.QuerySet[Any]") -> Iterator[list[Any]]:
    """The rows in the order of their ids, each batch read when the one before is done."""
    batch = list(rows[:BATCH])
    while batch:
        yield batch
        batch = list(rows.filter(pk__gt=batch[-1].pk)[:BATCH])


def _rewrap(row: DataKey, *, actor: Actor, now: datetime) -> None:
    old_text, old_id = row.wrapped_key, row.wrapped_by
    wrap(row, unwrap(row))
    same = DataKey.objects.filter(pk=row.pk, wrapped_key=old_text)
    if same.update(wrapped_key=row.wrapped_key, wrapped_by=row.wrapped_by):
        changes = {"wrapped_by": [old_id, row.wrapped_by]}
        audit.record("data_key.rewrapped", row, actor=actor, now=now, changes=changes)


def _replace(row: DataKey, *, actor: Actor, now: datetime) -> None:
    if not DataKey.objects.filter(pk=row.pk, active_for=row.organization_id).update(active_for=None):
        return
    successor, _ = create_data_key(row.organization_id, fingerprint_key=fingerprint_key_of(row, unwrap(row)))
    changes = {"successor": [None, str(successor.pk)]}
    audit.record("data_key.replaced", row, actor=actor, now=now, changes=changes)


def _to_reseal(column: SealedColumn, data_key: DataKey) -> "models.QuerySet[models.Model]":
    own = sealed_rows(column).filter(organization=data_key.organization_id)
    return own.exclude(**{f"{column.field}__startswith": f"{VERSION}.{data_key.pk}."})


def _reseal(row: models.Model, column: SealedColumn, data_key: DataKey) -> None:
    old_text = getattr(row, column.field)
    new_text = unwrap(data_key).seal(open_sealed(row, column.field), place_of(row, column.field))
    same = column.model._default_manager.filter(pk=row.pk, **{column.field: old_text})
    same.update(**{column.field: new_text})
