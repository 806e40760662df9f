"""The service's own part in the sweep: it asks only on its turn, and only where it may serve."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from controlplane.serving.gate import gate
from controlplane.serving.sweeper import Sweeper
from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.pollers import connect
from workers.models import QueueObservation, Sweep

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]


@pytest.fixture
def fleet(transactional_db: None) -> Fleet:
    """A fleet whose Temporal is asked in vain, at once."""
    fleet = fresh_fleet()
    connect(fleet, "127.0.0.1:1")
    return fleet


def in_a_thread(look: Callable[[], bool]) -> bool:
    """What it says in a thread of its own, as in the service, which closes that thread's connection."""
    told: list[bool] = []

    def run() -> None:
        told.append(look())
        assert connection.connection is None

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return told[0]


def test_it_asks_when_it_is_its_turn_and_not_again_before_a_minute(fleet: Fleet) -> None:
    first, second = Sweeper(), Sweeper()
    assert [in_a_thread(one.look) for one in (first, second, first)] == [True, False, False]
    assert "Nothing listens" in QueueObservation.objects.get().problem
    sweep = Sweep.objects.get()
    assert (sweep.queues, sweep.unanswered, sweep.finished_at is None) == (0, 1, False)
    Sweep.objects.update(started_at=timezone.now() - timedelta(minutes=1))
    assert [in_a_thread(one.look) for one in (second, first)] == [False, True]
    Sweep.objects.update(started_at=timezone.now() - timedelta(minutes=1))
    asked_at = QueueObservation.objects.get().asked_at
    assert in_a_thread(first.look)
    assert QueueObservation.objects.get().asked_at == asked_at  # after two failures it is left out once
    assert Sweep.objects.get().unanswered == 1


def test_nobody_is_asked_where_nobody_may_be_served(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "problem", "restored")
    assert not in_a_thread(Sweeper().look)
    monkeypatch.setattr(gate, "problem", "")
    assert not Sweep.objects.exists()
    assert in_a_thread(Sweeper().look)
