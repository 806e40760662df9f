"""The control plane's own pulse: renewed while it serves, so that its absence is not taken for that of workers.

Its time is the database's, so that no machine's clock changes anybody's liveness; with SQLite that is the machine's.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import DateTimeField, Exists, F, Max, OuterRef, Subquery, Value
from django.db.models.functions import Least, Now

from environments.database.statements import Parameter, Rows
from workers.models import ApiKey, Outage, Pulse, WorkerInstance, WorkerQueue
from workers.models.liveness import AWAY_AFTER, LONGEST_HOLD, offline_after

#: Seconds between two pulses of a process.
INTERVAL = 5
#: No row has this id.
NOBODY = UUID(int=0)


def beat(at: datetime | None = None) -> None:
    """Notes that the control plane serves and reaches its database; safe from any number of processes.

    A moment that is given counts unless it is later than the database's own.
    """
    with transaction.atomic():
        reach()
        # Who has it locked is beating at this moment.
        pulse: Any = Pulse.objects.select_for_update(skip_locked=True).annotate(clock=Now()).first()
        if pulse is None:
            first = Pulse(beat_at=Now() if at is None else Least(Value(at), Now()))
            Pulse.objects.bulk_create([first], ignore_conflicts=True)
            return
        now = min(at or pulse.clock, pulse.clock)
        _take_back(pulse.clock)
        is_ahead = pulse.beat_at > pulse.clock + AWAY_AFTER
        if pulse.beat_at >= now and not is_ahead:
            return
        if pulse.beat_at < now - AWAY_AFTER:
            _note_outage(pulse.beat_at, now)
        Pulse.objects.update(beat_at=now)


@transaction.atomic
def reach() -> None:
    """Does what heartbeats do, but to nobody's row: an error says that they are held up, whosever they are.

    It gives up before they do.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '1s'")
    key = ApiKey.objects.filter(pk=OuterRef("api_key_id"))
    nobody = WorkerInstance.objects.filter(Exists(key), pk=NOBODY, worker__queue__heartbeat_interval__gt=0)
    nobody.update(activity=F("activity"))


def recovery(now: datetime) -> Outage | None:
    """The outage that a worker's liveness still depends on; None as soon as all were heard of or are Offline again.

    One that goes on has `recovered_at` now.
    """
    beat_at, lost_at, recovered_at = next(iter(_KNOWN(since=now - LONGEST_HOLD)), (now, None, None))
    if beat_at < now - AWAY_AFTER:
        return Outage(lost_at=beat_at, recovered_at=now)
    if lost_at is None or recovered_at < now - _longest_silence() or not WorkerInstance.objects.held(now).exists():
        return None
    return Outage(lost_at=lost_at, recovered_at=min(recovered_at, now))


def _known() -> Any:
    latest = Outage.objects.filter(recovered_at__gte=Parameter("since", DateTimeField()))
    known = {name: Subquery(latest.values(name)[:1]) for name in ("lost_at", "recovered_at")}
    return Pulse.objects.order_by().values_list("beat_at").annotate(**known)


_KNOWN = Rows(_known)


def _longest_silence() -> timedelta:
    """After which everybody is Offline; it spares a look at every process for most of LONGEST_HOLD."""
    longest = WorkerQueue.objects.aggregate(longest=Max("heartbeat_interval"))["longest"]
    return offline_after(longest or 0)


def _note_outage(lost_at: datetime, now: datetime) -> None:
    before = Outage.objects.first()
    served_before = lost_at - before.recovered_at if before else None
    Outage.objects.create(lost_at=lost_at, recovered_at=now, served_before=served_before)


def _take_back(now: datetime) -> None:
    """The database's clock was ahead and is not any more: no outage ends later than now, and a short one is none."""
    ahead = Outage.objects.filter(recovered_at__gt=now)
    ahead.filter(lost_at__gte=now - AWAY_AFTER).delete()
    ahead.update(recovered_at=now)
