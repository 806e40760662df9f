"""Liveness: what is known of a worker's process, computed when read, from its last heartbeat and from our own pulse.

It is an SQL expression, so that what is filtered and counted follows the same rule as what is shown.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from django.db import models
from django.db.models import Case, Expression, ExpressionWrapper, F, Q, Subquery, Value, When
from django.db.models.lookups import LessThan

#: Multiples of the heartbeat interval after which silence is Late, then Offline, and the least silence for Offline.
LATE_AFTER_INTERVALS = 1.5
OFFLINE_AFTER_INTERVALS = 3
OFFLINE_AFTER_AT_LEAST = timedelta(seconds=90)

#: A pulse older than this means that the control plane or its database was away. Less cannot make a worker Offline,
#: which takes three missed heartbeats.
AWAY_AFTER = timedelta(seconds=30)
#: Outages closer to each other than this count as one, so that a control plane that flaps forgives silence once more.
ONE_OUTAGE_WITHIN = timedelta(minutes=10)


class Liveness(StrEnum):
    """What is known of a worker's process; stored nowhere."""

    NEVER_STARTED = "Never started"
    ONLINE = "Online"
    LATE = "Late"
    OFFLINE = "Offline"
    STOPPED = "Stopped"


#: The process runs as far as is known: what counts towards a queue's capacity.
LIVE = (Liveness.ONLINE, Liveness.LATE)


class Pulse(models.Model):
    """One row that a serving control plane renews, so that its own absence is told from that of workers."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    beat_at = models.DateTimeField()
    lost_at = models.DateTimeField(null=True, help_text="When the latest outage began.")
    recovered_at = models.DateTimeField(null=True, help_text="When it ended.")

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(id=1), name="workers_pulse_one_row")
        ]

    def __str__(self) -> str:
        return f"{self.beat_at:%Y-%m-%d %H:%M:%S}"


def liveness_of(instance: str, heartbeat_interval: str, now: datetime) -> Case:
    """Liveness of the instance that the lookup prefix `instance` leads to ("" for itself), as text.

    `heartbeat_interval` is the lookup of the queue's, in seconds. A worker that beats faster is fine.
    """
    silence = _Silence(instance, heartbeat_interval, now)
    return Case(
        When(Q(**{f"{instance}id": None}), then=Value(Liveness.NEVER_STARTED)),
        When(Q(**{f"{instance}stopped_at__isnull": False}), then=Value(Liveness.STOPPED)),
        When(silence.exceeds(silence.offline_after), then=Value(Liveness.OFFLINE)),
        When(silence.exceeds(silence.intervals(LATE_AFTER_INTERVALS)), then=Value(Liveness.LATE)),
        default=Value(Liveness.ONLINE),
        output_field=models.CharField(),
    )


def is_held(instance: str, heartbeat_interval: str, now: datetime) -> Q:
    """Not heard of since our own latest outage, but not Offline before it: silence counts anew from our recovery."""
    return _Silence(instance, heartbeat_interval, now).is_forgiven


def offline_after(heartbeat_interval: int) -> timedelta:
    """The silence after which a worker is Offline."""
    return max(timedelta(seconds=heartbeat_interval) * OFFLINE_AFTER_INTERVALS, OFFLINE_AFTER_AT_LEAST)


class _Silence:
    """How long an instance has been silent, as expressions over one query."""

    def __init__(self, instance: str, heartbeat_interval: str, now: datetime) -> None:
        self._last = f"{instance}last_heartbeat_at"
        self._interval = heartbeat_interval
        self._now = Value(now, output_field=models.DateTimeField())
        self._away = Q(beat_at__lt=now - AWAY_AFTER)

    def intervals(self, count: float) -> Expression:
        seconds = ExpressionWrapper(F(self._interval), models.IntegerField())  # SQLite multiplies no positive integers
        return _duration(seconds * Value(timedelta(seconds=count)))

    @property
    def offline_after(self) -> Expression:
        shortest = OFFLINE_AFTER_AT_LEAST.total_seconds() / OFFLINE_AFTER_INTERVALS
        is_short = Q(**{f"{self._interval}__lt": shortest})
        long = self.intervals(OFFLINE_AFTER_INTERVALS)
        return _duration(Case(When(is_short, then=Value(OFFLINE_AFTER_AT_LEAST)), default=long))

    def exceeds(self, limit: Expression) -> LessThan:
        """Whether it has been silent for longer: since its last heartbeat or, where that is forgiven, our recovery."""
        since = Case(When(self.is_forgiven, then=self._recovered_at), default=F(self._last))
        return LessThan(since, _time(self._now - limit))

    @property
    def is_forgiven(self) -> Q:
        lost_at = self._pulse("lost_at", F("beat_at"))
        limits = {"lt": self._recovered_at, "gte": _time(lost_at - self.offline_after)}
        return Q(**{f"{self._last}__{lookup}": limit for lookup, limit in limits.items()})

    @property
    def _recovered_at(self) -> Subquery:
        return self._pulse("recovered_at", self._now)

    def _pulse(self, field: str, otherwise: Any) -> Subquery:
        """The latest outage's beginning or end; of one that nobody recorded yet, the last pulse and now."""
        rows = Pulse.objects.annotate(found=Case(When(self._away, then=otherwise), default=F(field)))
        return Subquery(rows.values("found")[:1], output_field=models.DateTimeField())


def _duration(expression: Any) -> Expression:
    return ExpressionWrapper(expression, models.DurationField())


def _time(expression: Any) -> Expression:
    return ExpressionWrapper(expression, models.DateTimeField())
