"""Messages arrive: signed, once more after each failure, never where they must not, and nobody waits for another."""

import json
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from pytest_django import Settings

from environments import mail
from environments.endpoints.hosts import AllowedHost
from environments.mail import MailServer
from environments.models import DataKey, LiteLLMConnection
from environments.sealing.rotation import replace_data_keys, reseal_secrets, sealed_columns, standings
from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.endpoints import Endpoint, no_new_threads, silent
from tests.support.factories import ACTOR, Fleet
from tests.support.mail import Mailbox, mail_server, taking_after, taking_and_silent
from tests.support.notifications import NOWHERE, Watch, create_target
from tests.support.processes import ROOT
from tests.support.receivers import SECRET, Receiver, documented_verifier
from workers.models import Incident, NotificationDelivery, NotificationTarget, TargetKind
from workers.notifications.outbox import ATTENTION_FOR, CLAIMED_FOR, DELAYS, KEPT_FOR, forget_old, try_again
from workers.notifications.sending import NO_MAIL, UNOPENED

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

FAILS = "Connection litellm does not work: Down."


@pytest.fixture
def fleet(db: None) -> Fleet:
    """Of which there is something to tell."""
    fleet = fresh_fleet()
    LiteLLMConnection.objects.filter(pk=fleet.litellm.pk).update(verification_problem="Down.")
    return fleet


def told(delivery: NotificationDelivery) -> tuple[str, int, str]:
    delivery.refresh_from_db()
    states = {"waiting": delivery.next_attempt_at, "delivered": delivery.delivered_at, "given up": delivery.given_up_at}
    (state,) = (name for name, at in states.items() if at)
    return state, delivery.attempts, delivery.last_error


def delivery_of(watch: Watch) -> NotificationDelivery:
    watch.look_after(seconds=1)
    return NotificationDelivery.objects.get()


def test_a_webhook_is_sent_a_message_that_the_documented_verifier_believes_once(
    fleet: Fleet, watch: Watch, receiver: Receiver
) -> None:
    create_target(fleet.organization, url=receiver.url)
    delivery = delivery_of(watch)
    watch.send()
    assert told(delivery) == ("delivered", 1, "")
    (received,) = receiver.received
    assert received.head == "POST /hooks/T0/secret-part?key=secret-key HTTP/1.1"
    assert received.headers["Content-Type"] == "application/json"
    assert received.payload == delivery.payload
    assert received.payload["id"] == str(delivery.pk) == received.headers["X-Delivery-ID"]
    assert received.payload["message"] == FAILS
    check, seen = documented_verifier(), set[str]()
    for _ in range(2):  # whoever fails to process it gets it again, and believes it again
        assert check(received.headers, received.body, SECRET, seen) == "genuine"
    seen.add(received.headers["X-Delivery-ID"])
    assert check(received.headers, received.body, SECRET, seen) == "seen"
    for headers, body, secret in (
        (received.headers, received.body + b" ", SECRET),
        (received.headers, received.body, SECRET + "x"),
        ({**received.headers, "X-Timestamp": str(int(time.time()) - 600)}, received.body, SECRET),
        ({**received.headers, "X-Timestamp": str(int(time.time()) + 30)}, received.body, SECRET),
        ({**received.headers, "X-Delivery-ID": "another"}, received.body, SECRET),
        ({**received.headers, "X-Signature": "sha256=\u00e4"}, received.body, SECRET),
        ({}, received.body, SECRET),
    ):
        assert check(headers, body, secret, seen) == "forged"


def test_slack_is_sent_its_text_and_no_signature(fleet: Fleet, watch: Watch, receiver: Receiver) -> None:
    create_target(fleet.organization, kind=TargetKind.SLACK, url=receiver.url)
    delivery_of(watch)
    watch.send()
    (received,) = receiver.received
    assert received.payload["text"].startswith(f"*{fleet.organization.pk}*: {FAILS}\n")
    assert "X-Signature" not in received.headers


def test_a_mail_is_handed_to_the_mail_server(fleet: Fleet, watch: Watch, settings: Settings) -> None:
    box = Mailbox()
    endpoint = Endpoint(box.handle)
    try:
        settings.MAIL_SERVER = MailServer("127.0.0.1", endpoint.port, "cp@example.com", is_tls=False)
        create_target(fleet.organization, kind=TargetKind.EMAIL, addresses="ada@example.com, bob@example.com")
        delivery = delivery_of(watch)
        watch.send()
    finally:
        endpoint.stop()
    assert told(delivery) == ("delivered", 1, "")
    (sent,) = box.mails
    assert f"Subject: [{fleet.organization.pk}] {FAILS}" in sent.replace("\r\n ", " ")
    taken = {line.lower().removeprefix("rcpt to:") for line in box.commands if line.lower().startswith("rcpt")}
    assert taken == {"<ada@example.com>", "<bob@example.com>"}
    settings.MAIL_SERVER = None
    NotificationDelivery.objects.update(delivered_at=None, next_attempt_at=watch.now)
    watch.send()
    assert told(delivery) == ("waiting", 2, NO_MAIL)


def test_a_mail_that_some_refuse_is_sent_again_to_those_alone(fleet: Fleet, watch: Watch, settings: Settings) -> None:
    box = Mailbox(refused=("bob@example.com",))
    with mail_server(box.handle) as url:
        settings.MAIL_SERVER = MailServer("127.0.0.1", urlsplit(url).port or 0, "cp@example.com", is_tls=False)
        create_target(fleet.organization, kind=TargetKind.EMAIL, addresses="ada@example.com, bob@example.com")
        delivery = delivery_of(watch)
        watch.send()
        assert told(delivery) == ("waiting", 1, "The mail server refused 1 of 2 addresses: bob@example.com.")
        watch.go_on(minutes=1).send()
        assert told(delivery) == ("waiting", 2, "The mail server refused 1 of 1 addresses: bob@example.com.")
        box.refused = ()
        watch.go_on(minutes=2).send()
    assert told(delivery) == ("delivered", 3, "")
    assert ["ada@" in sent for sent in box.mails] == [True, False]


def test_a_slow_mail_server_is_waited_for_and_one_that_says_nothing_is_given_the_same_mail_three_times(
    fleet: Fleet, watch: Watch, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("environments.mail.PATIENCE", 0.3)
    create_target(fleet.organization, kind=TargetKind.EMAIL, addresses="ada@example.com")
    delivery, mails = delivery_of(watch), list[str]()
    with mail_server(taking_after(0.6, mails)) as url:
        settings.MAIL_SERVER = MailServer("127.0.0.1", urlsplit(url).port or 0, "cp@example.com", is_tls=False)
        watch.send()
    assert told(delivery) == ("delivered", 1, "")
    assert f"Message-ID: <{delivery.pk}@example.com>" in mails[0]
    NotificationDelivery.objects.update(delivered_at=None, next_attempt_at=watch.now, attempts=0)
    monkeypatch.setattr("environments.mail.PATIENCE_ONCE_GIVEN", 0.1)
    with mail_server(taking_and_silent) as url:
        settings.MAIL_SERVER = MailServer("127.0.0.1", urlsplit(url).port or 0, "cp@example.com", is_tls=False)
        for state in ("waiting", "waiting", "given up", "given up"):
            watch.go_on(hours=1).send()
            assert told(delivery)[0] == state
    assert told(delivery)[1:] == (3, f"{mail.Outcome.UNCERTAIN.value}.")


STATUSES = {
    "302 Found": "{} redirects (302), which is not followed: enter the URL that it leads to.",
    "404 Not Found": "{} knows no such path (404): is the URL complete?",
    "410 Gone": "{} refuses the request (410).",
    "429 Too Many Requests": "{} asks to slow down (429): try again later.",
    "500 Oops": "{} has a problem of its own (500).",
    "204 No Content": "",
}


def test_any_status_but_2xx_is_a_failure_and_says_so(fleet: Fleet, watch: Watch) -> None:
    receivers = {status: Receiver(status) for status in STATUSES}
    try:
        for number, receiver in enumerate(receivers.values()):
            create_target(fleet.organization, f"t{number}", url=receiver.url)
        watch.look_after(seconds=1)
        watch.send()
    finally:
        for receiver in receivers.values():
            receiver.stop()
    errors = NotificationDelivery.objects.order_by("target__name").values_list("last_error", flat=True)
    assert list(errors) == [STATUSES[status].format(receiver.host) for status, receiver in receivers.items()]
    assert {len(receiver.received) for receiver in receivers.values()} == {1}
    assert not any("secret" in error for error in errors)


def test_what_is_not_taken_is_sent_again_later_and_later_until_it_is_given_up(
    fleet: Fleet, watch: Watch, receiver: Receiver
) -> None:
    receiver.status = "503 Busy"
    create_target(fleet.organization, url=receiver.url)
    delivery = delivery_of(watch)
    watch.send()
    shown = f"{receiver.host} has a problem of its own (503)."
    assert told(delivery) == ("waiting", 1, shown)
    began, waits = watch.now, []
    for number, delay in enumerate(DELAYS, 2):
        watch.go_on(seconds=delay.total_seconds() - 1)
        watch.send()
        assert told(delivery)[1] == number - 1
        watch.go_on(seconds=1)
        watch.send()
        waits.append(watch.now - began)
        assert told(delivery)[1] == number
    assert (waits[0], told(delivery)[0]) == (timedelta(seconds=30), "given up")
    assert timedelta(days=1) <= waits[-1] < timedelta(days=1.2)
    assert len({received.payload["id"] for received in receiver.received}) == 1
    watch.go_on(days=2)
    watch.send()
    assert told(delivery) == ("given up", len(DELAYS) + 1, shown)
    receiver.status = "200 OK"
    assert try_again(NotificationDelivery.objects.all(), watch.now) == 1
    watch.send()
    assert told(delivery) == ("delivered", 1, "")
    assert try_again(NotificationDelivery.objects.all(), watch.now) == 0


NOT_CALLED = {
    "http://169.254.169.254/latest": "The control plane never connects to 169.254.169.254",
    "https://10.0.0.1/hook": "10.0.0.1 is not public",
    "http://[fd00:ec2::254]/": "The control plane never connects to",
    NOWHERE: "Nothing listens at 127.0.0.1:1.",
    "http://no-such-name.invalid/": "The name no-such-name.invalid cannot be resolved.",
    "http://user@host/": "Leave user and password out of the URL: messages are sent without.",
}


def test_the_guard_decides_where_messages_may_go(fleet: Fleet, watch: Watch) -> None:
    for number, url in enumerate(NOT_CALLED):
        create_target(fleet.organization, f"t{number}", url=url)
    watch.look_after(seconds=1)
    watch.send()
    rows = NotificationDelivery.objects.order_by("target__name")
    for row, (url, problem) in zip(rows, NOT_CALLED.items(), strict=True):
        assert row.next_attempt_at, url
        assert problem in row.last_error, url


def test_the_setting_names_where_messages_may_go(
    fleet: Fleet, watch: Watch, receiver: Receiver, settings: Settings
) -> None:
    create_target(fleet.organization, url=receiver.url)
    settings.CONNECTION_HOSTS = (AllowedHost.parse("hooks.example.com"),)
    delivery = delivery_of(watch)
    watch.send()
    assert "CONNECTION_HOSTS does not name 127.0.0.1" in told(delivery)[2]
    assert receiver.received == []


def test_a_target_that_never_answers_holds_up_nobody_else(fleet: Fleet, watch: Watch, receiver: Receiver) -> None:
    slow = Endpoint(silent)
    try:
        for number in range(4):
            create_target(fleet.organization, f"slow{number}", url=f"http://{slow.host}/")
        other = factories.create_fleet()
        LiteLLMConnection.objects.filter(pk=other.litellm.pk).update(verification_problem="Down.")
        create_target(other.organization, url=receiver.url)
        watch.look_after(seconds=1)
        began = time.monotonic()
        # Two of the slow ones are asked at once, and no further one is begun once the time is over.
        watch.send(seconds=0.5)
        took = time.monotonic() - began
    finally:
        slow.stop()
    assert receiver.messages == [FAILS]
    assert 3 <= took < 5
    assert NotificationDelivery.objects.filter(attempts=0).count() == 2
    assert {row.last_error for row in NotificationDelivery.objects.filter(attempts=1, delivered_at=None)} == {
        f"{slow.host} did not answer within 3 seconds."
    }


def test_what_was_claimed_by_a_process_that_died_is_sent_after_a_minute(
    fleet: Fleet, watch: Watch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_target(fleet.organization, url=receiver.url)
    delivery = delivery_of(watch)
    with monkeypatch.context() as dying:
        dying.setattr("workers.notifications.outbox.threading.Thread.start", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            watch.send()
    watch.go_on(seconds=CLAIMED_FOR.total_seconds() - 1)
    watch.send()
    assert receiver.received == []
    watch.go_on(seconds=1)
    watch.send()
    assert receiver.messages == [FAILS]
    assert told(delivery) == ("delivered", 2, "")


def test_what_waits_for_a_muted_target_waits_until_it_may_be_told(
    fleet: Fleet, watch: Watch, receiver: Receiver
) -> None:
    target = create_target(fleet.organization, url=receiver.url)
    delivery = delivery_of(watch)
    rows = NotificationTarget.objects.filter(pk=target.pk)
    for held in ({"is_enabled": False}, {"mute_ends_at": watch.now + timedelta(hours=1), "mute_reason": "Holiday."}):
        rows.update(**held)
        watch.send()
        assert told(delivery) == ("waiting", 0, "")
        rows.update(is_enabled=True)
    watch.go_on(hours=1)
    watch.send()
    assert told(delivery) == ("delivered", 1, "")


def test_sealed_parts_are_found_by_rotation_and_arrive_after_it(fleet: Fleet, watch: Watch, receiver: Receiver) -> None:
    target = create_target(fleet.organization, url=receiver.url)
    columns = {column.field for column in sealed_columns() if column.model is NotificationTarget}
    assert columns == {"sealed_url", "sealed_secret"}
    list(replace_data_keys(made_before=watch.now + timedelta(days=1), actor=ACTOR, now=watch.now))
    before = {each.kind: (each.current, each.older) for each in standings()}
    assert before["notification targets"] == (0, 2)
    list(reseal_secrets())
    after = {each.kind: (each.current, each.older) for each in standings()}
    assert after["notification targets"] == (2, 0)
    delivery = delivery_of(watch)
    watch.send()
    assert told(delivery) == ("delivered", 1, "")
    assert documented_verifier()(receiver.received[0].headers, receiver.received[0].body, SECRET, set()) == "genuine"
    NotificationTarget.objects.filter(pk=target.pk).update(sealed_url=target.sealed_secret)  # another field's
    NotificationDelivery.objects.update(delivered_at=None, next_attempt_at=watch.now)
    watch.send()
    assert told(delivery) == ("waiting", 2, UNOPENED)
    assert DataKey.objects.count() == 2


def test_what_ended_a_month_ago_is_forgotten_and_nothing_else(fleet: Fleet, watch: Watch, receiver: Receiver) -> None:
    create_target(fleet.organization, url=receiver.url)
    delivery = delivery_of(watch)
    watch.send()
    LiteLLMConnection.objects.update(verification_problem="")
    watch.look_after(seconds=1)
    watch.look_after(minutes=2)
    assert NotificationDelivery.objects.count() == 2
    forget_old(watch.now + KEPT_FOR - timedelta(minutes=3))
    assert NotificationDelivery.objects.count() == 2
    forget_old(watch.now + KEPT_FOR + timedelta(minutes=1))
    assert NotificationDelivery.objects.exclude(pk=delivery.pk).count() == 1  # it waits
    assert not NotificationDelivery.objects.filter(pk=delivery.pk).exists()
    assert not Incident.objects.exists()
    NotificationDelivery.objects.update(next_attempt_at=None, given_up_at=watch.now)
    for age, number in ((timedelta(0), 1), (timedelta(seconds=1), 0)):
        forget_old(watch.now + ATTENTION_FOR + age)
        assert NotificationDelivery.objects.count() == number


@pytest.fixture(autouse=True)
def _no_threads_are_left() -> Iterator[None]:
    with no_new_threads():
        yield
        time.sleep(0.01)


def test_the_payload_is_as_documented(fleet: Fleet, watch: Watch, receiver: Receiver) -> None:
    create_target(fleet.organization, url=receiver.url)
    delivery = delivery_of(watch)
    page = (ROOT / "docs" / "operate" / "notifications.md").read_text()
    (example,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    documented = json.loads(example)
    assert set(documented) == set(delivery.payload)
    assert set(documented["subjects"][0]) == set(delivery.payload["subjects"][0])
