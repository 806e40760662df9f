"""Single sign-on against a real small OpenID provider: whole round trips, and everything that may be wrong with them."""

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

import pytest
from allauth.socialaccount.models import SocialAccount, SocialApp
from cryptography.hazmat.primitives.asymmetric import rsa
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.urls import include, path
from django.utils import timezone
from pytest_django import Settings

from controlplane.accounts import identities
from controlplane.models import SharedEntry
from controlplane.startup import env
from controlplane.urls import urlpatterns as ordinary
from environments.models import AuditEvent
from tests.support.logins import add_app
from tests.support.oidc import CLIENT_ID, CLIENT_SECRET, OpenIdProvider, open_id_provider

#: The routes are mounted at boot, where the tests' process has no provider.
provider_id = {"provider_id": identities.PROVIDER_ID}
urlpatterns = [
    path("admin/account/oidc/", identities.start, provider_id, name="openid_connect_login"),
    path("admin/account/oidc/callback/", identities.callback, provider_id, name="openid_connect_callback"),
    path("", include(ordinary)),
]
handler429 = "controlplane.accounts.throttling.too_many_attempts"
ADA = {"sub": "s-1", "email": "Ada@example.com", "email_verified": True, "name": "Ada"}


@pytest.fixture(scope="module")
def server() -> Iterator[OpenIdProvider]:
    with open_id_provider() as provider:
        yield provider


@pytest.fixture
def provider(server: OpenIdProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> OpenIdProvider:
    server.claims, server.userinfo, server.key = dict(ADA), {}, server.published
    server.issuer = server.audience = server.error = ""
    for name, value in (("SERVER_URL", server.url), ("CLIENT_ID", CLIENT_ID), ("CLIENT_SECRET", CLIENT_SECRET)):
        monkeypatch.setenv(f"OIDC_{name}", value)
    monkeypatch.setenv("OIDC_NAME", "Example <ID>")
    settings.OIDC_NAME, settings.SOCIALACCOUNT_PROVIDERS = env.openid_connect()
    settings.ROOT_URLCONF = __name__
    return server


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada", email="ada@example.com", is_staff=True, is_superuser=True)


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


class NoRedirect(HTTPRedirectHandler):
    def http_error_302(self, _request: Any, answer: Any, *_rest: Any) -> Any:
        return answer


def leave(client: Client, **form: str) -> str:
    """Presses the button and returns where the browser is sent."""
    page = client.post("/admin/account/oidc/", form)
    assert page.status_code == 200, page.content
    refresh = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', page.content.decode())
    assert refresh
    return unescape(refresh[1])


def come_back(client: Client, address: str, **changes: str) -> Any:
    """Lets the provider sign the person in, and follows it back here."""
    with build_opener(NoRedirect).open(address, timeout=10) as answer:
        parts = urlsplit(answer.headers["Location"])
    assert parts.path == "/admin/account/oidc/callback/"
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return client.get(parts.path, query | changes)


def round_trip(client: Client, **form: str) -> Any:
    return come_back(client, leave(client, **form))


def is_signed_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def test_a_person_with_a_verified_address_is_linked_once_and_signed_in(
    provider: OpenIdProvider, ada: User, client: Client
) -> None:
    assert "Continue with Example &lt;ID&gt;" in client.get("/admin/login/").content.decode()
    response = round_trip(client, next="/admin/workers/worker/")
    assert response["Location"] == "/admin/workers/worker/"
    assert is_signed_in(client)
    asked = provider.asked[-1]
    assert (asked["code_challenge_method"], asked["response_type"]) == ("S256", "code")
    assert asked["redirect_uri"] == "http://testserver/admin/account/oidc/callback/"
    identity = SocialAccount.objects.get()
    assert (identity.user, identity.uid) == (ada, "s-1")
    provider.claims["email"] = "new@example.com"
    assert round_trip(Client())["Location"] == "/admin/", "the link counts, not the address"
    events = AuditEvent.objects.order_by("pk").values_list("action", "actor")
    assert sorted(events) == [("user.identity_linked", "user:ada")] + [("user.logged_in", "user:ada")] * 2
    assert User.objects.count() == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "eve@example.com"},
        {"email_verified": False},
        {"email_verified": "false"},
        {"email_verified": None},
        {"email": ""},
        {"email": "ada@example.com\0"},
    ],
    ids=str,
)
def test_who_is_nobody_here_is_refused_and_not_signed_up(
    provider: OpenIdProvider, ada: User, client: Client, claims: dict[str, Any]
) -> None:
    provider.claims |= claims
    response = round_trip(client)
    assert response.status_code == 403
    assert "Accounts are made by an administrator" in response.content.decode()
    assert not is_signed_in(client)
    assert (User.objects.count(), SocialAccount.objects.count()) == (1, 0)


@pytest.mark.parametrize("fields", [{"is_staff": False}, {"is_active": False}], ids=str)
def test_only_active_staff_is_linked(
    provider: OpenIdProvider, ada: User, client: Client, fields: dict[str, bool]
) -> None:
    User.objects.update(**fields)
    assert round_trip(client).status_code == 403
    assert not SocialAccount.objects.exists()


def test_a_linked_person_who_left_is_refused(provider: OpenIdProvider, ada: User, client: Client) -> None:
    round_trip(Client())
    User.objects.update(is_active=False)
    assert round_trip(client).status_code == 403
    assert not is_signed_in(client)


def test_an_address_that_two_have_links_nobody(provider: OpenIdProvider, ada: User, client: Client) -> None:
    User.objects.create_user("ada2", email="ADA@example.com", is_staff=True)
    assert round_trip(client).status_code == 403


def test_the_second_factor_is_asked_for_here_too(provider: OpenIdProvider, ada: User, client: Client) -> None:
    add_app(ada)
    assert round_trip(client)["Location"] == "/admin/account/second-factor/"
    assert not is_signed_in(client)


LIES: dict[str, dict[str, Any]] = {
    "another key": {"key": rsa.generate_private_key(public_exponent=65_537, key_size=2_048)},
    "another issuer": {"issuer": "https://evil.example"},
    "another audience": {"audience": "another-client"},
    "another subject's userinfo": {"userinfo": {"sub": "s-2"}},
    "no subject": {"claims": {"email": "ada@example.com", "email_verified": True}},
    "a subject that is too long": {"claims": {**ADA, "sub": "s" * 500}},
    "cancelled": {"error": "access_denied"},
    "an error": {"error": "server_error\0"},
    "expired": {"claims": {**ADA, "exp": 1}},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_what_the_provider_must_not_say_is_refused(
    provider: OpenIdProvider, ada: User, client: Client, lie: dict[str, Any]
) -> None:
    vars(provider).update(lie)
    response = round_trip(client)
    assert response.status_code == 403
    assert "Single sign-on failed" in response.content.decode()
    assert not is_signed_in(client)
    assert not SocialAccount.objects.exists()


def test_a_state_is_the_browsers_own_and_passes_once(provider: OpenIdProvider, ada: User, client: Client) -> None:
    assert come_back(client, leave(client), state="forged").status_code == 403
    assert come_back(Client(), leave(client)).status_code == 403, "of another browser"
    address = leave(client)
    assert come_back(client, address).status_code == 302
    client.post("/admin/logout/")
    assert come_back(client, address).status_code == 403
    assert client.get("/admin/account/oidc/callback/").status_code == 403


def test_a_get_starts_nothing_and_a_form_cannot_bend_it(provider: OpenIdProvider, ada: User, client: Client) -> None:
    assert client.get("/admin/account/oidc/").status_code == 405
    assert Client(enforce_csrf_checks=True).post("/admin/account/oidc/").status_code == 403
    response = round_trip(
        client, next="https://evil.example", process="connect", scope="all", auth_params="prompt=none"
    )
    assert response["Location"] == "/admin/"
    assert set(provider.asked[-1]["scope"].split()) == {"openid", "profile", "email"}
    assert "prompt" not in provider.asked[-1]


def test_a_provider_that_is_away_gets_a_clear_page(
    provider: OpenIdProvider, ada: User, client: Client, settings: Settings
) -> None:
    (app,) = settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"]
    app["settings"]["server_url"] = "http://127.0.0.1:9"
    response = client.post("/admin/account/oidc/")
    assert response.status_code == 502
    assert "use your password" in response.content.decode()


def test_starting_is_limited_and_leaves_no_lasting_sessions(provider: OpenIdProvider, ada: User) -> None:
    Session.objects.create(pk="old", session_data="", expire_date=timezone.now() - timedelta(days=1))
    answers = [Client().post("/admin/account/oidc/") for _ in range(21)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    assert 1 <= int(answers[-1]["Retry-After"]) <= 60
    assert Session.objects.count() == 20, "and the expired one is gone"
    assert not Session.objects.filter(expire_date__gt=timezone.now() + timedelta(minutes=16)).exists()
    assert round_trip_again(Client()) > timedelta(hours=11), "a session that was signed in lasts as any other"


def round_trip_again(client: Client) -> timedelta:
    SharedEntry.objects.all().delete()
    assert round_trip(client).status_code == 302
    return Session.objects.get(pk=client.session.session_key).expire_date - timezone.now()


def test_a_provider_in_the_database_is_not_asked(provider: OpenIdProvider, ada: User, client: Client) -> None:
    SocialApp.objects.create(provider="openid_connect", provider_id="oidc", name="evil", client_id="x", settings={})
    assert round_trip(client).status_code == 302


WRONG = {
    "only a name": ({"OIDC_NAME": "Example"}, "Not set: OIDC_SERVER_URL, OIDC_CLIENT_ID, OIDC_CLIENT_SECRET"),
    "only a URL": ({"OIDC_SERVER_URL": "https://id.example.com"}, "Not set: OIDC_CLIENT_ID, OIDC_CLIENT_SECRET"),
    "no secret": ({"OIDC_SERVER_URL": "https://x.example", "OIDC_CLIENT_ID": "x"}, "Not set: OIDC_CLIENT_SECRET"),
    "plain HTTP": (
        {"OIDC_SERVER_URL": "http://id.example.com", "OIDC_CLIENT_ID": "x", "OIDC_CLIENT_SECRET": "y"},
        "https://",
    ),
    "no host": ({"OIDC_SERVER_URL": "https://", "OIDC_CLIENT_ID": "x", "OIDC_CLIENT_SECRET": "y"}, "https://"),
    "an odd URL": ({"OIDC_SERVER_URL": "https://[x", "OIDC_CLIENT_ID": "x", "OIDC_CLIENT_SECRET": "y"}, "https://"),
}


@pytest.mark.parametrize(("environ", "message"), WRONG.values(), ids=WRONG.keys())
def test_settings_in_part_or_without_tls_stop_the_boot(
    environ: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured, match=message):
        env.openid_connect()
