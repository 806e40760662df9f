"""Times as people read them: how long ago at a glance, exactly in the tooltip."""

from datetime import datetime, timedelta

from django.utils.html import format_html
from django.utils.safestring import SafeString

from environments import times

#: Units with their seconds, the longest first, and how long each is used at least before the next smaller one.
UNITS = (("d", 86_400, 2), ("h", 3_600, 2), ("min", 60, 2), ("s", 1, 0))


def distance(span: timedelta) -> str:
    """A span of time in its largest fitting unit, such as `12 s` or `3 d`."""
    seconds = max(0, int(abs(span.total_seconds())))
    name, size = next((name, size) for name, size, least in UNITS if seconds >= size * least)
    return f"{seconds // size} {name}"


def relative(value: datetime, now: datetime) -> str:
    """`12 s ago`, or `in 3 d` for what is to come."""
    return f"{distance(now - value)} ago" if value <= now else f"in {distance(value - now)}"


def moment(value: datetime | None, nothing: str = "never", *, now: datetime | None = None) -> SafeString:
    """A time as an element that a script keeps fresh; its tooltip has the time in UTC, and in the reader's own."""
    if value is None:
        return format_html("{}", nothing)
    exact = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return format_html(
        '<time datetime="{}" title="{}" data-moment>{}</time>',
        value.isoformat(timespec="seconds"),
        exact,
        relative(value, now or times.now()),
    )
