"""What the console tells before it deletes rows: what goes along with them, and what stands in the way."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from django.db import models
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from environments.database.removal import MOST_BARRIERS, Removal

#: Rows that one selection deletes at most; their page lists them all.
MOST_DELETED = 500
#: Rows of one kind that are named; of more there is only their number.
MOST_NAMED = 10
#: What stands in the way for good.
KEPT = frozenset({"auditevent", "workerstart", "datakey"})


def going(removal: Removal) -> list[SafeString]:
    """The rows themselves, and of what goes along with them how many of each kind."""
    along = (
        format_html("{} of it {} along", _number(kind, count), "goes" if count == 1 else "go")
        for kind, count in removal.along().items()
    )
    return [*(format_html("{}: {}", _name(type(row)), _link(row)) for row in removal.rows), *along]


def barriers(removal: Removal) -> Iterator[SafeString]:
    """The rows that have to go or to let go first, by kinds."""
    ids = defaultdict(list)
    for row in removal.barriers:
        ids[type(row)].append(row.pk)
    for kind, found in ids.items():
        shown = kind._default_manager.filter(pk__in=sorted(found)[:MOST_NAMED])
        links = format_html_join(", ", "{}", ((_link(row),) for row in shown))
        more = f" and {len(found) - MOST_NAMED:,} more" if len(found) > MOST_NAMED else ""
        kept = " (on record for good, so this cannot be deleted)" if kind._meta.model_name in KEPT else ""
        yield format_html("{}{}: {}{}", _number(kind, len(found)), kept, links, more)


def _number(kind: type[models.Model], count: int) -> str:
    names = kind._meta.verbose_name if count == 1 else kind._meta.verbose_name_plural
    return f"{f'more than {MOST_BARRIERS:,}' if count > MOST_BARRIERS else count} {names}"


def _name(kind: type[models.Model]) -> str:
    return capfirst(str(kind._meta.verbose_name))


def _link(row: Any) -> SafeString:
    """The row's name, and a link where it has a page."""
    name = format_html("<bdi>{}</bdi>", str(row))
    try:
        address = reverse(f"admin:{row._meta.label_lower.replace('.', '_')}_change", args=[row.pk])
    except NoReverseMatch:
        return name
    return format_html('<a class="cp-link" href="{}">{}</a>', address, name)
