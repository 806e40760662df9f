"""Of what is gone, what is no news: its subject was deleted, or only time has passed."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import batched
from typing import NamedTuple, Protocol
from uuid import UUID

from django.db.models import Model, Q

from environments import audit
from environments.models.connections import CONNECTION_KINDS
from workers.models import ApiKey, Event, RefusedStart, Worker, WorkerQueue
from workers.reports.attention import refused_starts
from workers.reports.standing import HOST

SUBJECTS: tuple[type[Model], ...] = (Worker, WorkerQueue, ApiKey, *CONNECTION_KINDS)
#: Those that are rows, by their kind.
KINDS: dict[str, type[Model]] = {
    audit.kind_of(kind()): kind for kind in (Worker, WorkerQueue, ApiKey, *CONNECTION_KINDS)
}
#: Subjects that are looked for at once.
AT_ONCE = 5_000
EVER = datetime(1970, 1, 1, tzinfo=UTC)


class Gone(Protocol):
    """An incident that is gone."""

    @property
    def id(self) -> UUID: ...
    @property
    def event(self) -> str: ...
    @property
    def subject_type(self) -> str: ...
    @property
    def subject_id(self) -> str: ...


class _Kind(NamedTuple):
    event: str
    subject_type: str


def without_news(gone: Iterable[Gone], now: datetime) -> set[UUID]:
    """The ids of those of which nobody is told that they are over; one or two statements for each kind of them."""
    by_kind = defaultdict[_Kind, dict[str, UUID]](dict)
    for each in gone:
        by_kind[_Kind(each.event, each.subject_type)][each.subject_id] = each.id
    found = set[UUID]()
    for kind, ids in by_kind.items():
        for part in batched(ids, AT_ONCE):
            told = _news_of(kind, part, now)
            found.update(ids[subject] for subject in part if subject not in told)
    return found


def _news_of(kind: _Kind, subjects: Iterable[str], now: datetime) -> set[str]:
    if kind.event == Event.REFUSED:
        return _answered(kind, subjects)
    if kind.subject_type not in KINDS:
        return set(subjects)
    rows = KINDS[kind.subject_type]._default_manager.filter(pk__in=list(subjects)).order_by()
    if kind.event == Event.EXPIRING and kind.subject_type == audit.kind_of(ApiKey()):
        rows = rows.filter(Q(expires_at=None) | Q(expires_at__gt=now))  # what has expired is not saved by its age
    return {str(pk) for pk in rows.values_list("pk", flat=True)}


def _answered(kind: _Kind, subjects: Iterable[str]) -> set[str]:
    """Those that have started since: their refusal is on record, and is not their latest start."""
    column = "pk" if kind.subject_type == HOST else "worker_id"
    some = Q(**{f"{column}__in": list(subjects)})
    rows, still = RefusedStart.objects.filter(some).order_by(), refused_starts(EVER).filter(some)
    left, refused = (set(found.values_list(column, flat=True)) for found in (rows, still))
    return {str(pk) for pk in left - refused}
