"""Checks of the clocks that liveness and expiry are told by: ours, the database's and those of serving processes.

Workers report no time of theirs: what they send is stamped by the process that receives it, so their clocks matter to
nothing here.
"""

import socket
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

from controlplane.doctor.findings import Finding, problem
from workers.models import Pulse, WorkerStart

CLOCKS = "clocks"
#: A heartbeat interval is at least as long.
MOST_SKEW = timedelta(seconds=5)
ADVICE = "Have all machines keep time (NTP): liveness, expiry and the order of the ledger go by it."


def database_now(ours: datetime) -> datetime:
    """The database server's clock, which all machines share; SQLite has none but this machine's."""
    if connection.vendor != "postgresql":
        return ours
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (theirs,) = cursor.fetchone()
    return theirs  # type: ignore[no-any-return]


def examine_clocks() -> Iterator[Finding]:
    """The database server's clock beside ours, and what is on record from its future."""
    now = database_now(timezone.now())
    yield from compare(now, timezone.now())
    ahead = now + MOST_SKEW
    pulse = Pulse.objects.filter(beat_at__gt=ahead).values_list("beat_at").first()
    latest = WorkerStart.objects.filter(started_at__gt=ahead).order_by("-started_at").values_list("started_at").first()
    for (at,), what in ((latest or (None,), "start"), (pulse or (None,), "pulse")):
        if at:
            text = f"The latest {what} on record is of {at:%Y-%m-%d %H:%M:%S} UTC: a serving process's clock is ahead."
            yield problem(CLOCKS, text, f"{ADVICE} Run doctor on each machine to see whose it is.")


def compare(theirs: datetime, ours: datetime) -> Iterator[Finding]:
    """Two clocks read at the same time: what all machines share is right unless every one of them differs from it."""
    if abs(theirs - ours) > MOST_SKEW:
        skew = (theirs - ours).total_seconds()
        machine, server = socket.gethostname(), connection.settings_dict["HOST"] or "this machine"
        text = f"The database server's clock ({server}) differs from this machine's by {skew:+.0f} s: {machine} is "
        advice = f"{ADVICE} If doctor says so on every machine, it is the database server's clock that is off."
        yield problem(CLOCKS, text + ("ahead." if skew < 0 else "behind."), advice)
