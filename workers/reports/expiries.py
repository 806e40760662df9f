"""What expires and when: API keys, and the credentials of connections, as a calendar by month. All days are UTC's."""

from calendar import Calendar
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Coalesce, TruncDate

from environments.models import CredentialConnection
from workers.api_keys.usage import live_workers
from workers.models import ApiKey, Worker
from workers.models.api_keys import EXPIRY_WARNING_DAYS, ApiKeyQuerySet

MONTHS_SHOWN = 3
#: How many rows a list of what expires shows.
MOST_ROWS = 100
#: A key that expired longer ago is history.
OVERDUE_FOR = timedelta(days=30)
#: Where a worker's connection comes from, the narrowest level first, as `levels.resolve` has it.
LEVELS = ("", "queue__", "queue__environment__", "organization__")


@dataclass(frozen=True)
class Expiring:
    """Something that expires, and how many workers that concerns: run with the key, or are given the credential."""

    day: date
    row: ApiKey | CredentialConnection
    workers: int

    @property
    def kind(self) -> str:
        """The name of its model, as addresses of the console have it."""
        return str(self.row._meta.model_name)


@dataclass(frozen=True)
class Expiries:
    """The first of what expires within a time, the earliest first, and whether there is more."""

    rows: list[Expiring]
    is_cut: bool = False


@dataclass(frozen=True)
class Day:
    """One day of the picture."""

    date: date
    keys: int = 0
    credentials: int = 0


@dataclass(frozen=True)
class Month:
    """A month as weeks of seven days from Monday on; None stands for days of other months."""

    first: date
    weeks: list[list[Day | None]]


@dataclass(frozen=True)
class Sources:
    """What may expire, as far as the reader may see it; the connections by their kind."""

    keys: QuerySet[ApiKey]
    connections: Mapping[str, QuerySet[Any]]


def ending(keys: QuerySet[ApiKey], first: date, end: date) -> QuerySet[ApiKey]:
    """Of keys those that expire from one day to before another, the revoked ones left out."""
    times = [datetime.combine(day, time(), UTC) for day in (first, end)]
    return keys.filter(revoked_at=None, expires_at__gte=times[0], expires_at__lt=times[1])


def to_be_warned_of(keys: ApiKeyQuerySet, now: datetime) -> ApiKeyQuerySet:
    """Of keys those of whose end somebody has to know: without a successor, not revoked, not over for long.

    One that was issued for a day or two ends as it was meant to.
    """
    lately = keys.without_short_lived().filter(Q(expires_at=None) | Q(expires_at__gt=now - OVERDUE_FOR))
    return lately.filter(revoked_at=None, replaced_by=None)


def month_after(first: date, months: int) -> date:
    """The first day of the month so many months later."""
    years, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    return date(years, month + 1, 1)


def months_from(first: date, sources: Sources) -> list[Month]:
    """Three months with how much expires each day; one statement for keys and one for each kind of connection."""
    firsts = [month_after(first, months) for months in range(MONTHS_SHOWN)]
    end = month_after(first, MONTHS_SHOWN)
    days = ending(sources.keys, first, end).order_by().annotate(day=TruncDate("expires_at", tzinfo=UTC))
    keys = dict(days.values_list("day").annotate(Count("pk")))
    credentials: Counter[date] = Counter()
    for rows in sources.connections.values():
        found = rows.filter(api_key_expires_on__gte=first, api_key_expires_on__lt=end).order_by()
        credentials.update(dict(found.values_list("api_key_expires_on").annotate(Count("pk"))))
    return [Month(month, _weeks(month, keys, credentials)) for month in firsts]


def _weeks(month: date, keys: Mapping[date, int], credentials: Mapping[date, int]) -> list[list[Day | None]]:
    weeks = Calendar().monthdatescalendar(month.year, month.month)
    return [
        [Day(day, keys.get(day, 0), credentials.get(day, 0)) if day.month == month.month else None for day in week]
        for week in weeks
    ]


def coming(sources: Sources, first: date, end: date, now: datetime) -> Expiries:
    """What expires from one day to before another and has not yet."""
    keys = ending(sources.keys, first, end).filter(expires_at__gt=now)
    return _expiries(keys, sources.connections, max(first, now.date()), end, now)


def overdue(sources: Sources, now: datetime) -> Expiries:
    """Credentials past their day, and keys that lately expired without a successor."""
    keys = sources.keys.filter(revoked_at=None, replaced_by=None, expires_at__gt=now - OVERDUE_FOR, expires_at__lte=now)
    return _expiries(keys, sources.connections, date.min, now.date(), now)


def urgency(day: date, today: date) -> int:
    """The most urgent of EXPIRY_WARNING_DAYS that has been reached, 0 for a day that is over, and -1 for none."""
    if day < today:
        return 0
    return min((days for days in EXPIRY_WARNING_DAYS if (day - today).days <= days), default=-1)


def workers_given(kind: str, connections: Sequence[CredentialConnection]) -> dict[UUID, int]:
    """How many workers are given each of the connections, which are of one kind; one statement."""
    pointer = kind.replace("connection", "_connection")
    given = Coalesce(*(f"{level}{pointer}_id" for level in LEVELS))
    workers = Worker.objects.filter(organization__in={connection.organization_id for connection in connections})
    found = workers.alias(given=given).filter(given__in=[connection.pk for connection in connections])
    return dict(found.order_by().values_list(given).annotate(Count("pk")))


def _expiries(
    keys: QuerySet[ApiKey], connections: Mapping[str, QuerySet[Any]], first: date, end: date, now: datetime
) -> Expiries:
    found = list(keys.order_by("expires_at", "pk")[: MOST_ROWS + 1])
    live = live_workers([key.pk for key in found], now) if found else {}
    rows = [Expiring(key.expires_at.date(), key, live.get(key.pk, 0)) for key in found if key.expires_at]
    for kind, every in connections.items():
        within = every.filter(api_key_expires_on__gte=first, api_key_expires_on__lt=end)
        some = list(within.order_by("api_key_expires_on", "pk")[: MOST_ROWS + 1])
        given = workers_given(kind, some) if some else {}
        rows += [Expiring(row.api_key_expires_on, row, given.get(row.pk, 0)) for row in some]
    rows.sort(key=lambda expiring: expiring.day)
    return Expiries(rows[:MOST_ROWS], len(rows) > MOST_ROWS)
