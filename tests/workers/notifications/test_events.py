"""Each event: real rows make it stand, one message tells so, and one tells when it is over."""

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import pytest
from django.utils import timezone

from environments.models import LiteLLMConnection, TemporalConnection
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import Fleet
from tests.support.notifications import Watch, create_target, standing_events
from workers.models import (
    ApiKey,
    Event,
    Incident,
    NotificationTarget,
    Outage,
    Pulse,
    QueueObservation,
    RefusedStart,
    WorkerInstance,
    WorkerStart,
)

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def run(fleet: Fleet, hostname: str = "host") -> None:
    assert start(fleet, {"system_info": {"hostname": hostname, "pid": 1}}).status_code == 200


def silence(fleet: Fleet) -> None:
    run(fleet)
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - HOUR)


def heartbeat(_fleet: Fleet) -> None:
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() + HOUR)


def fail(fleet: Fleet) -> None:
    run(fleet)
    WorkerInstance.objects.update(stopped_at=timezone.now(), exit_code=3)


def loop(fleet: Fleet) -> None:
    for _ in range(3):
        run(fleet)
    WorkerInstance.objects.filter(is_current=False).update(stopped_at=timezone.now())


def calm(_fleet: Fleet) -> None:
    WorkerStart.objects.all().delete()


def duplicate(fleet: Fleet) -> None:
    run(fleet)
    run(fleet, "another-host")


def end_older(_fleet: Fleet) -> None:
    WorkerInstance.objects.filter(is_current=False).update(stopped_at=timezone.now())


def observe(fleet: Fleet, **fields: object) -> None:
    now = timezone.now()
    fields = {"organization": fleet.organization, "queue": fleet.queue, "asked_at": now, "observed_at": now, **fields}
    QueueObservation.objects.update_or_create(pk=fleet.queue.pk, defaults=fields)


def fill(fleet: Fleet) -> None:
    run(fleet)
    factories.point(fleet.queue, max_workers=1)
    WorkerInstance.objects.update(configuration_revision="", last_heartbeat_at=timezone.now() + HOUR)


def fail_verification(_fleet: Fleet) -> None:
    LiteLLMConnection.objects.update(verification_problem="It does not answer.", verified_at=timezone.now())


def be_asked_in_vain(fleet: Fleet) -> None:
    observe(fleet, problem="Nothing listens at temporal:7233.", observed_at=timezone.now() - HOUR)


def expire_key(fleet: Fleet, days: float = 29) -> None:
    key = ApiKey.objects.filter(pk=fleet.api_key.pk)
    key.update(created_at=timezone.now() - 90 * DAY, expires_at=timezone.now() + days * DAY)


def refuse(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    now = timezone.now() + MINUTE
    told = {"first_at": now, "occurred_at": now, "times": 2, "status": 409, "reason": "The queue is full."}
    row = {"organization": fleet.organization, "api_key": fleet.api_key, "worker_id": fleet.worker.pk}
    RefusedStart.objects.create(id=fleet.worker.pk, **row, **told)
    heartbeat(fleet)


def start_at_last(_fleet: Fleet) -> None:
    WorkerInstance.objects.update(started_at=timezone.now() + 2 * MINUTE)


def age_refusal(_fleet: Fleet) -> None:
    WorkerInstance.objects.update(started_at=timezone.now() - 3 * DAY)
    RefusedStart.objects.update(occurred_at=timezone.now() - 2 * DAY)


def outdate(fleet: Fleet) -> None:
    run(fleet)
    factories.point(fleet.queue, heartbeat_interval=3600)
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() + 3 * HOUR)


def restart(_fleet: Fleet) -> None:
    WorkerInstance.objects.update(configuration_revision="")


class Case(NamedTuple):
    """How an event comes and goes, and what is told then."""

    event: str
    begin: Callable[[Fleet], object]
    told: str
    end: Callable[[Fleet], object]
    over: str
    #: How long it has to stand, and to be gone.
    stands: timedelta = timedelta(0)
    is_gone: timedelta = MINUTE


CASES = [
    Case(
        "worker_offline",
        silence,
        "Worker production/default/worker-1 is offline: nothing is heard of it.",
        heartbeat,
        "Worker production/default/worker-1 is no longer offline.",
    ),
    Case(
        "worker_failed",
        fail,
        "Worker production/default/worker-1 has stopped with an error (exit code 3).",
        run,
        "Worker production/default/worker-1 has started again after its error.",
    ),
    Case(
        "crash_loop",
        loop,
        "production/default/worker-1 is in a crash loop (3 starts in 10 minutes).",
        calm,
        "production/default/worker-1 is no longer in a crash loop.",
        is_gone=15 * MINUTE,
    ),
    Case(
        "duplicate_process",
        duplicate,
        "Two processes run as worker production/default/worker-1.",
        end_older,
        "Worker production/default/worker-1 no longer runs twice.",
    ),
    Case(
        "queue_unserved",
        lambda fleet: observe(fleet, backlog=7),
        "In worker queue production/default 7 tasks wait, and nobody polls.",
        lambda fleet: observe(fleet, backlog=7, pollers=1),
        "In worker queue production/default no task waits in vain any more.",
    ),
    Case(
        "queue_full",
        fill,
        "Worker queue production/default is full (1 of 1 processes), and further starts are refused.",
        lambda fleet: factories.point(fleet.queue, max_workers=2),
        "Worker queue production/default is no longer full.",
    ),
    Case(
        "connection_failing",
        fail_verification,
        "Connection litellm does not work: It does not answer.",
        lambda _: LiteLLMConnection.objects.update(verification_problem=""),
        "Connection litellm is no longer seen to fail.",
    ),
    Case(
        "connection_failing",
        be_asked_in_vain,
        "Connection temporal does not work: Nothing listens at temporal:7233.",
        lambda fleet: observe(fleet, problem=""),
        "Connection temporal is no longer seen to fail.",
    ),
    Case(
        "secret_expiring",
        expire_key,
        f"The API key or credential key expires on {(timezone.now() + 29 * DAY).date()}.",
        lambda fleet: expire_key(fleet, 90),
        "The end of the API key or credential key is no longer near.",
    ),
    Case(
        "start_refused",
        refuse,
        "The latest start of production/default/worker-1 was refused: The queue is full.",
        start_at_last,
        "The latest start of production/default/worker-1 is no longer a refused one.",
    ),
    Case(
        "configuration_outdated",
        outdate,
        "Worker production/default/worker-1 has run with an outdated configuration for an hour: restart it.",
        restart,
        "Worker production/default/worker-1 no longer runs with an outdated configuration.",
        stands=HOUR,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.event}-{case.begin.__name__}")
def test_each_event_is_told_once_and_so_is_its_end(case: Case, fleet: Fleet) -> None:
    target, watch = create_target(fleet.organization, events=[case.event]), Watch()
    watch.go_on(seconds=1)
    case.begin(fleet)
    if case.stands:
        assert watch.look() == []
        assert watch.look_after(seconds=case.stands.total_seconds() - 1) == []
        watch.go_on(seconds=1)
    assert watch.look() == [case.told]
    assert watch.look_after(seconds=20) == []
    (incident,) = Incident.objects.filter(event=case.event)
    assert (incident.ended_at, incident.organization) == (None, fleet.organization)
    case.end(fleet)
    assert watch.look_after(seconds=20) == []
    assert watch.look_after(seconds=case.is_gone.total_seconds() - 1) == []
    assert watch.look_after(seconds=1) == [case.over]
    assert watch.look_after(seconds=20) == []
    assert {row.target for row in target.deliveries.all()} == {target}


def test_the_table_has_every_event_but_our_own_absence() -> None:
    assert {case.event for case in CASES} == {*Event} - {Event.AWAY}


def test_what_comes_back_within_a_minute_was_never_gone(fleet: Fleet, target: NotificationTarget, watch: Watch) -> None:
    silence(fleet)
    assert len(watch.look_after(seconds=1)) == 1
    heartbeat(fleet)
    assert watch.look_after(seconds=20) == []
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - HOUR)
    assert watch.look_after(seconds=20) == []
    assert watch.look_after(minutes=10) == []
    assert standing_events() == ["worker_offline"]


def test_a_key_is_told_of_at_30_7_and_1_days_once_each(fleet: Fleet, target: NotificationTarget, watch: Watch) -> None:
    told = {}
    for days in (31, 30, 29, 7, 2, 1, -1, 25, 6):  # it is put off to 25 days
        expire_key(fleet, days)
        told[days] = len(watch.look_after(seconds=20))
    assert [days for days, count in told.items() if count == 1] == [30, 7, 1, 6]
    assert sum(told.values()) == 4
    assert Incident.objects.count() == 1
    TemporalConnection.objects.update(api_key_expires_on=(timezone.now() + 5 * DAY).date())
    (message,) = watch.look_after(seconds=20)
    assert message.startswith("The API key or credential temporal expires on ")


def test_what_expires_in_a_day_is_not_lost_in_what_expires_in_a_month(
    fleet: Fleet, target: NotificationTarget, watch: Watch
) -> None:
    expire_key(fleet, 0.9)
    days = [(watch.now + timedelta(days=number)).date() for number in (28, 29)]
    TemporalConnection.objects.update(api_key_expires_on=days[0])
    LiteLLMConnection.objects.update(api_key_expires_on=days[1])
    assert sorted(watch.look_after(seconds=1)) == [
        f"2 API keys or credentials expire: litellm on {days[1]}, temporal on {days[0]}.",
        f"The API key or credential key expires on {(timezone.now() + 0.9 * DAY).date()}.",
    ]


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (silence, lambda fleet: (ApiKey.objects.all().delete(), fleet.worker.delete())),
        (refuse, age_refusal),
        (refuse, lambda _: RefusedStart.objects.all().delete()),
        (lambda fleet: expire_key(fleet, 1), lambda fleet: expire_key(fleet, -31)),
    ],
    ids=["worker deleted", "refused long ago", "refusal forgotten", "expired"],
)
def test_what_is_gone_since_it_was_deleted_or_time_passed_is_over_without_a_word(
    begin: Callable[[Fleet], object], end: Callable[[Fleet], object], fleet: Fleet, target: NotificationTarget
) -> None:
    watch = Watch().go_on(seconds=1)
    begin(fleet)
    assert len(watch.look()) == 1
    end(fleet)
    assert [watch.look_after(seconds=20), watch.look_after(minutes=1), watch.look_after(minutes=1)] == [[], [], []]
    assert standing_events() == []


def test_one_who_is_cut_off_is_not_called_offline(fleet: Fleet, target: NotificationTarget, watch: Watch) -> None:
    silence(fleet)
    observe(fleet, pollers=1)
    process = WorkerInstance.objects.get()
    fields = {"organization": fleet.organization, "queue_id": fleet.queue.pk, "changed_at": timezone.now()}
    process.observation = type(process).observation.related.related_model(
        id=process.pk, instance=process, is_polling=True, is_conspicuous=True, **fields
    )
    process.observation.save()
    assert watch.look_after(seconds=1) == []


def test_where_temporal_does_not_answer_any_more_nothing_begins_and_nothing_is_over(
    fleet: Fleet, target: NotificationTarget, watch: Watch
) -> None:
    old = timezone.now() - HOUR
    observe(fleet, backlog=7, observed_at=old)
    assert watch.look_after(seconds=1) == []
    observe(fleet, backlog=7, observed_at=timezone.now())
    assert len(watch.look_after(seconds=1)) == 1
    observe(fleet, backlog=7, observed_at=old)
    assert watch.look_after(hours=1) == []
    assert watch.look_after(hours=1) == []
    assert standing_events() == ["queue_unserved"]


def test_an_outage_of_ours_is_one_message_and_none_about_workers(fleet: Fleet, target: NotificationTarget) -> None:
    other = factories.create_fleet()
    create_target(other.organization)
    run(fleet)
    now = timezone.now()
    WorkerInstance.objects.update(last_heartbeat_at=now)
    Pulse.objects.create(beat_at=now)
    watch = Watch(now + timedelta(hours=2))
    assert watch.look() == []  # nobody has noted yet that we were away
    Outage.objects.create(lost_at=now, recovered_at=watch.now)
    Pulse.objects.update(beat_at=watch.now)
    told = watch.look_after(seconds=5)
    assert len(told) == 2  # each organization's
    assert {text.partition(" from ")[0] for text in told} == {"The control plane was away"}
    WorkerInstance.objects.update(last_heartbeat_at=watch.now)
    Pulse.objects.update(beat_at=watch.now)
    assert watch.look_after(seconds=20) == []
    for minutes in (1, 11, 1):
        watch.go_on(minutes=minutes)
        WorkerInstance.objects.update(last_heartbeat_at=watch.now)
        Pulse.objects.update(beat_at=watch.now)
        assert watch.look() == []
    assert Incident.objects.filter(ended_at=None).count() == 0


def test_who_does_not_come_back_after_our_outage_is_told_then(fleet: Fleet, target: NotificationTarget) -> None:
    run(fleet)
    now = timezone.now()
    watch = Watch(now + timedelta(minutes=10))
    Outage.objects.create(lost_at=now, recovered_at=watch.now)
    Pulse.objects.create(beat_at=watch.now)
    (away,) = watch.look()
    assert away.startswith("The control plane was away from ")
    watch.go_on(minutes=4)
    Pulse.objects.update(beat_at=watch.now)
    assert watch.look() == ["Worker production/default/worker-1 is offline: nothing is heard of it."]
