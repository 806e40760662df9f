"""Whose turn it is to ask, and how often a connection is asked that does not answer."""

from datetime import UTC, datetime, timedelta

import pytest

from environments.models import TemporalConnection
from tests.support.factories import Fleet
from workers.models import QueueObservation, Sweep
from workers.observation.lease import Lease
from workers.observation.sweeps import Backoff, Pass, by_turns
from workers.observation.targets import Target


class Clock:
    """A time that the test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 14, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock(db: None) -> Clock:
    return Clock()


def test_one_of_all_has_the_turn_and_keeps_it(clock: Clock) -> None:
    first, second = Lease(clock), Lease(clock)
    assert (first.take(), second.take(), first.take()) == (True, False, False)
    first.finish(queues=3, unanswered=1)
    row = Sweep.objects.get()
    assert (row.holder, row.queues, row.unanswered) == (first.holder, 3, 1)
    for _ in range(3):
        clock.go_on(60)
        assert (second.take(), first.take()) == (False, True)
        first.finish(queues=3, unanswered=0)


def test_another_one_takes_over_when_the_holder_is_gone(clock: Clock) -> None:
    first, second = Lease(clock), Lease(clock)
    assert first.take()
    clock.go_on(80)
    assert first.renew()
    clock.go_on(80)
    assert not second.take()
    clock.go_on(11)
    assert second.take()
    assert not first.renew()
    first.finish(queues=9, unanswered=9)
    assert Sweep.objects.get().queues == 0


def test_a_pass_by_hand_waits_for_one_that_is_under_way_and_gives_the_turn_back(clock: Clock) -> None:
    service, by_hand = Lease(clock), Lease(clock)
    assert (service.take(), by_hand.take_once()) == (True, False)
    service.finish(queues=1, unanswered=0)
    assert by_hand.take_once()
    by_hand.finish(queues=1, unanswered=0)
    by_hand.give_back()
    clock.go_on(60)
    assert service.take()


def test_a_connection_that_does_not_answer_is_left_out_longer_and_longer() -> None:
    silent, other = (Target(TemporalConnection(organization_id="acme", host=host)) for host in "ab")
    backoff, asked = Backoff(), []
    for number in range(40):
        wanted = backoff.wanted([silent, other])
        if silent in wanted:
            asked.append(number)
            backoff.note(silent, is_answered=False)
        backoff.note(other, is_answered=True)
        assert other in wanted
    assert asked == [0, 1, 3, 7, 15, 31]
    edited = Target(TemporalConnection(pk=silent.connection.pk, organization_id="acme", host="c"))
    assert backoff.wanted([edited, other]) == [edited, other]


def test_each_organization_has_its_turn_before_anothers_second_connection() -> None:
    names = ["slow/1", "slow/2", "slow/3", "acme/1", "beta/1", "beta/2"]
    targets = [
        Target(TemporalConnection(organization_id=organization, name=name))
        for organization, name in (each.split("/") for each in names)
    ]
    found = [str(target.connection) for target in by_turns(targets)]
    assert found == ["slow/1", "acme/1", "beta/1", "slow/2", "beta/2", "slow/3"]


def test_a_pass_that_has_lasted_long_enough_asks_no_further_connection(fleet: Fleet) -> None:
    lease = Lease()
    assert lease.take()
    assert list(Pass(lease, Backoff(), seconds=0).run()) == []
    assert Sweep.objects.get().finished_at
    assert not QueueObservation.objects.exists()
