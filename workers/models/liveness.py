"""Liveness: what is known of a worker's process, computed when read, from its last heartbeat and from our own pulse.

It is an SQL expression, so that what is filtered and counted follows the same rule as what is shown.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, ClassVar

from django.db import models
from django.db.models import Case, Expression, ExpressionWrapper, F, Q, Subquery, Value, When
from django.db.models.functions import Coalesce, Greatest
from django.db.models.lookups import GreaterThanOrEqual, IsNull, LessThan

from environments.database.expressions import Rule, Ruled, moment

#: Multiples of the heartbeat interval after which silence is Late, then Offline, and the least silence for Offline.
LATE_AFTER_INTERVALS = 1.5
OFFLINE_AFTER_INTERVALS = 3
OFFLINE_AFTER_AT_LEAST = timedelta(seconds=90)

#: A pulse older than this means that the control plane or its database was away. Less cannot make a worker Offline,
#: which takes three missed heartbeats.
AWAY_AFTER = timedelta(seconds=30)
#: Three of the longest heartbeat intervals: past that, an outage says nothing about anybody's silence.
LONGEST_HOLD = timedelta(hours=3)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


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

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(id=1), name="workers_pulse_one_row")
        ]

    def __str__(self) -> str:
        return f"{self.beat_at:%Y-%m-%d %H:%M:%S}"


class Outage(models.Model):
    """A time in which no heartbeat could be recorded, since the control plane or its database was away."""

    lost_at = models.DateTimeField(unique=True)
    recovered_at = models.DateTimeField()
    served_before = models.DurationField(null=True, help_text="How long it had served since the outage before.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-lost_at"]

    def __str__(self) -> str:
        return f"{self.lost_at:%Y-%m-%d %H:%M:%S} to {self.recovered_at:%Y-%m-%d %H:%M:%S}"


def liveness_of(instance: str, heartbeat_interval: str, now: datetime | Value, *, may_be_held: bool = True) -> Ruled:
    """Liveness of the instance that the lookup prefix `instance` leads to ("" for itself), as text.

    `heartbeat_interval` is the lookup of the queue's, in seconds. A worker that beats faster is fine. Whoever knows by
    `recovery` that nobody is held can say so, which leaves a fifth of the expression.
    """
    return LIVENESS[may_be_held](_operands(instance, heartbeat_interval, now))


def is_held(instance: str, heartbeat_interval: str, now: datetime | Value) -> Ruled:
    """Not heard of since our own latest outage, but not Offline before it: silence counts anew from our recovery."""
    return HELD(_operands(instance, heartbeat_interval, now))


def live_since(now: datetime | Value, *, may_be_held: bool = True) -> Ruled:
    """Who was last heard of before this moment is not live, whatever its interval; it is the same for all rows."""
    return LIVE_SINCE[may_be_held]({"now": moment(now)})


def intervals_before(moment: Any, heartbeat_interval: Any, count: float) -> Expression:
    """The moment so many heartbeat intervals before another one; both are expressions."""
    return _time(moment - _intervals(heartbeat_interval, count))


def offline_after(heartbeat_interval: int) -> timedelta:
    """The silence after which a worker is Offline."""
    return max(timedelta(seconds=heartbeat_interval) * OFFLINE_AFTER_INTERVALS, OFFLINE_AFTER_AT_LEAST)


def was_heard_of(last_heartbeat_at: datetime, heartbeat_interval: int, now: datetime) -> bool:
    """Whether a process that has not said goodbye is live whatever happened to us: it beat lately enough."""
    return last_heartbeat_at >= now - offline_after(heartbeat_interval)


def recovery_of(pulse: Pulse | None, outage: Outage | None, now: datetime) -> datetime | None:
    """When our own latest outage ended: now, while nobody has noted that yet; None where there was none."""
    if pulse is not None and pulse.beat_at < now - AWAY_AFTER:
        return now
    return outage.recovered_at if outage else None


def may_be_excused(
    last_heartbeat_at: datetime, heartbeat_interval: int, now: datetime, recovered_at: datetime | None
) -> bool:
    """Whether `liveness_of` could find a process live that was not heard of lately: it may be held to our outage."""
    return (
        recovered_at is not None
        and last_heartbeat_at < recovered_at
        and was_heard_of(recovered_at, heartbeat_interval, now)
    )


def _operands(instance: str, heartbeat_interval: str, now: datetime | Value) -> dict[str, Any]:
    return {
        "id": f"{instance}id",
        "stopped_at": f"{instance}stopped_at",
        "last": f"{instance}last_heartbeat_at",
        "interval": heartbeat_interval,
        "now": moment(now),
    }


class _Absence:
    """Our own latest outage, as expressions."""

    def __init__(self, now: Expression) -> None:
        self.now = now
        self._away = Q(LessThan(F("beat_at"), self.before(Value(AWAY_AFTER))))

    def before(self, duration: Any) -> Expression:
        """The moment that long ago."""
        return _time(self.now - _duration(duration))

    @property
    def recovered_at(self) -> Coalesce:
        """When it ended: now, while nobody has noted that yet."""
        away = Pulse.objects.filter(self._away).values(found=self.now)
        return _first(away, Outage.objects.values("recovered_at"))

    def lost_at(self, offline_after: Any) -> Coalesce:
        """When it began; outages between which we served for less than it takes to be Offline are one."""
        latest = Subquery(Outage.objects.values("recovered_at")[:1])
        is_first = Q(recovered=None) | Q(beat_at__gt=_time(F("recovered") + _duration(offline_after)))
        away = Pulse.objects.filter(self._away).annotate(recovered=latest).filter(is_first).values("beat_at")
        noted = Outage.objects.filter(Q(served_before=None) | Q(served_before__gt=_duration(offline_after)))
        return _first(away, noted.values("lost_at"))


class _Silence:
    """How long an instance has been silent, as expressions.

    Silence counts from the last heartbeat or, for one that was not Offline when we went away, from our recovery: an
    instance may not have had its turn since.
    """

    def __init__(self, last: Expression, interval: Expression, now: Expression) -> None:
        self.last, self._interval = last, interval
        self.absence = _Absence(now)

    def liveness_since(self, last_sign: Expression) -> Case:
        """By the time since the last sign of life; asks first what holds for most, since reckoning times is slow."""
        late_before = self.absence.before(_intervals(self._interval, LATE_AFTER_INTERVALS))
        offline_before = self.absence.before(_offline_after(self._interval))
        return Case(
            When(GreaterThanOrEqual(last_sign, late_before), then=Value(Liveness.ONLINE)),
            When(GreaterThanOrEqual(last_sign, offline_before), then=Value(Liveness.LATE)),
            default=Value(Liveness.OFFLINE),
        )

    @property
    def is_forgiven(self) -> Q:
        """In this order, and false rather than null without an outage: the second part is looked up for every row."""
        is_before = Q(LessThan(self.last, Coalesce(self.absence.recovered_at, Value(LONG_AGO))))
        offline_after = _offline_after(self._interval)
        return is_before & Q(GreaterThanOrEqual(self.last, _time(self.absence.lost_at(offline_after) - offline_after)))


def _first(*queries: models.QuerySet[Any, Any]) -> Coalesce:
    return Coalesce(*(Subquery(query[:1], output_field=models.DateTimeField()) for query in queries))


def _offline_after(interval: Any) -> Expression:
    """The longer of so many intervals and the least silence."""
    return Greatest(_intervals(interval, OFFLINE_AFTER_INTERVALS), _duration(Value(OFFLINE_AFTER_AT_LEAST)))


def _intervals(interval: Any, count: float) -> Expression:
    seconds = ExpressionWrapper(interval, models.IntegerField())  # SQLite multiplies no positive integers
    return _duration(seconds * Value(timedelta(seconds=count)))


def _duration(expression: Any) -> Expression:
    return ExpressionWrapper(expression, models.DurationField())


def _time(expression: Any) -> Expression:
    return ExpressionWrapper(expression, models.DateTimeField())


# --- The rules, which every query shares ---


def _liveness(*, id: Any, stopped_at: Any, may_be_held: bool, **silent: Any) -> Case:  # noqa: A002  # the column
    silence = _Silence(**silent)
    forgiven = silence.liveness_since(silence.absence.recovered_at)
    return Case(
        When(IsNull(id, rhs=True), then=Value(Liveness.NEVER_STARTED)),
        When(IsNull(stopped_at, rhs=False), then=Value(Liveness.STOPPED)),
        *([When(silence.is_forgiven, then=forgiven)] if may_be_held else []),
        default=silence.liveness_since(silence.last),
        output_field=models.CharField(),
    )


def _is_held(**silent: Any) -> Q:
    return _Silence(**silent).is_forgiven


def _live_since(now: Any, *, may_be_held: bool) -> Expression:
    absence = _Absence(now)
    longest = Value(LONGEST_HOLD)
    if not may_be_held:
        return absence.before(longest)
    return Case(
        When(LessThan(absence.recovered_at, absence.before(longest)), then=absence.before(longest)),
        default=_time(Coalesce(absence.lost_at(longest), absence.now) - _duration(longest)),
    )


_MOMENT = models.DateTimeField()
_SILENT: dict[str, Any] = {"last": _MOMENT, "interval": models.PositiveIntegerField(), "now": _MOMENT}
_PROCESS: dict[str, Any] = {"id": models.UUIDField(), "stopped_at": _MOMENT, **_SILENT}
_BOTH = (True, False)
LIVENESS = {each: Rule(partial(_liveness, may_be_held=each), models.CharField(), **_PROCESS) for each in _BOTH}
LIVE_SINCE = {each: Rule(partial(_live_since, may_be_held=each), _MOMENT, now=_MOMENT) for each in _BOTH}
HELD = Rule(_is_held, models.BooleanField(), **_SILENT)
