"""What time it is: the database's time, where that has a clock of its own, so that no machine's clock decides anything.

A machine whose clock is off would show living workers as Offline, note heartbeats that are yet to come, and keep keys
alive. So a process that serves asks the database now and then (`follow`), and in between counts on by a clock that no
correction moves. Where nobody has asked, as in a command, it is this machine's time, and `manage.py doctor` tells when
that is off.
"""

import re
import time
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

SPAN = re.compile(r"([0-9]{1,5})(min|h|d)", re.ASCII)
UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

#: The database's time when it was asked, and the counting clock then.
_asked: tuple[datetime, float] | None = None


def now() -> datetime:
    """The time by which everything is decided and recorded."""
    if _asked is None:
        return timezone.now()
    then, counted = _asked
    return then + timedelta(seconds=time.monotonic() - counted)


def follow() -> None:
    """Asks the database; SQLite's time is this machine's, so there is nothing to ask."""
    global _asked  # noqa: PLW0603  # it is the process's own
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        began = time.monotonic()
        cursor.execute("SELECT clock_timestamp()")
        (found,) = cursor.fetchone()
    _asked = found, (began + time.monotonic()) / 2


def forget() -> None:
    """Goes by this machine's time again."""
    global _asked  # noqa: PLW0603  # as above
    _asked = None


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
