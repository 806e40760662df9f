"""How often passwords and codes may be guessed, and whom that keeps out."""

from datetime import timedelta
from pathlib import Path

import allauth
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from controlplane.accounts import devices, memory, throttling
from controlplane.accounts.devices import is_at_home
from controlplane.accounts.memory import SharedMemory
from controlplane.models import SharedEntry
from tests.support.logins import PASSWORD, add_app, code_of, is_signed_in, log_in
from tests.support.processes import ROOT


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada", password=PASSWORD, is_staff=True, is_superuser=True)


@pytest.fixture(autouse=True)
def slow_hands(settings: Settings) -> None:
    """A code is as good when the half minute ends between reading and typing it."""
    settings.MFA_TOTP_TOLERANCE = 1


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


STRANGER, ELSEWHERE = "192.0.2.1", "198.51.100.7"


def fail(times: int, *addresses: str, username: str = "ada", **extra: str) -> list[int]:
    """The answers to wrong passwords, from these addresses in turn, each time by a browser that was never here."""
    answers = [
        log_in(Client(), username, "wrong", extra={"REMOTE_ADDR": addresses[number % len(addresses)], **extra})
        for number in range(times)
    ]
    return [answer.status_code for answer in answers]


def test_failures_are_counted_for_each_name_and_network_in_every_process(ada: User, client: Client) -> None:
    assert fail(10, STRANGER, HTTP_HOST="localhost") == [200] * 10
    assert SharedEntry.objects.count() >= 2, "in the database, not in this process"
    SharedEntry.objects.filter(expires_at__lt=timezone.now() + timedelta(seconds=60)).delete()  # what an address may do
    refused = log_in(client, "ADA", PASSWORD, extra={"REMOTE_ADDR": STRANGER, "HTTP_HOST": "127.0.0.1:81"})
    assert refused.status_code == 429
    assert 240 < int(refused["Retry-After"]) <= 300
    assert "Try again in 5 minutes" in refused.content.decode()
    SharedEntry.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert log_in(client).status_code == 302
    assert SharedEntry.objects.filter(expires_at__lte=timezone.now()).count() == 0, "and cleaned up"


@pytest.mark.parametrize("username", ["ada", "ADA"])
def test_a_stranger_does_not_keep_a_known_user_out(ada: User, client: Client, username: str) -> None:
    assert 429 in fail(12, STRANGER, username=username)
    assert log_in(client, extra={"REMOTE_ADDR": ELSEWHERE}).status_code == 302


def test_a_stranger_with_a_whole_ipv6_network_counts_as_one(ada: User, client: Client) -> None:
    assert 429 in fail(12, *(f"2001:db8::{number}" for number in range(12)))
    assert log_in(client, extra={"REMOTE_ADDR": "2001:db8::ffff"}).status_code == 429
    assert log_in(client, extra={"REMOTE_ADDR": "2001:db8:0:1::1"}).status_code == 302


def test_guessing_from_many_addresses_is_limited_and_keeps_no_browser_out_that_was_here(ada: User) -> None:
    known, unknown = Client(), Client()
    log_in(known)
    known.post("/admin/logout/")
    answers = fail(60, *(f"203.0.113.{number}" for number in range(60)))
    assert answers == [200] * 50 + [429] * 10
    refused = log_in(unknown, extra={"REMOTE_ADDR": ELSEWHERE})
    assert (refused.status_code, 600 < int(refused["Retry-After"]) <= 900) == (429, True)
    assert log_in(known, extra={"REMOTE_ADDR": ELSEWHERE}).status_code == 302


@pytest.mark.parametrize(
    ("office", "desk", "elsewhere"),
    [("192.0.2.77", "192.0.2.77", "192.0.2.78"), ("2001:db8:7::1", "2001:db8:7::2", "2001:db8:8::1")],
)
def test_many_networks_keep_no_new_browser_out_where_the_user_has_signed_in_lately(
    ada: User, office: str, desk: str, elsewhere: str
) -> None:
    assert log_in(Client(), extra={"REMOTE_ADDR": office}).status_code == 302
    assert 429 in fail(60, *(f"203.0.113.{number}" for number in range(60)), username="ADA")
    assert log_in(Client(), extra={"REMOTE_ADDR": desk}).status_code == 302
    assert log_in(Client(), extra={"REMOTE_ADDR": elsewhere}).status_code == 429
    assert fail(11, office)[-1] == 429, "guessing from there is limited all the same"


def test_a_network_is_known_for_a_while_and_to_its_own_user(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    User.objects.create_user("bob", password=PASSWORD, is_staff=True)
    log_in(Client(), extra={"REMOTE_ADDR": ELSEWHERE})
    for name in ("ada", "bob"):
        fail(60, *(f"203.0.113.{number}" for number in range(60)), username=name)
    assert log_in(Client(), "bob", extra={"REMOTE_ADDR": ELSEWHERE}).status_code == 429
    assert log_in(Client(), extra={"REMOTE_ADDR": ELSEWHERE}).status_code == 302
    assert is_at_home("ada", ELSEWHERE)
    monkeypatch.setattr(devices, "AT_HOME_FOR", timedelta(0))
    assert not is_at_home("ada", ELSEWHERE)


def test_a_browser_that_was_here_may_not_guess_without_end_nor_for_others(ada: User) -> None:
    User.objects.create_user("bob", password=PASSWORD, is_staff=True)
    known = Client()
    log_in(known)
    known.post("/admin/logout/")
    for number in range(10):
        assert log_in(known, password="wrong", extra={"REMOTE_ADDR": f"192.0.2.{number}"}).status_code == 200
    assert log_in(known).status_code == 429
    fail(50, *(f"203.0.113.{number}" for number in range(50)), username="bob")
    assert log_in(known, "bob", extra={"REMOTE_ADDR": ELSEWHERE}).status_code == 429


@pytest.mark.parametrize("value", ["", "x", "x:y:z", "é", "null:1:1", "{}" * 5000])
def test_an_invented_device_is_none(ada: User, client: Client, value: str) -> None:
    client.cookies["device"] = value
    assert [log_in(client, password="wrong", extra={"REMOTE_ADDR": STRANGER}).status_code for _ in range(11)][-1] == 429


def test_the_id_of_a_browser_is_no_scripts_business(ada: User, client: Client) -> None:
    cookie = log_in(client).cookies["device"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")


def test_clients_that_a_proxy_hides_do_not_keep_each_other_out(ada: User, client: Client) -> None:
    """As anybody could make them do, by failing under names of their own."""
    hidden = {"HTTP_X_FORWARDED_FOR": "unknown"}
    for number in range(30):
        assert fail(1, "127.0.0.1", username=f"user-{number}", **hidden) == [200]
    assert log_in(client, extra=hidden).status_code == 302
    assert 429 in fail(60, "127.0.0.1", **hidden), "but they are limited by name"


def test_ports_of_clients_are_not_taken_for_addresses(ada: User, client: Client) -> None:
    for number in range(10):
        assert fail(1, "127.0.0.1", HTTP_X_FORWARDED_FOR=f"203.0.113.{number}:4{number}") == [200]
    assert log_in(client, extra={"HTTP_X_FORWARDED_FOR": "198.51.100.77:5555"}).status_code == 302
    answers = [fail(1, "127.0.0.1", HTTP_X_FORWARDED_FOR=f"203.0.113.99:{port}")[0] for port in range(5000, 5011)]
    assert answers == [200] * 10 + [429]


def test_failures_are_counted_for_each_address_whatever_the_client_says_of_itself(ada: User, client: Client) -> None:
    for number in range(10):
        extra = {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": f"198.51.100.{number}"}
        assert log_in(client, f"user-{number}", "wrong", extra=extra).status_code == 200
    extra = {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": "198.51.100.99"}
    refused = log_in(client, "ada", extra=extra)
    assert refused.status_code == 429
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert log_in(client, "ada", extra={"REMOTE_ADDR": "192.0.2.2"}).status_code == 302


def test_logins_that_succeed_are_not_counted(ada: User) -> None:
    for _ in range(25):
        assert log_in(Client()).status_code == 302


def guess_codes(times: int, *addresses: str) -> list[int]:
    """The answers to wrong codes by somebody who has the password."""
    client = Client()
    log_in(client, extra={"REMOTE_ADDR": addresses[0]})
    answers = [
        client.post(reverse("mfa_authenticate"), {"code": "000000"}, REMOTE_ADDR=addresses[number % len(addresses)])
        for number in range(times)
    ]
    assert not is_signed_in(client)
    return [answer.status_code for answer in answers]


def pass_both(client: Client, address: str) -> int:
    """The answer to the right code after the right password."""
    assert log_in(client, extra={"REMOTE_ADDR": address})["Location"] == reverse("mfa_authenticate")
    SharedEntry.objects.filter(expires_at__lt=timezone.now() + timedelta(seconds=50)).delete()  # codes that were used
    return client.post(reverse("mfa_authenticate"), {"code": code_of()}, REMOTE_ADDR=address).status_code


def test_codes_are_counted_too(ada: User, client: Client) -> None:
    add_app(ada)
    assert guess_codes(11, STRANGER) == [200] * 10 + [429]
    assert pass_both(client, ELSEWHERE) == 302


def test_codes_from_many_addresses_are_limited_and_keep_no_browser_out_that_was_here(ada: User) -> None:
    add_app(ada)
    known, unknown = Client(), Client()
    assert pass_both(known, ELSEWHERE) == 302
    known.post("/admin/logout/")
    assert guess_codes(25, *(f"203.0.113.{number}" for number in range(25))) == [200] * 20 + [429] * 5
    assert pass_both(unknown, ELSEWHERE) == 429
    assert pass_both(known, ELSEWHERE) == 302


def test_right_codes_are_not_counted(ada: User) -> None:
    add_app(ada)
    assert [pass_both(Client(), STRANGER) for _ in range(12)] == [302] * 12


def test_nothing_else_of_allauth_counts_codes() -> None:
    package = Path(allauth.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "check_rate_limit" in path.read_text() and not {"headless", "tests"} & set(path.parts)
    }
    ours = {Path(module.__file__ or "").relative_to(package).as_posix() for module in throttling.LIMITING}
    assert users == ours | {"mfa/base/internal/flows.py"}


def test_the_own_password_cannot_be_guessed_on_the_page_that_changes_it(ada: User, client: Client) -> None:
    log_in(client)
    form = {"old_password": "wrong", "new_password1": "x" * 20, "new_password2": "x" * 20}
    assert [client.post("/admin/password_change/", form).status_code for _ in range(6)] == [200] * 5 + [429]


def test_only_one_of_two_adds_and_nothing_else_of_allauth_forgets(db: None) -> None:
    shared = SharedMemory()
    assert [shared.add("key", 1, 10), shared.add("key", 2, 10)] == [True, False]
    assert shared.get("key") == 1
    SharedEntry.objects.update(expires_at=timezone.now())
    assert shared.get("key", "none") == "none"
    assert shared.add("key", 3, 10)
    package = ROOT / next(iter(memory.__file__ and [memory.ratelimit.__file__])).split("/core/")[0]
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "core.cache import" in path.read_text() and not {"idp", "headless", "providers"} & set(path.parts)
    }
    assert users == {"core/internal/ratelimit.py", "mfa/totp/internal/auth.py", "socialaccount/internal/jwtkit.py"}


def test_failures_under_a_clock_that_was_ahead_keep_nobody_out_when_it_is_corrected(ada: User, client: Client) -> None:
    assert 429 in fail(11, STRANGER)
    for entry in SharedEntry.objects.all():
        value = [at + 2 * 365 * 86_400 for at in entry.value]
        SharedEntry.objects.filter(pk=entry.pk).update(value=value, expires_at=entry.expires_at + timedelta(days=730))
    assert log_in(client, extra={"REMOTE_ADDR": STRANGER}).status_code == 302
