"""The control plane's own pulse: renewed while it serves, so that its absence is not taken for that of workers."""

import logging
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import DatabaseError, InterfaceError, close_old_connections
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from workers.models import Pulse, WorkerInstance
from workers.models.liveness import AWAY_AFTER, ONE_OUTAGE_WITHIN

logger = logging.getLogger(__name__)

#: Seconds between two pulses of a process.
INTERVAL = 5


#: Three of the longest heartbeat intervals: past that, an outage says nothing about anybody's silence.
LONGEST_HOLD = timedelta(hours=3)


@dataclass(frozen=True)
class Outage:
    """A time in which no heartbeat could be recorded; `recovered_at` is None while it lasts."""

    lost_at: datetime
    recovered_at: datetime | None


def beat(now: datetime) -> None:
    """Notes that the control plane serves and reaches its database; safe from any number of processes."""
    was_away = Q(beat_at__lt=now - AWAY_AFTER)
    is_one_outage = was_away & Q(beat_at__lt=F("recovered_at") + Value(ONE_OUTAGE_WITHIN))
    updated = Pulse.objects.filter(beat_at__lt=now).update(
        lost_at=Case(When(is_one_outage, then=F("lost_at")), When(was_away, then=F("beat_at")), default=F("lost_at")),
        recovered_at=Case(When(was_away, then=Value(now)), default=F("recovered_at")),
        beat_at=now,
    )
    if not updated:
        Pulse.objects.bulk_create([Pulse(beat_at=now)], ignore_conflicts=True)


def recovery(now: datetime) -> Outage | None:
    """The outage that a worker's liveness still depends on; None as soon as all were heard of or are Offline again."""
    outage = latest_outage(now)
    if outage is None or outage.recovered_at is None:
        return outage
    held = WorkerInstance.objects.live(now).filter(is_held=True)
    return outage if held.exists() else None


def latest_outage(now: datetime) -> Outage | None:
    """The outage that is going on, or the last one that ended and was not too long ago to matter."""
    pulse = Pulse.objects.first()
    if pulse is None:
        return None
    if pulse.beat_at < now - AWAY_AFTER:
        return Outage(pulse.beat_at, None)
    if pulse.lost_at is None or pulse.recovered_at is None or pulse.recovered_at < now - LONGEST_HOLD:
        return None
    return Outage(pulse.lost_at, pulse.recovered_at)


def keep_beating() -> None:
    """Beats from now on in a thread of this process, which ends with it."""
    threading.Thread(target=_beat_forever, name="pulse", daemon=True).start()


def _beat_forever() -> None:
    while True:
        try:
            beat(timezone.now())
        except (DatabaseError, InterfaceError) as error:
            logger.warning("no pulse: %s", type(error).__name__)
        close_old_connections()
        time.sleep(INTERVAL)
