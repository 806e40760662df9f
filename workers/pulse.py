"""The control plane's own pulse: renewed while it serves, so that its absence is not taken for that of workers."""

import logging
import threading
import time
from datetime import datetime, timedelta

from django.db import DatabaseError, InterfaceError, close_old_connections, transaction
from django.db.models import Max, Subquery
from django.utils import timezone

from workers.models import Outage, Pulse, WorkerInstance, WorkerQueue
from workers.models.liveness import AWAY_AFTER, LONGEST_HOLD, offline_after

logger = logging.getLogger(__name__)

#: Seconds between two pulses of a process.
INTERVAL = 5


def beat(now: datetime) -> None:
    """Notes that the control plane serves and reaches its database; safe from any number of processes."""
    with transaction.atomic():
        pulse, is_new = Pulse.objects.select_for_update().get_or_create(defaults={"beat_at": now})
        if is_new or pulse.beat_at >= now:
            return
        if pulse.beat_at < now - AWAY_AFTER:
            _note_outage(pulse.beat_at, now)
        Pulse.objects.update(beat_at=now)


def recovery(now: datetime) -> Outage | None:
    """The outage that a worker's liveness still depends on; None as soon as all were heard of or are Offline again.

    One that goes on has `recovered_at` now.
    """
    latest = Outage.objects.filter(recovered_at__gte=now - LONGEST_HOLD)
    known = {name: Subquery(latest.values(name)[:1]) for name in ("lost_at", "recovered_at")}
    beat_at, lost_at, recovered_at = Pulse.objects.values_list("beat_at").annotate(**known).first() or (now, None, None)
    if beat_at < now - AWAY_AFTER:
        return Outage(lost_at=beat_at, recovered_at=now)
    if lost_at is None or recovered_at < now - _longest_silence() or not WorkerInstance.objects.held(now).exists():
        return None
    return Outage(lost_at=lost_at, recovered_at=recovered_at)


def _longest_silence() -> timedelta:
    """After which everybody is Offline; it spares a look at every process for most of LONGEST_HOLD."""
    longest = WorkerQueue.objects.aggregate(longest=Max("heartbeat_interval"))["longest"]
    return offline_after(longest or 0)


def _note_outage(lost_at: datetime, now: datetime) -> None:
    before = Outage.objects.first()
    served_before = lost_at - before.recovered_at if before else None
    Outage.objects.create(lost_at=lost_at, recovered_at=now, served_before=served_before)


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
