"""The console's login over HTTP: who passes, what is counted, what is kept, and what odd input gets."""

import json
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core import management
from django.core.checks import run_checks
from django.test import Client
from django.urls import get_resolver, reverse
from pytest_django import Settings

from controlplane.accounts.sealing import SecondFactors, open_factor, seal_factor
from controlplane.models import SharedEntry
from environments.encryption import CannotOpenError, KeyRing, generate_key
from environments.models import AuditEvent
from environments.sealing import rotation
from tests.support.logins import LOGIN, PASSWORD, SEED, add_app, code_of, is_signed_in, log_in

CONFIRM = "/admin/account/confirm/password/"


def confirmed(ada: User) -> Client:
    """Signed in, and has typed the password again just now."""
    client = Client(raise_request_exception=False)
    log_in(client)
    assert client.post(CONFIRM, {"password": PASSWORD}).status_code == 302
    return client


# --- Password ----------------------------------------------------------------------------------------------------------


def test_leads_to_the_login_and_back_to_where_one_wanted_to_go(ada: User, client: Client) -> None:
    wanted = "/admin/workers/worker/?q=x"
    response = client.get(wanted)
    assert response["Location"] == f"{LOGIN}?next={quote(wanted)}"
    page = client.get(response["Location"]).content.decode()
    assert 'name="next" value="/admin/workers/worker/?q=x"' in page
    assert log_in(client, next=wanted)["Location"] == wanted
    assert log_in(client, next=wanted)["Location"] == wanted, "whoever is signed in already goes on"


def test_a_login_is_on_record(ada: User, client: Client) -> None:
    assert log_in(client, extra={"REMOTE_ADDR": "192.0.2.7"})["Location"] == "/admin/"
    event = AuditEvent.objects.get(action="user.logged_in")
    assert (event.actor, event.client_address, event.object_id) == ("user:ada", "192.0.2.7", str(ada.pk))
    assert event.changes == {"method": [None, "password"]}


@pytest.mark.parametrize(
    "away", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "http://testserver/x"]
)
def test_a_login_leads_nowhere_else(ada: User, client: Client, away: str) -> None:
    assert log_in(client, next=away)["Location"] == "/admin/"


def test_a_session_from_before_the_login_is_worth_nothing(ada: User, client: Client) -> None:
    session = client.session
    session["planted"] = "yes"
    session.save()
    planted = session.session_key
    log_in(client)
    assert client.session.session_key != planted
    assert not Session.objects.filter(pk=planted).exists()


def test_an_error_does_not_tell_whether_the_username_exists(
    ada: User, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    User.objects.create_user("gone", password=PASSWORD, is_active=False, is_staff=True)
    pages = set()
    for username, password in (("ada", "wrong"), ("nobody", "wrong"), ("gone", PASSWORD)):
        response = log_in(client, username, password)
        assert response.status_code == 200
        page = re.sub(r'csrfmiddlewaretoken" value="\w+"', "", response.content.decode())
        pages.add(page.replace(f'value="{username}"', ""))
    assert len(pages) == 1
    assert "Please enter the correct username and password" in pages.pop()
    assert "login failed: ada from 127.0.0.1" in caplog.text
    assert "nobody" not in caplog.text, "it may be a password, typed into the wrong field"
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize("fields", [{"is_staff": False}, {"is_staff": False, "is_superuser": True}])
def test_only_staff_gets_a_session(db: None, client: Client, fields: dict[str, bool]) -> None:
    User.objects.create_user("bob", password=PASSWORD, **fields)
    response = log_in(client, "bob")
    assert response.status_code == 403
    assert "not allowed into the console" in response.content.decode()
    assert "_auth_user_id" not in client.session


def test_who_is_signed_in_but_not_staff_gets_a_page_and_no_loop(ada: User, client: Client) -> None:
    client.force_login(ada)
    User.objects.update(is_staff=False)
    response = client.get("/admin/", follow=True)
    assert (response.status_code, len(response.redirect_chain)) == (403, 1)
    assert "You are signed in as ada" in response.content.decode()
    assert client.post("/admin/logout/").status_code == 200
    assert "_auth_user_id" not in client.session


def test_logging_out_takes_a_post(ada: User, client: Client) -> None:
    log_in(client)
    assert client.get("/admin/logout/").status_code == 405
    assert is_signed_in(client)
    assert client.post("/admin/logout/").status_code == 200
    assert not is_signed_in(client)


def test_a_login_without_the_csrf_token_is_refused(ada: User) -> None:
    assert log_in(Client(enforce_csrf_checks=True)).status_code == 403


# --- Second factor -----------------------------------------------------------------------------------------------------


def test_an_authenticator_app_is_added_sealed_used_and_removed(ada: User, client: Client) -> None:
    own = confirmed(ada)
    page = own.get(reverse("mfa_activate_totp")).content.decode()
    seed = re.search(r'id="totp-key">(\w+)<', page)[1]  # type: ignore[index]
    assert seed not in json.dumps(dict(own.session)), "not in the session's row either"
    assert own.post(reverse("mfa_activate_totp"), {"code": "000000"}).status_code == 200
    shown = own.post(reverse("mfa_activate_totp"), {"code": code_of(seed)})
    assert "no-store" in shown["Cache-Control"]
    codes = re.findall(r"<li>(\d{8})</li>", shown.content.decode())
    assert len(codes) == 10
    rows = Authenticator.objects.order_by("type")
    assert [row.type for row in rows] == ["recovery_codes", "totp"]
    for row, name in zip(rows, ("seed", "secret"), strict=True):
        assert row.data[name].startswith("cp1.ek-test1.")
    assert open_factor(rows[1].data["secret"], ada.pk) == seed
    overview = own.get(reverse("mfa_index")).content.decode()
    assert "You have 10 left" in overview
    assert codes[0] not in overview

    assert log_in(client)["Location"] == reverse("mfa_authenticate")
    assert not is_signed_in(client)
    SharedEntry.objects.all().delete()  # the code was used just now, to add the app
    assert client.post(reverse("mfa_authenticate"), {"code": code_of(seed)})["Location"] == "/admin/"
    with_code = Client()
    for expected in (302, 200):
        log_in(with_code)
        assert with_code.post(reverse("mfa_authenticate"), {"code": codes[0]}).status_code == expected, "once"
        with_code.post("/admin/logout/")

    assert own.post(reverse("mfa_deactivate_totp"))["Location"] == reverse("mfa_index")
    assert not Authenticator.objects.exists(), "recovery codes end with the last factor"
    events = AuditEvent.objects.order_by("pk").exclude(action="user.logged_in").values_list("action", flat=True)
    assert sorted(events) == ["user.second_factor_added"] * 2 + ["user.second_factor_removed"] * 2
    methods = [event.changes["method"][1] for event in AuditEvent.objects.filter(action="user.logged_in")]
    assert sorted(methods) == ["password", "password, recovery_codes", "password, totp"]


def test_a_code_passes_once(ada: User) -> None:
    add_app(ada)
    code = code_of()
    answers = []
    for _ in range(2):
        client = Client()
        log_in(client)
        answers.append(client.post(reverse("mfa_authenticate"), {"code": code}).status_code)
    assert answers == [302, 200]


def test_what_changes_the_factors_wants_the_password_again(ada: User, client: Client) -> None:
    client.force_login(ada)
    add_app(ada)
    for name in ("mfa_deactivate_totp", "mfa_add_webauthn", "mfa_generate_recovery_codes"):
        response = client.get(reverse(name))
        assert response["Location"].startswith(CONFIRM)
    assert client.post(CONFIRM, {"password": "wrong"}).status_code == 200
    assert Authenticator.objects.count() == 1


def test_looking_at_a_page_removes_nothing(ada: User) -> None:
    client = confirmed(ada)
    add_app(ada)
    before = list(Authenticator.objects.values())
    for name in ("mfa_index", "mfa_deactivate_totp", "mfa_add_webauthn", "mfa_generate_recovery_codes"):
        for method in ("get", "head", "options"):
            assert getattr(client, method)(reverse(name)).status_code == 200, name
    assert list(Authenticator.objects.values()) == before


def test_a_factor_of_somebody_else_is_out_of_reach(ada: User) -> None:
    eve = User.objects.create_user("eve", password=PASSWORD, is_staff=True)
    data = {"name": "hers", "credential": {}}
    row = Authenticator.objects.create(user=eve, type=Authenticator.Type.WEBAUTHN, data=data)
    assert confirmed(ada).post(reverse("mfa_remove_webauthn", args=[row.pk])).status_code == 404


# --- Sealing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["other user's", "key lost", "plain", "altered"])
def test_a_secret_that_does_not_open_closes_the_login(
    ada: User, client: Client, settings: Settings, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = add_app(ada)
    if damage == "key lost":
        settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-other")])
    else:
        sealed = row.data["secret"]
        texts = {"other user's": seal_factor(SEED, ada.pk + 1), "plain": SEED, "altered": sealed[:-4] + "AAAA"}
        Authenticator.objects.update(data={"secret": texts[damage]})
    log_in(client)
    response = client.post(reverse("mfa_authenticate"), {"code": code_of()})
    assert response.status_code == 503
    assert "cannot be" in response.content.decode()
    assert f"auth_user row {ada.pk} field second_factor" in caplog.text
    assert SEED not in caplog.text
    assert not is_signed_in(client)
    assert [error.id for error in run_checks(databases=["default"])] == ["controlplane.E001"]


def test_rotation_rewraps_and_verifies_second_factors(ada: User, settings: Settings) -> None:
    add_app(ada)
    codes = RecoveryCodes(
        Authenticator.objects.create(
            user=ada,
            type=Authenticator.Type.RECOVERY_CODES,
            data={"seed": seal_factor("5eed", ada.pk), "used_mask": 3},
        )
    )
    old = settings.ENCRYPTION_KEYS.active
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-new"), old])
    (kind,) = rotation.ring_sealed()
    assert isinstance(kind, SecondFactors)
    assert len(rotation.rows_to_rewrap(kind)) == 2
    management.call_command("rotate_encryption", "--format", "json")
    assert rotation.rows_to_rewrap(kind) == []
    settings.ENCRYPTION_KEYS = KeyRing([settings.ENCRYPTION_KEYS.active])
    assert list(rotation.verify_all()) == [None, None]
    codes.instance.refresh_from_db()
    assert codes.instance.data["used_mask"] == 3
    assert open_factor(codes.instance.data["seed"], ada.pk) == "5eed"
    settings.ENCRYPTION_KEYS = KeyRing([old])
    failures = list(rotation.verify_all())
    assert [type(each) for each in failures] == [CannotOpenError, CannotOpenError]


# --- Required second factor, recovery ------------------------------------------------------------------------------------


def test_whoever_must_have_a_second_factor_is_led_to_add_one_first(ada: User, settings: Settings) -> None:
    settings.REQUIRE_SECOND_FACTOR = True
    client = confirmed(ada)
    for page in ("/admin/", "/admin/workers/worker/", "/admin/password_change/"):
        assert client.get(page)["Location"] == "/admin/account/"
        assert client.post(page)["Location"] == "/admin/account/"
    assert "Everybody needs a second factor" in client.get("/admin/account/").content.decode()
    assert client.get(reverse("mfa_activate_totp")).status_code == 200
    add_app(ada)
    assert is_signed_in(client)


def test_a_lost_second_factor_is_taken_away_by_a_command(ada: User, client: Client) -> None:
    add_app(ada)
    management.call_command("reset_second_factor", "ada")
    assert log_in(client)["Location"] == "/admin/"
    event = AuditEvent.objects.get(action="user.second_factor_removed")
    assert (event.actor, event.changes) == (
        "command:reset_second_factor",
        {"second_factor": ["authenticator app", None]},
    )
    with pytest.raises(management.CommandError, match="no user"):
        management.call_command("reset_second_factor", "nobody")


def test_a_changed_password_is_on_record_and_ends_other_sessions(ada: User, client: Client) -> None:
    other = Client()
    log_in(other)
    log_in(client)
    new = "another long password 7"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert client.post("/admin/password_change/", form).status_code == 302
    event = AuditEvent.objects.get(action="user.password_changed")
    assert (event.actor, event.changes) == ("user:ada", {})
    assert is_signed_in(client)
    assert not is_signed_in(other)


# --- What is there, and odd input ----------------------------------------------------------------------------------------


def addresses() -> Iterator[str]:
    for pattern in get_resolver().url_patterns:
        if getattr(pattern, "urlconf_name", None) and "accounts" in str(pattern.urlconf_name):
            yield from (f"/admin/{each.pattern}".replace("<int:pk>", "1") for each in pattern.url_patterns)


ODD = {
    "NUL": "a\0b",
    "long": "x" * 10_000,
    "wide": "\U0001f980" * 200,
    "surrogate": b"\xed\xa0\x80",
    "bytes": bytes(range(128, 256)),
    "deep": "[" * 20_000,
    "list": "[1]",
    "null": "null",
    "number": "1e999",
    "object": '{"response": {"userHandle": "AAAA"}}',
    "id": '{"id": "AA", "rawId": "AA", "type": "public-key", "response": {"userHandle": "//", "clientDataJSON": "e30"}}',
    "digits": "٣٣٣٣٣٣",
    "empty": "",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_odd_input_gets_a_clear_answer(ada: User, client: Client, settings: Settings, odd: str | bytes) -> None:
    settings.ACCOUNT_RATE_LIMITS = settings.MFA_RATE_LIMITS = False
    add_app(ada)
    stage = Client(raise_request_exception=False)
    names = ("username", "password", "code", "credential", "name", "next", "state", "passwordless")
    for browser in (client, stage, confirmed_without_limits(ada)):
        for address in addresses():
            if browser is stage:
                log_in(stage)
            for data in (dict.fromkeys(names, odd), dict.fromkeys((*names[4:], "credential"), odd)):
                assert browser.post(address, data).status_code < 500, address
            assert browser.get(address, {"next": odd, "code": odd, "state": odd}).status_code < 500, address
    assert log_in(client, odd).status_code < 500  # type: ignore[arg-type]


def confirmed_without_limits(user: User) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(user)
    client.post(CONFIRM, {"password": PASSWORD})
    return client


def test_nothing_but_the_pages_of_the_login_is_mounted(ada: User, client: Client) -> None:
    assert len(list(addresses())) == 15
    for path in (
        "signup/",
        "email/",
        "password/reset/",
        "account/signup/",
        "account/oidc/",
        "account/webauthn/",
        "social/",
    ):
        assert client.get(f"/admin/{path}").status_code in {302, 404}
        assert client.post(f"/admin/{path}").status_code in {302, 404}
    assert client.get("/accounts/profile/").status_code == 404
    assert User.objects.count() == 1


def test_every_page_of_the_login_has_the_policy_of_the_console(ada: User) -> None:
    client = confirmed(ada)
    for address in addresses():
        for browser in (Client(), client):
            response = browser.get(address)
            assert "script-src 'self' 'unsafe-eval'" in response["Content-Security-Policy"]
            assert not re.search(r"<script(?![^>]*(src=|type=\"application/json\"))", response.content.decode()), (
                address
            )
