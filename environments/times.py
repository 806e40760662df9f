"""What time it is: the database's time, where that has a clock of its own, so that no machine's clock decides anything.

A machine whose clock is off would show living workers as Offline, note heartbeats that are yet to come, and keep keys
alive. So a process that serves asks the database now and then (`follow`), and in between counts on by a clock that no
correction moves. Where nobody has asked, as in a command, it is this machine's time, and `manage.py doctor` tells when
that is off.
"""

import time
from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

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
