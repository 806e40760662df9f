"""The pages of targets: what is taken and refused, that nothing sealed comes out, and the test message."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from environments import limits
from environments.endpoints.hosts import AllowedHost
from environments.mail import MailServer
from environments.models import AuditEvent, LiteLLMConnection, Role, TemporalConnection
from environments.sealing.data_keys import open_sealed
from tests.support import factories
from tests.support.console import everything, form_of, member, signed_in, url
from tests.support.factories import Fleet
from tests.support.notifications import Watch, create_target
from tests.support.receivers import SECRET, Receiver
from workers.models import Event, NotificationTarget, TargetKind
from workers.models.notifications import are_addresses
from workers.models.states import HAS_PASSED

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:Overriding get_action_choices")]

ADD = url(NotificationTarget, "add")
URL = "https://hooks.example.com/services/T0/secret-part?key=secret-key"
FORM = {"name": "ops", "kind": "webhook", "url": URL, "secret": SECRET, "time_zone": "UTC", "is_enabled": "on"}


@pytest.fixture(autouse=True)
def mail_is_sent(settings: Settings) -> None:
    settings.MAIL_SERVER = MailServer("127.0.0.1", 1, "cp@example.com", is_tls=False)


def add(client: Client, fleet: Fleet, **fields: Any) -> Any:
    form = {"organization": fleet.organization.pk, **FORM, **fields}
    return client.post(ADD, {name: value for name, value in form.items() if value is not None})


def errors_of(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200, response.content[:300]
    return dict(response.context["adminform"].form.errors)


def test_a_target_is_stored_with_its_url_and_secret_sealed(fleet: Fleet, client: Client) -> None:
    response = add(client, fleet, events=["worker_offline", "queue_full"], quiet_from="22:00", quiet_until="06:00")
    assert response.status_code == 302, errors_of(response)
    target = NotificationTarget.objects.get()
    assert (target.url_host, target.events) == ("hooks.example.com", ["worker_offline", "queue_full"])
    assert open_sealed(target, "sealed_url").reveal() == URL
    assert open_sealed(target, "sealed_secret").reveal() == SECRET
    told = json.dumps(list(AuditEvent.objects.values_list("action", "changes")))
    assert "notification_target.created" in told
    assert target.secret_fingerprint in told
    pages = [url(NotificationTarget, page, target.pk) for page in ("change", "history", "delete")]
    for page in (*pages, url(NotificationTarget, "changelist")):
        text = client.get(page).content.decode()
        for secret in ("secret-part", "secret-key", SECRET, target.sealed_url):
            assert secret not in text + told
    form = form_of(client, pages[0])
    assert client.post(pages[0], {**form, "url": "", "secret": "", "time_zone": "Asia/Tokyo"}).status_code == 302
    kept = NotificationTarget.objects.get()
    assert (kept.sealed_url, kept.sealed_secret, kept.events) == (
        target.sealed_url,
        target.sealed_secret,
        target.events,
    )
    assert client.post(pages[0], {**form, "url": "https://other.example/", "secret": ""}).status_code == 302
    changed = AuditEvent.objects.filter(action="notification_target.updated").first()
    assert changed
    assert changed.changes["url_host"] == ["hooks.example.com", "other.example"]
    assert set(changed.changes) == {"url_host", "url_fingerprint", "time_zone"}


def test_nobody_is_told_the_end_of_what_they_did_not_want_to_be_told(fleet: Fleet, client: Client) -> None:
    before = dict.fromkeys(("created_at", "told_at"), timezone.now() - timedelta(hours=1))
    watch, target = (
        Watch(timezone.now() - timedelta(minutes=3)),
        create_target(fleet.organization, events=["worker_offline"], **before),
    )
    LiteLLMConnection.objects.update(verification_problem="Down.")
    assert watch.look() == []
    address = url(NotificationTarget, "change", target.pk)
    assert client.post(address, {**form_of(client, address), "events": []}).status_code == 302
    LiteLLMConnection.objects.update(verification_problem="")
    TemporalConnection.objects.update(verification_problem="Down.")
    assert watch.look_after(minutes=4) == ["Connection temporal does not work: Down."]
    TemporalConnection.objects.update(verification_problem="")
    assert [watch.look_after(minutes=2), watch.look_after(minutes=2)] == [
        [],
        ["Connection temporal is no longer seen to fail."],
    ]


ADDRESSES = "Write mail addresses parted by commas, such as ada@example.com, bob@example.com."
MUTE = "A mute has an end and a reason, or neither of them."
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"url": ""}, "url", "Give the URL."),
    ({"secret": ""}, "secret", "Give the secret."),
    ({"secret": "short"}, "secret", "Use 32 characters or more: python manage.py generate_key secret makes one."),
    ({"url": "hooks.example.com"}, "url", "Write an http(s) URL, such as https://service.example.com."),
    ({"url": "https://a b/"}, "url", "A URL has no blanks, line breaks and backslashes: leave them out."),
    ({"url": "https://a/#x"}, "url", "Leave out the fragment: what follows # is never sent."),
    ({"url": "https://u:p@a/"}, "url", "Leave user and password out of the URL: messages are sent without."),
    ({"url": "https://a/?x=ä"}, "url", "The query has characters that a URL has as %XX only."),
    ({"url": "https://0x7f.1/"}, "url", "Write an IPv4 address as four decimal numbers without leading zeros."),
    ({"addresses": "ada@example.com"}, "addresses", "Leave the addresses out: this kind of target has none."),
    ({"kind": "slack"}, "secret", "Leave the secret out: this kind of target has none."),
    ({"kind": "email", "url": "", "secret": ""}, "addresses", "Give the addresses."),
    (
        {"kind": "email", "url": "", "secret": "", "addresses": "ada@example.com; bob"},
        "addresses",
        "Write mail addresses parted by commas, such as ada@example.com, bob@example.com.",
    ),
    (
        {"kind": "email", "url": "", "secret": "", "addresses": ",".join(f"a{each}@example.com" for each in range(21))},
        "addresses",
        "Write at most 20 addresses: a list of your mail server's takes any number.",
    ),
    ({"kind": "pager"}, "kind", "Select a valid choice. pager is not one of the available choices."),
    ({"name": "Ops Team"}, "name", "Use 1 to 63 lower-case letters, digits and '-', no '-' at either end."),
    ({"events": ["worker_born"]}, "events", "Select a valid choice. worker_born is not one of the available choices."),
    ({"time_zone": "Europe/Atlantis"}, "time_zone", "This is no time zone: write UTC or a name such as Europe/Berlin."),
    (
        {"time_zone": "../../etc/passwd"},
        "time_zone",
        "This is no time zone: write UTC or a name such as Europe/Berlin.",
    ),
    ({"time_zone": "posixrules"}, "time_zone", "This is no time zone: write UTC or a name such as Europe/Berlin."),
    ({"time_zone": "Europe"}, "time_zone", "This is no time zone: write UTC or a name such as Europe/Berlin."),
    ({"quiet_from": "22:00"}, "__all__", "Quiet hours have a begin and an end, which differ."),
    ({"quiet_from": "22:00", "quiet_until": "22:00"}, "__all__", "Quiet hours have a begin and an end, which differ."),
    ({"quiet_from": "25:00", "quiet_until": "06:00"}, "quiet_from", "Enter a valid time."),
    ({"mute_ends_at": "2099-12-24T12:00"}, "__all__", MUTE),
    ({"mute_reason": "We move."}, "__all__", MUTE),
    ({"mute_ends_at": "2020-12-24T12:00", "mute_reason": "We move."}, "mute_ends_at", HAS_PASSED),
    (
        {"mute_ends_at": "2099-12-24T12:00", "mute_reason": "We\u202emove."},
        "mute_reason",
        "Use one line of text, without control characters.",
    ),
    ({"mute_ends_at": "9999-12-31T23:59:59-14:00", "mute_reason": "x"}, "mute_ends_at", "Enter a valid date/time."),
    ({"mute_ends_at": "0001-01-01T00:00+14:00", "mute_reason": "x"}, "mute_ends_at", "Enter a valid date/time."),
    ({"mute_ends_at": "soon"}, "mute_ends_at", "Enter a valid date/time."),
]


BAD_ADDRESSES = {
    '"ada b"@example.com': ADDRESSES,
    "ada@[127.0.0.1]": ADDRESSES,
    "ada@localhost": ADDRESSES,
    "ada\x01@example.com": ADDRESSES,
    f"{'a' * 65}@example.com": "What stands before @ has at most 64 characters.",
    "ada@ex\u00e4mple.com": "Write addresses in ASCII: not every mail server takes others. A domain has its xn-- form.",
    "ada@example.com, Ada@example.com": "Write each address once.",
    "ada@example.com,": ADDRESSES,
}


def test_addresses_are_plain_ones() -> None:
    for typed, sentence in BAD_ADDRESSES.items():
        with pytest.raises(ValidationError) as caught:
            are_addresses(typed)
        assert caught.value.messages == [sentence], typed


def test_what_cannot_work_is_refused_in_a_sentence(fleet: Fleet, client: Client) -> None:
    before = everything()
    for typed, field, sentence in REFUSED:
        assert errors_of(add(client, fleet, **typed)) == {field: [sentence]}, typed
    assert everything() == before


def test_a_mute_that_is_over_is_neither_shown_nor_in_the_way(fleet: Fleet, client: Client) -> None:
    mute = {"mute_ends_at": timezone.now() - timedelta(hours=1), "mute_reason": "We moved."}
    address = url(NotificationTarget, "change", create_target(fleet.organization, **mute).pk)
    page = client.get(address).content.decode()
    assert "We moved." not in page
    assert '<th scope="row">Told last</th><td>never</td>' in page
    assert page.count('type="time"') == 2
    assert "vTimeField" not in page
    assert 'type="datetime-local"' in page
    assert client.post(address, {**form_of(client, address), "time_zone": "Asia/Tokyo"}).status_code == 302


def test_email_is_refused_where_no_mail_is_sent(fleet: Fleet, client: Client, settings: Settings) -> None:
    settings.MAIL_SERVER = None
    typed = {"kind": "email", "url": "", "secret": "", "addresses": "ada@example.com"}
    told = "No mail is sent from here: the setting EMAIL_URL names no mail server."
    assert errors_of(add(client, fleet, **typed)) == {"addresses": [told]}


def test_the_database_refuses_what_cannot_work_too(fleet: Fleet) -> None:
    target = create_target(fleet.organization)
    refused: list[dict[str, Any]] = [
        {"sealed_url": ""},
        {"sealed_secret": ""},
        {"addresses": "a@example.com"},
        {"kind": TargetKind.EMAIL},
        {"kind": TargetKind.SLACK},
        {"quiet_from": "22:00"},
        {"mute_ends_at": "2026-12-24T12:00:00Z"},
        {"mute_reason": "We move."},
    ]
    for fields in refused:
        with pytest.raises(IntegrityError), transaction.atomic():
            NotificationTarget.objects.filter(pk=target.pk).update(**fields)


def test_loaddata_refuses_what_the_form_does(fleet: Fleet, tmp_path: Path) -> None:
    target = create_target(fleet.organization)
    file = tmp_path / "targets.json"
    call_command("dumpdata", "workers.NotificationTarget", output=str(file), verbosity=0)
    rows = json.loads(file.read_text())
    assert SECRET not in file.read_text()
    NotificationTarget.objects.filter(pk=target.pk).update(name="other")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"events": ["worker_born"]}, f"events: Write a list of events: {', '.join(Event)}."),
        ({"time_zone": "Atlantis"}, "time_zone: This is no time zone"),
        ({"name": "Ops"}, "name: Use 1 to 63 lower-case letters"),
    ]
    for fields, told in refused:
        file.write_text(json.dumps([{**rows[0], "fields": rows[0]["fields"] | fields}]))
        with pytest.raises(CommandError, match="cannot work, so nothing was loaded") as caught:
            call_command("loaddata", str(file), verbosity=0)
        assert told in str(caught.value)
    assert NotificationTarget.objects.get().name == "other"


def test_others_than_administrators_see_where_it_leads_and_no_more(fleet: Fleet, receiver: Receiver) -> None:
    quiet = {"quiet_from": "22:00", "quiet_until": "06:00", "events": ["queue_full"]}
    target = create_target(fleet.organization, url=receiver.url, **quiet)
    foreign = factories.create_fleet()
    for role in (Role.VIEWER, Role.OPERATOR):
        client = signed_in(member(fleet.organization, role))
        page = client.get(url(NotificationTarget, "change", target.pk)).content.decode()
        assert "127.0.0.1" in page
        assert target.url_fingerprint in page
        assert "22:00 to 06:00, UTC" in page
        assert "Worker queue full" in page
        assert "Send a test message" not in page
        assert 'type="password"' not in page
        assert client.post(url(NotificationTarget, "test", target.pk)).status_code == 403
    stranger = signed_in(member(foreign.organization, Role.ADMINISTRATOR))
    assert stranger.post(url(NotificationTarget, "test", target.pk)).status_code == 404
    assert receiver.received == []


def test_a_test_message_is_sent_at_once_and_is_on_record(fleet: Fleet, client: Client, receiver: Receiver) -> None:
    target = create_target(fleet.organization, url=receiver.url)
    address = url(NotificationTarget, "test", target.pk)
    response = client.post(address, follow=True)
    assert "The test message was taken." in response.content.decode()
    (received,) = receiver.received
    assert received.payload["event"] == "test"
    assert received.payload["message"] == (
        f"This is a test message to target: what happens to the workers of {fleet.organization.pk} is told here."
    )
    receiver.status = "500 Oops"
    response = client.post(address, follow=True)
    assert "The test message was not taken: 127.0.0.1" in response.content.decode()
    outcomes = [event.changes["outcome"][1] for event in AuditEvent.objects.filter(action="notification_target.tested")]
    assert sorted(outcomes) == [f"{receiver.host} has a problem of its own (500).", "taken"]
    assert not target.deliveries.exists()


def test_a_test_message_is_bounded_as_verify_is(
    fleet: Fleet, client: Client, receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WINDOW_SECONDS", 1_000_000_000)  # the minute does not end within the test
    target = create_target(fleet.organization, url=receiver.url)
    address = url(NotificationTarget, "test", target.pk)
    settings.CONNECTION_HOSTS = (AllowedHost.parse("hooks.example.com"),)
    assert "CONNECTION_HOSTS does not name" in client.post(address, follow=True).content.decode()
    for _ in range(29):
        assert client.post(address).status_code == 302
    events = AuditEvent.objects.count()
    response = client.post(address)
    assert (response.status_code, "Retry-After" in response.headers) == (429, True)
    assert client.get(address).status_code == 405
    assert AuditEvent.objects.count() == events
    assert receiver.received == []
