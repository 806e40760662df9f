"""Liveness: the SQL expression against a model in plain Python, and the pulse that tells our absence from a worker's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.lifecycle.pulse import INTERVAL, beat, recovery
from workers.models import LIVE, Liveness, Outage, Pulse, Worker, WorkerInstance, WorkerQueue
from workers.models.instances import live_in_queue
from workers.models.liveness import may_be_excused, recovery_of, was_heard_of

NOW = datetime(2026, 3, 14, 15, 9, 26, 535_897, tzinfo=UTC)
ZERO = timedelta(0)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
DATABASE = {"suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}

#: Each example plays a whole history, so that shrinking one would take minutes.
WITHOUT_SHRINKING = (Phase.explicit, Phase.generate)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.fixture
def fleet(db: None) -> Fleet:
    """A fleet whose worker has started and whose control plane has no pulse yet."""
    fleet = fresh_fleet()
    assert start(fleet).status_code == 200
    Pulse.objects.all().delete()
    return fleet


# --- The rule, in plain Python -------------------------------------------------------------------------------------------


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


def expected(
    *, interval: int, last: datetime, now: datetime, heart: Heart | None, is_stopped: bool
) -> tuple[str, bool]:
    """Liveness, and whether an outage of ours excuses the silence; written from the rule, not from the expression."""
    offline_after = max(seconds(3 * interval), seconds(90))
    outages = list(heart.outages) if heart else []
    if heart and now - heart.beat_at > seconds(30):
        outages.append((heart.beat_at, now))
    since, is_held = last, False
    for lost_at, recovered_at in outages:
        is_held = since < recovered_at and lost_at - since <= offline_after
        since = recovered_at if is_held else since
    silence = now - since
    if is_stopped:
        return Liveness.STOPPED, is_held
    if silence > offline_after:
        return Liveness.OFFLINE, is_held
    return (Liveness.LATE if silence > seconds(1.5 * interval) else Liveness.ONLINE), is_held


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


# --- The expression ------------------------------------------------------------------------------------------------------


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("interval", "silence", "liveness"),
    [
        (60, 0, Liveness.ONLINE),
        (60, 90, Liveness.ONLINE),
        (60, 91, Liveness.LATE),
        (60, 180, Liveness.LATE),
        (60, 181, Liveness.OFFLINE),
        (5, 7, Liveness.ONLINE),
        (5, 8, Liveness.LATE),
        (5, 90, Liveness.LATE),
        (5, 91, Liveness.OFFLINE),
        (30, 90, Liveness.LATE),
        (30, 91, Liveness.OFFLINE),
        (31, 93, Liveness.LATE),
        (31, 94, Liveness.OFFLINE),
        (3600, 5400, Liveness.ONLINE),
        (3600, 5401, Liveness.LATE),
        (3600, 10_800, Liveness.LATE),
        (3600, 10_801, Liveness.OFFLINE),
        (60, -30, Liveness.ONLINE),
    ],
)
def test_liveness_follows_from_the_silence(fleet: Fleet, interval: int, silence: int, liveness: Liveness) -> None:
    arrange(interval=interval, last=NOW - seconds(silence), heart=Heart(NOW))
    assert found() == (liveness, False)


@pytest.mark.sqlite
@pytest.mark.parametrize("now", [NOW, NOW.replace(microsecond=0)])
@pytest.mark.parametrize("interval", [5, 7, 29, 30, 31, 60, 3600])
def test_each_limit_is_exact_to_the_microsecond(fleet: Fleet, interval: int, now: datetime) -> None:
    late, offline = seconds(1.5 * interval), max(seconds(3 * interval), seconds(90))
    for silence, liveness in (
        (late, Liveness.ONLINE),
        (late + MICROSECOND, Liveness.LATE),
        (offline, Liveness.LATE),
        (offline + MICROSECOND, Liveness.OFFLINE),
    ):
        arrange(interval=interval, last=now - silence)
        assert found(now)[0] == liveness


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "heart", [None, Heart(NOW, ((NOW - seconds(400), NOW - seconds(100)),)), Heart(NOW - seconds(99))]
)
def test_workers_and_instances_and_what_is_counted_follow_one_rule(fleet: Fleet, heart: Heart | None) -> None:
    for silence in (0, 100, 200, 450, 700):
        arrange(interval=60, last=NOW - seconds(silence), heart=heart)
        worker = Worker.objects.with_liveness(NOW).with_held(NOW).get()
        assert (worker.liveness, bool(worker.is_held)) == found()
        assert WorkerInstance.objects.live(NOW).exists() == (worker.liveness in LIVE)


def test_a_stopped_instance_is_stopped_however_short_its_silence(fleet: Fleet) -> None:
    arrange(interval=60, last=NOW, stopped_at=NOW)
    assert found()[0] == Liveness.STOPPED


def test_a_worker_without_an_instance_never_started(fleet: Fleet) -> None:
    idle = factories.create_worker(fleet.queue, "idle")
    for heart in (None, Heart(NOW), Heart(NOW, ((NOW - seconds(900), NOW - seconds(300)),)), Heart(NOW - seconds(300))):
        arrange(interval=60, last=NOW, heart=heart)
        row = Worker.objects.with_liveness(NOW).with_held(NOW).get(pk=idle.pk)
        assert (row.liveness, bool(row.is_held)) == (Liveness.NEVER_STARTED, False)


def test_counts_one_row_for_each_worker_however_many_instances_it_had(fleet: Fleet) -> None:
    start(fleet)
    start(fleet)
    factories.create_worker(fleet.queue, "idle")
    assert Worker.objects.with_liveness(NOW).count() == 2


AROUND = st.sampled_from([ZERO, MICROSECOND, -MICROSECOND, SECOND, -SECOND])


#: Workers that each example looks at in one statement.
CREW = 20


@pytest.fixture
def crew(fleet: Fleet) -> list[WorkerInstance]:
    """Workers of queues of their own."""
    WorkerInstance.objects.all().delete()
    for number in range(CREW):
        worker = factories.create_worker(factories.create_queue(fleet.environment, f"q-{number:02}"))
        WorkerInstance.objects.create(
            id=uuid4(),
            organization=fleet.organization,
            worker=worker,
            queue=worker.queue,
            started_at=NOW,
            last_heartbeat_at=NOW,
        )
    return list(WorkerInstance.objects.select_related("worker__queue"))


@st.composite
def hearts(draw: st.DrawFn) -> Heart | None:
    """No pulse yet, or one that beats or has ceased, with an outage before or without."""
    spans = st.sampled_from([0, 5, 30, 90, 599, 601]) | st.integers(0, 20_000)
    beat_at = NOW - seconds(draw(spans)) + draw(AROUND)
    if draw(st.integers(0, 9)) == 0:
        return None
    outages: list[tuple[datetime, datetime]] = []
    moment = beat_at
    for _ in range(draw(st.integers(0, 4))):
        recovered_at = moment - seconds(draw(spans))
        moment = recovered_at - SECOND - seconds(draw(spans))
        outages.insert(0, (moment, recovered_at))
        moment -= SECOND
    return Heart(beat_at, tuple(outages))


@st.composite
def silences(draw: st.DrawFn, heart: Heart | None) -> dict[str, Any]:
    """An interval, and a last heartbeat that is likely to lie around a limit before something that matters."""
    interval = draw(st.sampled_from([5, 29, 30, 31, 3600]) | st.integers(5, 3600))
    landmark = draw(st.sampled_from([NOW, *(heart.moments if heart else ())]))
    limits = [ZERO, seconds(1.5 * interval), max(seconds(3 * interval), seconds(90))]
    span = draw(st.sampled_from(limits) | st.integers(0, 20_000).map(seconds))
    is_stopped = draw(st.sampled_from([False] * 9 + [True]))
    return {"interval": interval, "last": landmark - span + draw(AROUND), "is_stopped": is_stopped}


@pytest.mark.sqlite
@given(data=st.data(), now=st.sampled_from([NOW, NOW.replace(microsecond=0)]))
@settings(max_examples=50, **DATABASE)
def test_the_expression_agrees_with_the_rule_in_plain_python(
    crew: list[WorkerInstance], data: st.DataObject, now: datetime
) -> None:
    heart = data.draw(hearts())
    told = {row.pk: data.draw(silences(heart)) for row in crew}
    for row in crew:
        row.is_current = data.draw(st.booleans())
        row.last_heartbeat_at = told[row.pk]["last"]
        row.stopped_at = NOW if told[row.pk]["is_stopped"] else None
        row.worker.queue.heartbeat_interval = told[row.pk]["interval"]
    WorkerInstance.objects.bulk_update(crew, ["is_current", "last_heartbeat_at", "stopped_at"])
    WorkerQueue.objects.bulk_update([row.worker.queue for row in crew], ["heartbeat_interval"])
    Pulse.objects.all().delete()
    Outage.objects.all().delete()
    if heart:
        heart.store()
    answers = {
        row.pk: (row.liveness, bool(row.is_held)) for row in WorkerInstance.objects.with_liveness(now).with_held(now)
    }
    for pk, silence in told.items():
        assert answers[pk] == expected(now=now, heart=heart, **silence), (silence, heart)
    live = {row for row in crew if answers[row.pk][0] in LIVE}
    assert set(WorkerInstance.objects.live(now)) == live
    ended = recovery_of(Pulse.objects.first(), Outage.objects.first(), now)
    for row in crew:  # what a start reckons without asking the database once more
        last, interval = row.last_heartbeat_at, row.worker.queue.heartbeat_interval
        is_heard_of = row.stopped_at is None and was_heard_of(last, interval, now)
        assert row in live or not is_heard_of
        assert is_heard_of or row not in live or may_be_excused(last, interval, now, ended)
    assert set(WorkerInstance.objects.duplicates(now)) == {row for row in live if not row.is_current}
    is_away = heart is not None and now - heart.beat_at > seconds(30)
    may_be_held = recovery(now) is not None
    assert may_be_held == (is_away or any(answers[row.pk][1] for row in live))
    shorter = WorkerInstance.objects.with_liveness(now, may_be_held=may_be_held)
    assert {row.pk: row.liveness for row in shorter} == {pk: liveness for pk, (liveness, _) in answers.items()}
    for current in (WorkerInstance.objects.current(now), WorkerInstance.objects.current(now, may_be_held=may_be_held)):
        assert {row.pk: row.liveness for row in current} == {
            row.pk: answers[row.pk][0] for row in crew if row.is_current
        }
    assert set(WorkerInstance.objects.duplicates(now, may_be_held=may_be_held)) == {r for r in live if not r.is_current}
    counted = WorkerQueue.objects.annotate(live_count=live_in_queue(now)).filter(live_count=1)
    assert set(counted) == {row.worker.queue for row in live}


@pytest.mark.sqlite
def test_is_computed_for_every_row_of_one_statement_by_its_own_interval(
    fleet: Fleet, django_assert_num_queries: Any
) -> None:
    for interval in (5, 60, 3600):
        queue = factories.create_queue(fleet.environment, f"q-{interval}", heartbeat_interval=interval)
        worker = factories.create_worker(queue)
        start(fleet, worker_id=worker.pk, token=factories.issue_token(queue))
    WorkerInstance.objects.update(last_heartbeat_at=NOW - seconds(100))
    with django_assert_num_queries(1):
        rows = list(Worker.objects.with_liveness(NOW).order_by("queue__heartbeat_interval", "queue__name"))
    assert [row.liveness for row in rows] == ["Offline", "Late", "Late", "Online"]


# --- The pulse -----------------------------------------------------------------------------------------------------------


def pulse() -> Heart:
    outages = Outage.objects.order_by("lost_at").values_list("lost_at", "recovered_at")
    return Heart(Pulse.objects.get().beat_at, tuple(outages))


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


# --- Outages and healthy workers -----------------------------------------------------------------------------------------


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
@settings(max_examples=12, phases=WITHOUT_SHRINKING, **DATABASE)
def test_a_worker_that_beats_every_ten_minutes_or_faster_is_never_offline_however_often_we_are_away(
    fleet: Fleet, history: dict[str, Any]
) -> None:
    assert_never_offline(**history)


@given(history=histories(longest_interval=3600))
@settings(max_examples=12, phases=WITHOUT_SHRINKING, **DATABASE)
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


# --- Clocks --------------------------------------------------------------------------------------------------------------


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
