"""Checks of the clocks that liveness and expiry are told by: ours, the database's and those of serving processes.

Workers report no time of theirs: what they send is stamped by the process that receives it, so their clocks matter to
nothing here.
"""

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


def examine_clocks(now: datetime) -> Iterator[Finding]:
    """The database server's clock beside ours, and what is on record from the future."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            (theirs,) = cursor.fetchone()
        yield from compare(theirs, timezone.now())
    ahead = now + MOST_SKEW
    latest = WorkerStart.objects.filter(started_at__gt=ahead).order_by("-started_at").values_list("started_at").first()
    pulse = Pulse.objects.filter(beat_at__gt=ahead).values_list("beat_at").first()
    for (at,), what in ((latest or (None,), "start"), (pulse or (None,), "pulse")):
        if at:
            text = f"The latest {what} on record is of {at:%Y-%m-%d %H:%M:%S} UTC: a serving process's clock is ahead."
            yield problem(CLOCKS, text, ADVICE)


def compare(theirs: datetime, ours: datetime) -> Iterator[Finding]:
    """Two clocks read at the same time."""
    if abs(theirs - ours) > MOST_SKEW:
        skew = (theirs - ours).total_seconds()
        yield problem(CLOCKS, f"The database server's clock differs from this machine's by {skew:+.0f} s.", ADVICE)
