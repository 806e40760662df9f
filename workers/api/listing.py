"""What lists have in common: their order, their filters, and which part of one is answered."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any

from django.core import signing
from django.db.models import Case, Q, QuerySet, Value, When
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.serializers import Serializer

from environments.database.statements import fetched
from workers.api.requests import InvalidQueryError, valid_query
from workers.api.serializers.queues import PageSerializer

#: Existing clients take the first one for the one that is meant where nobody has said which.
DEFAULT_FIRST = ("rank", "created_at", "pk")
RANK = Case(When(name="default", then=Value(0)), default=Value(1))
BY_NAME = ("name", "pk")
OLDEST_FIRST = ("created_at", "pk")
#: The header that says where the next part of a list begins that has no other place for it.
NEXT = "X-Next-Cursor"
SALT = "workers.api.listing"
#: Of those that are handed out: with a person's name of 150 characters, each of which JSON may write as twelve.
LONGEST_CURSOR = 3_000


class FilterSerializer(serializers.Serializer[dict[str, Any]]):
    """What every list can be asked for."""

    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)
    cursor = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=LONGEST_CURSOR,
        help_text="The `next_cursor` of the part before, to go on after it.",
    )


def page(
    request: Request,
    rows: QuerySet[Any],
    filters: type[Serializer[Any]] = PageSerializer,
    lookups: Mapping[str, str] | None = None,
) -> tuple[list[Any], dict[str, str]]:
    """The part that the query string asks for, `default` first and then the oldest, and headers with the count.

    `lookups` are those of the filters, by their names.
    """
    asked = valid_query(request, filters)
    rows = narrowed(rows, asked, lookups or {}).annotate(rank=RANK).order_by(*DEFAULT_FIRST)
    if not asked.get("cursor"):
        found, headers = part(asked, rows)
        is_more = asked["offset"] + len(found) < int(headers["X-Total-Count"])
    else:
        headers = {"X-Total-Count": str(rows.count())}
        found, is_more = _after(asked, rows, DEFAULT_FIRST)
    if is_more and found:
        headers[NEXT] = _cursor(found[-1], DEFAULT_FIRST)
    return found, headers


def part(asked: dict[str, Any], rows: QuerySet[Any]) -> tuple[list[Any], dict[str, str]]:
    """The part that is asked for, in the order of the rows, and how many there are in all."""
    start, limit = asked["offset"], asked["limit"]
    found = fetched(rows[start : start + limit])
    is_end = len(found) < limit and (found or not start)
    return found, {"X-Total-Count": str(start + len(found) if is_end else rows.count())}


def slice_of(asked: Mapping[str, Any], rows: QuerySet[Any], order: tuple[str, ...]) -> tuple[list[Any], str | None]:
    """The part after the cursor, in an order that ends with the id, and the cursor of the next one if there is any."""
    found, is_more = _after(asked, rows.order_by(*order), order)
    return found, _cursor(found[-1], order) if is_more else None


def narrowed(rows: QuerySet[Any], asked: Mapping[str, Any], lookups: Mapping[str, str]) -> QuerySet[Any]:
    """The rows that are as the query string asks; what it does not ask for may be as it is."""
    return rows.filter(**{lookup: asked[name] for name, lookup in lookups.items() if asked.get(name) is not None})


def each(serializer_class: type[Serializer[Any]], rows: Any) -> Any:
    """What the serializer makes of each row; of a thousand rows DRF's own way there takes as long as all else."""
    shape, members = _members_of(serializer_class)
    if type(shape).to_representation is not Serializer.to_representation:
        return [shape.to_representation(row) for row in rows]
    found = []
    for row in rows:
        values = [(name, read(row), shown) for name, read, shown in members]
        found.append({name: None if value is None else shown(value) for name, value, shown in values})
    return found


@cache
def _members_of(serializer_class: type[Serializer[Any]]) -> tuple[Any, list[tuple[str, Any, Any]]]:
    """The serializer, and each member with what reads it of a row and what shows it."""
    shape = serializer_class()
    return shape, [(name, _reader_of(field), _shower_of(field)) for name, field in shape.fields.items()]


def _shower_of(field: Any) -> Any:
    """What shows a member's value; DRF looks for each time which zone counts, and all of ours are in UTC."""
    if type(field) is not serializers.DateTimeField:
        return field.to_representation

    def show(value: datetime) -> Any:
        return f"{value.isoformat()[:-6]}Z" if value.tzinfo is UTC else field.to_representation(value)

    return show


def _reader_of(field: Any) -> Any:
    """What reads a member's value, without a look at each step whether it is a mapping or to be called."""
    is_plain = field.source_attrs and field.default is serializers.empty
    return attrgetter(field.source) if is_plain else field.get_attribute


@cache
def page_of(serializer_class: type[Serializer[Any]], name: str) -> type[Serializer[Any]]:
    """The shape of a part of a list of these."""

    @extend_schema_serializer(component_name=f"{name}Page")
    class Page(serializers.Serializer[dict[str, Any]]):
        """A part of a list; `next_cursor` is null in the last one."""

        items = serializer_class(many=True)
        next_cursor = serializers.CharField(allow_null=True)

    return Page


def _after(asked: Mapping[str, Any], rows: QuerySet[Any], order: tuple[str, ...]) -> tuple[list[Any], bool]:
    """The rows after the cursor, as many as are asked for, and whether more follow."""
    if text := asked["cursor"]:
        try:
            told_order, values = signing.loads(text, salt=SALT)
        except signing.BadSignature:
            told_order, values = None, ()
        if told_order != list(order):
            raise InvalidQueryError({"cursor": ["invalid"]})
        rows = rows.filter(_beyond(order, values))
    found = fetched(rows[: asked["limit"] + 1])
    return found[: asked["limit"]], len(found) > asked["limit"]


def _beyond(order: tuple[str, ...], values: list[Any]) -> Q:
    """What comes after the row of these values."""
    found = Q()
    for place, name in enumerate(order):
        same = Q(**dict(zip(order[:place], values, strict=False)))
        found |= same & Q(**{f"{name}__gt": values[place]})
    # Said twice, since databases find their way by the first.
    return Q(**{f"{order[0]}__gte": values[0]}) & found


def _cursor(row: Any, order: tuple[str, ...]) -> str:
    """Where the row is; signed, so that nobody has to look at what comes back."""
    return signing.dumps([order, [_plain(_value(row, name)) for name in order]], salt=SALT, compress=False)


def _value(row: Any, path: str) -> Any:
    for name in path.split("__"):
        row = getattr(row, name)
    return row


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else value.isoformat() if hasattr(value, "isoformat") else str(value)
