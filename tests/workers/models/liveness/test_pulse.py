"""The pulse tells our absence from a worker's, whatever clocks say."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.factories import Fleet
from tests.support.liveness import (
    DATABASE,
    MICROSECOND,
    NOW,
    SECOND,
    ZERO,
    Heart,
    arrange,
    beats,
    found,
    pulse,
    seconds,
)
from tests.support.quick import examples
from workers.lifecycle.pulse import INTERVAL, beat, recovery
from workers.models import LIVE, Liveness, Outage, Pulse, WorkerInstance

#: Each example plays a whole history, so that shrinking one would take minutes.
WITHOUT_SHRINKING = (Phase.explicit, Phase.generate)


@pytest.mark.parametrize("gap", [0.000_001, 5, 29, 30])
@pytest.mark.django_db
def test_a_short_gap_between_pulses_is_no_outage(gap: float) -> None:
    beat(NOW)
    beat(NOW + seconds(gap))
    assert pulse() == Heart(NOW + seconds(gap))
    assert recovery(NOW + seconds(gap)) is None


@pytest.mark.parametrize("gap", [seconds(30) + MICROSECOND, seconds(31), timedelta(days=30)])
@pytest.mark.django_db
def test_a_longer_gap_is_an_outage_with_its_begin_and_end(gap: timedelta) -> None:
    beat(NOW)
    beat(NOW + gap)
    beat(NOW + gap + seconds(5))
    assert pulse() == Heart(NOW + gap + seconds(5), ((NOW, NOW + gap),))


@pytest.mark.django_db
def test_the_first_pulse_ever_is_no_recovery() -> None:
    beat(NOW)
    assert pulse() == Heart(NOW)


@pytest.mark.django_db
def test_an_outage_that_lasts_is_told_by_whoever_reads() -> None:
    beat(NOW)
    assert recovery(NOW + seconds(30)) is None
    lasting = recovery(NOW + seconds(31))
    assert lasting is not None
    assert (lasting.lost_at, lasting.recovered_at) == (NOW, NOW + seconds(31))


@pytest.mark.parametrize("earlier", [ZERO, SECOND, seconds(120)])
@pytest.mark.django_db
def test_a_pulse_from_a_clock_that_is_behind_changes_nothing(earlier: timedelta) -> None:
    beat(NOW - seconds(100))
    beat(NOW)
    before = pulse()
    beat(NOW - earlier)
    assert pulse() == before


@pytest.mark.sqlite
@pytest.mark.parametrize("apart", [seconds(5), seconds(601)])
@pytest.mark.django_db
def test_each_outage_is_on_record_with_how_long_we_served_before_it(apart: timedelta) -> None:
    lost = NOW
    recovered = NOW + seconds(60)
    beat(lost)
    again_lost = recovered + apart
    for moment in serving(recovered, again_lost):
        beat(moment)
    again_recovered = again_lost + seconds(60)
    beat(again_recovered)
    assert pulse() == Heart(again_recovered, ((lost, recovered), (again_lost, again_recovered)))
    assert list(Outage.objects.order_by("lost_at").values_list("served_before", flat=True)) == [None, apart]


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_pulses_from_many_threads_leave_one_row() -> None:
    beats(NOW)
    assert pulse() == Heart(NOW)
    beats(NOW + seconds(5))
    assert pulse() == Heart(NOW + seconds(5))


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_a_recovery_that_many_threads_note_is_one_outage() -> None:
    beat(NOW)
    beats(NOW + seconds(100))
    ((lost_at, recovered_at),) = pulse().outages
    assert lost_at == NOW
    assert NOW + seconds(100) <= recovered_at <= NOW + seconds(100) + 16 * MICROSECOND


def serving(begin: datetime, end: datetime) -> Iterator[datetime]:
    """The moments of the pulses of a control plane that serves from `begin` to `end`, both included."""
    moment = begin
    while moment < end:
        yield moment
        moment += seconds(INTERVAL)
    yield end


def serve_until(moment: datetime) -> None:
    """The same as all pulses until then, which change nothing but the latest one's time."""
    Pulse.objects.update(beat_at=moment)


def hear(moment: datetime) -> None:
    WorkerInstance.objects.update(last_heartbeat_at=moment)


@pytest.mark.parametrize("interval", [5, 30, 60, 300, 3600])
@pytest.mark.parametrize("length", [seconds(31), seconds(600), timedelta(hours=4), timedelta(days=30)])
def test_a_healthy_worker_is_not_offline_until_three_intervals_after_our_recovery_and_then_it_is(
    fleet: Fleet, interval: int, length: timedelta
) -> None:
    lost, recovered = NOW, NOW + length
    offline_after = max(seconds(3 * interval), seconds(90))
    arrange(interval=interval, last=lost - seconds(interval))
    beat(lost)
    assert found(lost + length / 2)[0] in LIVE
    assert found(recovered - MICROSECOND)[0] in LIVE
    beat(recovered)
    assert found(recovered) == (Liveness.ONLINE, True)
    for later in (seconds(1), offline_after / 2, offline_after):
        serve_until(recovered + later)
        assert found(recovered + later)[0] in LIVE
    serve_until(recovered + offline_after + MICROSECOND)
    assert found(recovered + offline_after + MICROSECOND)[0] == Liveness.OFFLINE


def test_a_worker_that_was_offline_before_the_outage_stays_offline(fleet: Fleet) -> None:
    arrange(interval=60, last=NOW - seconds(181))
    beat(NOW)
    for moment in (NOW + seconds(10), NOW + seconds(1_000)):
        assert found(moment) == (Liveness.OFFLINE, False)
    beat(NOW + seconds(1_000))
    for moment in (NOW + seconds(1_000), NOW + seconds(1_010)):
        assert found(moment) == (Liveness.OFFLINE, False)


def test_a_worker_that_said_goodbye_before_the_outage_stays_stopped(fleet: Fleet) -> None:
    arrange(interval=60, last=NOW, stopped_at=NOW)
    beat(NOW)
    beat(NOW + seconds(1_000))
    assert found(NOW + seconds(1_000))[0] == Liveness.STOPPED


def test_a_worker_that_is_heard_again_after_the_outage_is_no_longer_held(fleet: Fleet) -> None:
    arrange(interval=60, last=NOW - seconds(30))
    beat(NOW)
    beat(NOW + seconds(1_000))
    hear(NOW + seconds(1_001))
    assert found(NOW + seconds(1_002)) == (Liveness.ONLINE, False)
    serve_until(NOW + seconds(1_182))
    assert found(NOW + seconds(1_182)) == (Liveness.OFFLINE, False)


def test_a_worker_that_died_in_an_outage_stays_offline_through_a_later_one(fleet: Fleet) -> None:
    """The second outage comes after it was Offline for us: it forgives nothing."""
    arrange(interval=60, last=NOW - seconds(30))
    beat(NOW)
    beat(NOW + seconds(100))
    serve_until(NOW + seconds(300))
    assert found(NOW + seconds(300))[0] == Liveness.OFFLINE
    beat(NOW + seconds(400))
    assert found(NOW + seconds(401))[0] == Liveness.OFFLINE


def test_a_control_plane_that_flaps_holds_workers_until_it_is_stable(fleet: Fleet) -> None:
    arrange(interval=60, last=NOW - seconds(30))
    beat(NOW)
    recovered = NOW
    for _ in range(5):
        recovered += seconds(400)
        beat(recovered)
        assert found(recovered)[0] == Liveness.ONLINE
    serve_until(recovered + seconds(180))
    assert found(recovered + seconds(180))[0] in LIVE
    serve_until(recovered + seconds(181))
    assert found(recovered + seconds(181))[0] == Liveness.OFFLINE


@st.composite
def histories(draw: st.DrawFn, longest_interval: int) -> dict[str, Any]:
    """A healthy worker's interval and phase, and how long the control plane serves and is away, in turns."""
    interval = draw(st.sampled_from([5, 30, 60, 300, longest_interval]) | st.integers(5, longest_interval))
    lengths = st.integers(31, 3600) | st.integers(31, 6 * 3600)
    return {
        "interval": interval,
        "phase": draw(st.integers(0, interval - 1)),
        "stretches": draw(st.lists(st.tuples(lengths, lengths), min_size=1, max_size=4)),
    }


@given(history=histories(longest_interval=600))
@settings(max_examples=examples(12), phases=WITHOUT_SHRINKING, **DATABASE)
def test_a_worker_that_beats_every_ten_minutes_or_faster_is_never_offline_however_often_we_are_away(
    fleet: Fleet, history: dict[str, Any]
) -> None:
    assert_never_offline(**history)


@given(history=histories(longest_interval=3600))
@settings(max_examples=examples(12), phases=WITHOUT_SHRINKING, **DATABASE)
def test_a_worker_that_beats_at_any_interval_is_never_offline_however_often_we_are_away(
    fleet: Fleet, history: dict[str, Any]
) -> None:
    assert_never_offline(**history)


def test_an_hourly_worker_is_not_offline_after_two_outages_between_which_it_had_no_turn_to_beat(fleet: Fleet) -> None:
    """Served for an hour, away for ten, served for half an hour, away for another: its next turn is due at 12:30."""
    assert_never_offline(interval=3600, phase=1800, stretches=[(3600, 36_600), (1200, 1800)])


def assert_never_offline(*, interval: int, phase: int, stretches: list[tuple[int, int]]) -> None:
    """Plays a history, in which heartbeats count while we serve, and looks whenever the answer may have changed."""
    arrange(interval=interval, last=NOW)
    moment = 0
    for served, away in [*stretches, (2 * interval, 0)]:
        beat(NOW + seconds(moment))
        assert_live(moment)
        turns = [turn for turn in range(phase, moment + served, interval) if turn >= moment]
        for turn in turns[:2]:
            serve_until(NOW + seconds(turn))
            assert_live(turn)
            hear(NOW + seconds(turn))
        if turns:
            hear(NOW + seconds(turns[-1]))
        moment += served
        serve_until(NOW + seconds(moment))
        assert_live(moment)
        assert_live(moment + away / 2)
        moment += away
        assert_live(moment)


def assert_live(moment: float) -> None:
    assert found(NOW + seconds(moment))[0] in LIVE, f"after {moment} s"


HOUR = timedelta(hours=1)
#: What a machine's clock is off by at each beat; it is right at the end.
OFFS = {
    "one beat ahead": [ZERO, HOUR, ZERO],
    "ahead for a while": [ZERO, HOUR, HOUR, HOUR, ZERO],
    "one beat behind": [ZERO, -HOUR, ZERO],
    "forth and back": [ZERO, HOUR, -HOUR, 24 * HOUR, ZERO],
    "slightly ahead": [ZERO, seconds(31), ZERO],
    "ahead from the beginning": [HOUR, HOUR, ZERO],
}


@pytest.mark.parametrize("name", OFFS)
@pytest.mark.parametrize("silence", [10, 170, 200])
def test_a_machines_clock_changes_nobodys_liveness(fleet: Fleet, name: str, silence: int) -> None:
    """Seen: one beat an hour ahead, and a worker that was killed later was shown Online for an hour."""
    now = timezone.now()
    arrange(interval=60, last=now - seconds(silence))
    without = {later: found(now + seconds(later))[0] for later in (0, 20, 100)}
    for off in OFFS[name]:
        beat(timezone.now() + off)
    assert not Outage.objects.exists()
    for later, liveness in without.items():
        serve_until(now + seconds(later))
        assert found(now + seconds(later)) == (liveness, False)


@pytest.mark.django_db
def test_a_pulse_and_an_outage_from_the_future_are_taken_back() -> None:
    """The database's own clock was ahead, as SQLite's is with the machine's."""
    now = timezone.now()
    Pulse.objects.create(beat_at=now + timedelta(hours=1))
    Outage.objects.create(lost_at=now - seconds(5), recovered_at=now + timedelta(hours=1))
    Outage.objects.create(lost_at=now - seconds(300), recovered_at=now + seconds(100))
    Outage.objects.create(lost_at=now - seconds(900), recovered_at=now - seconds(800))
    beat()
    heart = pulse()
    assert abs(heart.beat_at - now) < seconds(20)
    (first, second) = heart.outages
    assert first == (now - seconds(900), now - seconds(800))
    assert second[0] == now - seconds(300)
    assert abs(second[1] - now) < seconds(20)


@pytest.mark.django_db
def test_beats_by_the_databases_clock() -> None:
    beat()
    assert abs(Pulse.objects.get().beat_at - timezone.now()) < seconds(20)


def test_an_outage_that_ends_in_the_future_has_ended_now(fleet: Fleet) -> None:
    arrange(interval=60, last=NOW - seconds(100), heart=Heart(NOW, ((NOW - seconds(50), NOW + seconds(500)),)))
    outage = recovery(NOW)
    assert outage is not None
    assert outage.recovered_at == NOW
