"""Times as people name them: a filter of lists by period, and what a command is told of when."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from environments import times

#: What a list offers.
PERIODS = {"24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days"}
SPAN = re.compile(r"([0-9]{1,5})(min|h|d)", re.ASCII)
UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def parse_time(text: str, now: datetime) -> datetime:
    """The time that is meant by `24h`, `7d` or `30min` before now, or by an ISO date or time, UTC unless it says more.

    ValueError for anything else.
    """
    if match := SPAN.fullmatch(text):
        return now - int(match[1]) * UNITS[match[2]]
    found = parse_datetime(text)
    if found is None and (day := parse_date(text)):
        found = datetime(day.year, day.month, day.day)  # noqa: DTZ001  # made aware below
    if found is None:
        msg = "expected a time such as 24h, 7d, 2026-03-31 or 2026-03-31T09:30:00Z"
        raise ValueError(msg)
    try:
        return (found if timezone.is_aware(found) else found.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        msg = "expected a time within the years 1 to 9999"
        raise ValueError(msg) from None


class PeriodFilter(admin.SimpleListFilter):
    """Rows of the last day, week or month; a subclass names the field that says when."""

    title = "period"
    parameter_name = "period"
    #: The field with the row's time, which should be indexed.
    field: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return list(PERIODS.items())

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        period = self.value()
        if period not in PERIODS:
            return queryset
        return queryset.filter(**{f"{self.field}__gte": parse_time(period, times.now())})
