"""A process that serves goes by the database's time, whatever its machine's clock says."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from environments import times
from tests.support.calls import fresh_fleet, heartbeat, start
from tests.support.factories import Fleet
from workers.models import Liveness, Worker, WorkerInstance, WorkerStart

HOUR = timedelta(hours=1)
RIGHT = timezone.now


@contextmanager
def machine_off_by(off: timedelta) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timezone, "now", lambda: RIGHT() + off)
        yield


@pytest.fixture
def fleet(db: None) -> Iterator[Fleet]:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no clock of its own")
    yield fresh_fleet()
    times.forget()


@pytest.mark.parametrize("off", [HOUR, -HOUR, timedelta(days=700)])
def test_a_machine_whose_clock_is_off_changes_nobodys_liveness(fleet: Fleet, off: timedelta) -> None:
    times.follow()
    with machine_off_by(off):
        assert start(fleet).status_code == 200
        heartbeat(fleet)
        assert Worker.objects.with_liveness(times.now()).get().liveness == Liveness.ONLINE
    for moment in (WorkerStart.objects.get().started_at, WorkerInstance.objects.get().last_heartbeat_at):
        assert abs(moment - timezone.now()) < timedelta(minutes=1)
    dead = Worker.objects.with_liveness(timezone.now() + timedelta(minutes=10)).get()
    assert dead.liveness == Liveness.OFFLINE, "its last heartbeat was now, not in an hour"


def test_a_key_is_neither_used_up_nor_kept_alive_by_the_clock_of_who_serves(fleet: Fleet) -> None:
    times.follow()
    with machine_off_by(timedelta(days=700)):
        assert start(fleet).status_code == 200
    fleet.api_key.expires_at = timezone.now() - timedelta(minutes=1)
    fleet.api_key.save()
    with machine_off_by(-HOUR):
        assert start(fleet).status_code == 401


def test_whoever_has_not_asked_goes_by_the_machine(fleet: Fleet) -> None:
    times.forget()
    with machine_off_by(HOUR):
        assert abs(times.now() - RIGHT() - HOUR) < timedelta(seconds=1)
