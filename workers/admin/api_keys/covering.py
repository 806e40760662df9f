"""The API keys that a worker can start with, and how each of them is."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Case, Q, QuerySet, When

from workers.admin.api_keys.listing import state_of
from workers.admin.links import Link, link_to
from workers.api_keys.usage import last_used
from workers.models import ApiKey, Worker


@dataclass(frozen=True)
class ShownKey:
    """A key as the page of a worker tells of it."""

    row: ApiKey
    link: Link
    state: str
    color: str
    target: Link | None = None
    last_used_at: datetime | None = None


def keys_by_id(ids: Iterable[UUID | None], organization_id: str, now: datetime) -> dict[UUID, ShownKey]:
    """The organization's keys of these ids; one statement, none for no ids."""
    known = {identifier for identifier in ids if identifier}
    rows = ApiKey.objects.filter(organization=organization_id).in_bulk(known) if known else {}
    return {identifier: ShownKey(row, link_to(row), *state_of(row, now)) for identifier, row in rows.items()}


def keys_covering(worker: Worker, now: datetime, limit: int) -> list[ShownKey]:
    """The keys within whose scope the worker is, those that still work first; three statements."""
    is_ended = Q(revoked_at__isnull=False) | Q(expires_at__lte=now)
    rows = _covering(worker).select_related("organization", "worker", "queue__environment", "environment")
    found = list(rows.order_by(Case(When(is_ended, then=1), default=0), "-created_at")[:limit])
    used = last_used([row.pk for row in found])
    return [ShownKey(row, link_to(row), *state_of(row, now), link_to(row.target), used.get(row.pk)) for row in found]


def _covering(worker: Worker) -> QuerySet[ApiKey]:
    """The same rule as `ApiKey.covers`; organization keys are those without target, which has an index."""
    scopes = Q(worker=worker.pk) | Q(queue=worker.queue_id) | Q(environment=worker.queue.environment_id)
    is_for_all = Q(worker=None, queue=None, environment=None)
    return ApiKey.objects.filter(scopes | is_for_all, organization=worker.organization_id)
