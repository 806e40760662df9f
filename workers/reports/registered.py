"""What a reader is told of registered workers and of API keys, by the same rules that the console shows."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from environments import audit
from environments.audit import Provenance
from environments.models import Organization
from workers.api_keys.usage import last_used
from workers.models import ApiKey, Worker
from workers.models.states import state_of
from workers.models.workers import WorkerQuerySet

#: What a key may be.
KEY_STATES = ("usable", "expired", "revoked")


@dataclass(frozen=True)
class DescribedWorker:
    """A worker, loaded with its liveness and its queue, and its history."""

    row: Worker
    provenance: Provenance


@dataclass(frozen=True)
class DescribedOrganization:
    """An organization."""

    row: Organization


@dataclass(frozen=True)
class DescribedKey:
    """An API key, and when it was seen last."""

    row: ApiKey
    state: str
    last_used_at: datetime | None


def with_what_is_told(workers: WorkerQuerySet, now: datetime) -> WorkerQuerySet:
    """The workers loaded with what `describe_workers` needs."""
    return workers.with_liveness(now).annotate(state=state_of(now)).select_related("queue__environment")


def describe_workers(workers: Iterable[Worker], now: datetime) -> list[DescribedWorker]:
    """Workers of one organization as they are now, in their order; one statement."""
    rows = list(workers)
    for row in rows:
        row.forget_ended(now)
    history = audit.provenance_of([row.pk for row in rows], rows[0].organization_id) if rows else {}
    return [DescribedWorker(row, history.get(str(row.pk), Provenance(None, row.created_at))) for row in rows]


def describe_keys(keys: Iterable[ApiKey], now: datetime) -> list[DescribedKey]:
    """API keys in their order; two statements."""
    rows = list(keys)
    used = last_used([row.pk for row in rows]) if rows else {}
    return [DescribedKey(row, state_of_key(row, now), used.get(row.pk)) for row in rows]


def state_of_key(row: ApiKey, now: datetime) -> str:
    """Whether it works, in a word: `usable`, `expired` or `revoked`."""
    if row.revoked_at is not None:
        return "revoked"
    return "usable" if row.is_usable(now) else "expired"
