"""Columns of the list of workers that a person may choose; the choice is in the address, as filters are."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ORDER_VAR
from django.http import HttpRequest, QueryDict

#: Value in the address -> its text, and the columns that it adds.
CHOICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "labels": ("Labels", ("labels",)),
    "version": ("Version", ("version",)),
    "all": ("Labels and version", ("labels", "version")),
}
PARAMETER = "columns"


class ColumnsFilter(admin.SimpleListFilter):
    """Offers the columns among the filters; leaves all rows."""

    title = "further columns"
    parameter_name = PARAMETER

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(value, text) for value, (text, _) in CHOICES.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        return queryset

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """Without the order, which names columns by their numbers; the list keeps it by their names."""
        for choice in super().choices(changelist):
            yield {**choice, "query_string": _without_order(str(choice["query_string"]))}


def chosen_columns(request: HttpRequest) -> tuple[str, ...]:
    """What is shown beside the usual columns."""
    _, columns = CHOICES.get(request.GET.get(PARAMETER, ""), ("", ()))
    return columns


def _without_order(query_string: str) -> str:
    query = QueryDict(query_string.removeprefix("?"), mutable=True)
    query.pop(ORDER_VAR, None)
    return f"?{query.urlencode()}"
