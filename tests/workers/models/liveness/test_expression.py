"""The SQL expression of liveness against a model in plain Python."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import factories
from tests.support.calls import start
from tests.support.factories import Fleet
from tests.support.liveness import (
    DATABASE,
    MICROSECOND,
    NOW,
    SECOND,
    ZERO,
    Heart,
    arrange,
    found,
    seconds,
)
from tests.support.quick import examples
from workers.lifecycle.pulse import recovery
from workers.models import LIVE, Liveness, Outage, Pulse, Worker, WorkerInstance, WorkerQueue
from workers.models.instances import live_in_queue
from workers.models.liveness import may_be_excused, recovery_of, was_heard_of


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
@settings(max_examples=examples(20), **DATABASE)
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
