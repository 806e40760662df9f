"""A filter of lists by period."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from environments import times
from environments.times import parse_time

#: What a list offers.
PERIODS = {"24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days"}


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
