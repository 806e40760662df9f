"""Who is told what, and when: many at once, quiet hours, mute, other organizations."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from environments.models import LiteLLMConnection, TemporalConnection
from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.notifications import Watch, create_target, standing_events
from workers.models import Incident, Lookout, NotificationDelivery, NotificationTarget, Worker, WorkerInstance
from workers.notifications.messages import mail_of, slack_body
from workers.notifications.passes import lookout_lease

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

MANY = 1_000
#: Statements of a look that finds nothing new, and of one that writes of one organization, whatever the numbers are.
OF_A_LOOK, OF_WRITING = 24, 14


def silent_workers(fleet: Fleet, number: int, since: datetime) -> None:
    """Of which nothing was heard for long."""
    organization, queue = fleet.organization, fleet.queue
    workers = [Worker(organization=organization, queue=queue, name=f"w{each:04}") for each in range(number)]
    Worker.objects.bulk_create(workers, batch_size=500)
    silent = [
        WorkerInstance(
            id=worker.pk,
            organization=organization,
            worker=worker,
            queue=queue,
            started_at=since,
            last_heartbeat_at=since,
        )
        for worker in workers
    ]
    WorkerInstance.objects.bulk_create(silent, batch_size=200)


@contextmanager
def fewer_statements_than(number: int) -> Iterator[None]:
    with CaptureQueriesContext(connection) as statements:
        yield
    texts = [each["sql"][:120] for each in statements.captured_queries]
    inserts = [text for text in texts if text.startswith("INSERT")]
    # SQLite takes a few rows of many columns at once.
    assert len(texts) - (len(inserts) if connection.vendor == "sqlite" else 0) <= number, "\n".join(texts)


def fail(fleet: Fleet, **fields: Any) -> None:
    LiteLLMConnection.objects.filter(pk=fleet.litellm.pk).update(verification_problem="Down.", **fields)


def mend(fleet: Fleet) -> None:
    LiteLLMConnection.objects.filter(pk=fleet.litellm.pk).update(verification_problem="")


FAILS, WORKS = "Connection litellm does not work: Down.", "Connection litellm is no longer seen to fail."


def test_a_thousand_workers_are_one_message_in_a_few_statements(
    fleet: Fleet, target: NotificationTarget, watch: Watch
) -> None:
    silent_workers(fleet, MANY, watch.now - timedelta(hours=1))
    watch.go_on(seconds=1)
    with fewer_statements_than(OF_A_LOOK + OF_WRITING):
        (message,) = watch.look()
    names = ", ".join(f"production/default/w{number:04}" for number in range(5))
    assert message == f"1,000 workers are offline: {names} and 995 more."
    payload = NotificationDelivery.objects.get().payload
    assert (payload["count"], len(payload["subjects"])) == (MANY, 20)
    assert payload["url"] == "https://controlplane.example.com//worker_offline"
    assert payload["subjects"][0] == {
        "type": "worker",
        "id": str(Worker.objects.get(name="w0000").pk),
        "name": "production/default/w0000",
        "since": (watch.now - timedelta(hours=1, seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "detail": "",
        "url": f"https://controlplane.example.com/worker/{Worker.objects.get(name='w0000').pk}",
    }
    with fewer_statements_than(OF_A_LOOK):
        assert watch.look_after(seconds=20) == []
    WorkerInstance.objects.update(last_heartbeat_at=watch.now + timedelta(hours=1))
    with fewer_statements_than(OF_A_LOOK + OF_WRITING):
        assert watch.look_after(seconds=20) == []
    with fewer_statements_than(OF_A_LOOK + OF_WRITING):
        (message,) = watch.look_after(minutes=1)
    assert message == f"1,000 workers are no longer offline: {names} and 995 more."
    assert standing_events() == []


def test_more_than_one_transaction_adds_are_one_message_all_the_same(
    fleet: Fleet, target: NotificationTarget, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.notifications.looks.BATCH", 4)
    silent_workers(fleet, 10, watch.now - timedelta(hours=1))
    (message,) = watch.look_after(seconds=1)
    assert message.startswith("10 workers are offline: ")


def test_each_target_is_told_what_it_chose_and_nothing_of_another_organization(fleet: Fleet, watch: Watch) -> None:
    other = factories.create_fleet()
    all_of_it = create_target(fleet.organization, "all")
    some = create_target(fleet.organization, "some", events=["worker_offline"])
    off = create_target(fleet.organization, "off", is_enabled=False)
    others = create_target(other.organization, "others")
    fail(fleet)
    assert watch.look_after(seconds=1) == [FAILS]
    silent_workers(fleet, 2, watch.now - timedelta(hours=1))
    assert len(watch.look_after(seconds=1)) == 2
    assert [target.deliveries.count() for target in (all_of_it, some, off, others)] == [2, 1, 0, 0]
    assert {row.organization for row in NotificationDelivery.objects.all()} == {fleet.organization}
    assert not Incident.objects.filter(organization=other.organization).exists()
    NotificationTarget.objects.filter(pk=off.pk).update(is_enabled=True)
    assert len(watch.look_after(seconds=1)) == 2  # what stands by then
    assert off.deliveries.count() == 2


def test_a_new_target_is_told_what_begins_from_then_on(fleet: Fleet, watch: Watch) -> None:
    fail(fleet)
    assert watch.look() == []
    target = create_target(fleet.organization, created_at=watch.now, told_at=watch.now)
    TemporalConnection.objects.update(verification_problem="Down.")
    assert watch.look_after(seconds=1) == ["Connection temporal does not work: Down."]
    mend(fleet)
    TemporalConnection.objects.update(verification_problem="")
    assert watch.look_after(seconds=1) == []
    assert watch.look_after(minutes=1) == ["Connection temporal is no longer seen to fail."]
    assert target.deliveries.count() == 2


#: Begin and end of quiet hours in Berlin, which is an hour ahead of UTC in winter and two in summer.
QUIET = {"quiet_from": "22:00", "quiet_until": "06:00", "time_zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("held", "hours"),
    [
        (QUIET, 9),
        ({"mute_ends_at": datetime(2026, 1, 15, 12, tzinfo=UTC), "mute_reason": "We move."}, 16),
    ],
    ids=["quiet hours", "mute"],
)
def test_what_still_stands_when_it_may_be_told_is_told_then_and_nothing_else(
    held: dict[str, Any], hours: int, fleet: Fleet
) -> None:
    watch = Watch(datetime(2026, 1, 14, 20, tzinfo=UTC))
    before = {"created_at": watch.now - timedelta(days=1), "told_at": watch.now - timedelta(seconds=1)}
    target = create_target(fleet.organization, **before)
    TemporalConnection.objects.update(verification_problem="Down.")
    assert watch.look() == ["Connection temporal does not work: Down."]
    NotificationTarget.objects.filter(pk=target.pk).update(**held)
    fail(fleet)
    silent_workers(fleet, 3, watch.now - timedelta(hours=1))
    watch.go_on(hours=1, seconds=1)
    assert watch.look() == []
    mend(fleet)  # began and ended meanwhile
    TemporalConnection.objects.update(verification_problem="")  # was told before
    assert [watch.look_after(minutes=minutes) for minutes in (1, 2, 60)] == [[], [], []]
    watch.go_on(hours=hours)
    told = watch.look()
    assert "Connection temporal is no longer seen to fail." in told
    assert len(told) == 2
    assert told[1].startswith("3 workers are offline: ")
    assert watch.look_after(seconds=20) == []


def test_quiet_hours_go_by_the_clocks_of_their_zone() -> None:
    target = NotificationTarget(quiet_from=time(22), quiet_until=time(6), time_zone="Europe/Berlin")
    by_day = NotificationTarget(quiet_from=time(6), quiet_until=time(22), time_zone="Europe/Berlin")
    for at, is_held in {
        "2026-01-15T20:59:59": False,
        "2026-01-15T21:00:00": True,
        "2026-01-16T04:59:59": True,
        "2026-01-16T05:00:00": False,
        "2026-07-15T19:59:59": False,
        "2026-07-15T20:00:00": True,
        "2026-07-16T04:00:00": False,
    }.items():
        now = datetime.fromisoformat(f"{at}+00:00")
        assert (at, target.is_held_back(now), by_day.is_held_back(now)) == (at, is_held, not is_held)


def test_who_has_lost_the_turn_writes_nothing(fleet: Fleet, target: NotificationTarget, watch: Watch) -> None:
    fail(fleet)
    Lookout.objects.update(holder=lookout_lease().holder)
    assert watch.look_after(seconds=1) == []
    assert not Incident.objects.exists()


def test_what_a_process_did_not_live_to_write_the_next_one_does(
    fleet: Fleet, target: NotificationTarget, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Incidents and messages are written together or not at all."""
    fail(fleet)
    with monkeypatch.context() as broken:
        broken.setattr(NotificationDelivery.objects, "bulk_create", lambda _rows: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            watch.look_after(seconds=1)
    assert not Incident.objects.exists()
    assert watch.look_after(seconds=1) == [FAILS]


@pytest.mark.django_db(transaction=True)
def test_one_organization_whose_row_is_locked_holds_up_no_other(another: Any) -> None:
    fleets = [fresh_fleet(), factories.create_fleet()]
    targets = [create_target(each.organization) for each in fleets]
    watch = Watch()
    for each in fleets:
        fail(each)
    another.execute("SELECT 1 FROM workers_notificationtarget WHERE id = %s FOR UPDATE", [targets[0].pk])
    assert watch.look_after(seconds=1) == [FAILS]
    another.rollback()
    assert watch.look_after(seconds=1) == [FAILS]
    assert [target.deliveries.count() for target in targets] == [1, 1]


def test_what_others_say_of_themselves_is_told_in_visible_characters(
    fleet: Fleet, target: NotificationTarget, watch: Watch
) -> None:
    LiteLLMConnection.objects.update(verification_problem="Down\n\u202eof\x1b[2J.")
    assert watch.look_after(seconds=1) == [r"Connection litellm does not work: Down\u000a\u202eof\u001b[2J."]
    (subject,) = NotificationDelivery.objects.get().payload["subjects"]
    assert subject["detail"].isprintable()


def test_a_mail_and_slack_say_what_a_webhook_does(fleet: Fleet, target: NotificationTarget, watch: Watch) -> None:
    fail(fleet)
    LiteLLMConnection.objects.update(verification_problem="<b> & more.")
    watch.look_after(seconds=1)
    payload = NotificationDelivery.objects.get().payload
    address = f"https://controlplane.example.com/litellm_connection/{fleet.litellm.pk}"
    assert slack_body(payload) == {
        "text": f"*{fleet.organization.pk}*: Connection litellm does not work: &lt;b&gt; &amp; more.\n{address}"
    }
    subject, text = mail_of(payload)
    assert subject == f"[{fleet.organization.pk}] Connection litellm does not work: <b> & more."
    assert text.splitlines()[2].endswith(f": {address}")
