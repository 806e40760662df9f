"""What lists have in common: their order, and which part of one is answered."""

from typing import Any

from django.db.models import Case, QuerySet, Value, When
from rest_framework.request import Request
from rest_framework.serializers import Serializer

from workers.api.requests import valid_query
from workers.api.serializers.queues import PageSerializer

#: Existing clients take the first one for the one that is meant where nobody has said which.
DEFAULT_FIRST = (Case(When(name="default", then=Value(0)), default=Value(1)), "created_at", "pk")


def page(request: Request, rows: QuerySet[Any]) -> tuple[list[Any], dict[str, str]]:
    """The part that the query string asks for, `default` first and then the oldest, and a header with the count."""
    return part(valid_query(request, PageSerializer), rows.order_by(*DEFAULT_FIRST))


def part(asked: dict[str, Any], rows: QuerySet[Any]) -> tuple[list[Any], dict[str, str]]:
    """The part that is asked for, in the order of the rows, and how many there are in all."""
    start = asked["offset"]
    return list(rows[start : start + asked["limit"]]), {"X-Total-Count": str(rows.count())}


def each(serializer_class: type[Serializer[Any]], rows: Any) -> Any:
    """What the serializer makes of each row."""
    return serializer_class(rows, many=True).data
