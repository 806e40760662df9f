"""The rule of liveness in plain Python, and processes to hold it against."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Barrier

from django.db import connection
from hypothesis import HealthCheck

from workers.lifecycle.pulse import beat
from workers.models import Outage, Pulse, WorkerInstance, WorkerQueue

NOW = datetime(2026, 3, 14, 15, 9, 26, 535_897, tzinfo=UTC)
ZERO = timedelta(0)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
DATABASE = {"suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@dataclass(frozen=True)
class Heart:
    """The pulse's row, and the outages on record as pairs of their begin and end, the earliest first."""

    beat_at: datetime
    outages: tuple[tuple[datetime, datetime], ...] = ()

    @property
    def moments(self) -> list[datetime]:
        return [self.beat_at, *(moment for outage in self.outages for moment in outage)]

    def store(self) -> None:
        Pulse.objects.create(beat_at=self.beat_at)
        before = None
        for lost_at, recovered_at in self.outages:
            served = lost_at - before if before else None
            Outage.objects.create(lost_at=lost_at, recovered_at=recovered_at, served_before=served)
            before = recovered_at


def found(now: datetime = NOW) -> tuple[str, bool]:
    row = WorkerInstance.objects.with_liveness(now).with_held(now).get()
    return row.liveness, bool(row.is_held)


def arrange(*, interval: int, last: datetime, heart: Heart | None = None, stopped_at: datetime | None = None) -> None:
    WorkerQueue.objects.update(heartbeat_interval=interval)
    WorkerInstance.objects.update(last_heartbeat_at=last, stopped_at=stopped_at)
    Pulse.objects.all().delete()
    Outage.objects.all().delete()
    if heart:
        heart.store()


def pulse() -> Heart:
    outages = Outage.objects.order_by("lost_at").values_list("lost_at", "recovered_at")
    return Heart(Pulse.objects.get().beat_at, tuple(outages))


def beats(now: datetime) -> None:
    """Sixteen threads that beat at once, each by a clock of its own that is at most some microseconds behind `now`."""
    barrier = Barrier(16)

    def run(number: int) -> None:
        try:
            barrier.wait(10)
            beat(now - number * MICROSECOND * (Pulse.objects.count() == 0))
            beat(now)
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(run, range(16)))
