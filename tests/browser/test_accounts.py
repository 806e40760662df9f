"""The console's login in a real Chromium: authenticator app, recovery code and passkey, with a virtual authenticator.

The `page` fixture fails every test with an error in the browser's console or a violation of the content security policy.
"""

import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from playwright.sync_api import Page, expect

from tests.support.oidc import CLIENT_ID, CLIENT_SECRET, OpenIdProvider, open_id_provider
from tests.support.processes import ROOT, ServerProcess, free_port
from tests.support.servers import ControlPlane

PASSWORD = "correct horse battery staple"
MAKE_USER = """
from django.contrib.auth.models import User
User.objects.create_user({username!r}, password={password!r}, is_staff=True, is_superuser=True)
"""

SET_ADDRESS = """
from django.contrib.auth.models import User
User.objects.filter(username={username!r}).update(email={address!r})
"""


@pytest.fixture
def username(control_plane: ControlPlane) -> str:
    """Somebody new, lest the other tests' administrator be asked for a second factor."""
    username = f"user-{secrets.token_hex(4)}"
    control_plane.manage("shell", "--no-imports", "-c", MAKE_USER.format(username=username, password=PASSWORD))
    return username


@pytest.fixture
def url(control_plane: ControlPlane) -> str:
    """By name: browsers bind passkeys to host names only."""
    return control_plane.url.replace("127.0.0.1", "localhost")


@pytest.fixture
def authenticator(page: Page) -> str:
    """A device that asks for a finger, and always gets it."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    return str(session.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"])


def sign_in(page: Page, url: str, username: str, path: str = "/admin/") -> None:
    page.goto(f"{url}{path}")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def confirm(page: Page) -> None:
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()


def log_out(page: Page) -> None:
    page.locator("form[action*=logout]").first.evaluate("form => form.submit()")
    page.wait_for_url(re.compile("logout"))


def code_of(seed: str) -> str:
    return format_hotp_value(hotp_value(seed, int(time.time()) // 30))


def test_an_authenticator_app_is_asked_for_and_a_recovery_code_stands_in(
    page: Page, url: str, username: str, control_plane: ControlPlane, screenshot: Callable[[str], None]
) -> None:
    sign_in(page, url, username)
    page.goto(f"{url}/admin/")
    expect(page.locator("a[href='/admin/account/']")).to_have_count(1)
    page.goto(f"{url}/admin/account/")
    screenshot("account-overview-empty")
    page.get_by_role("link", name="Add an authenticator app").click()
    screenshot("account-confirm")
    confirm(page)
    seed = page.locator("#totp-key").inner_text()
    screenshot("account-app")
    page.get_by_label("Authenticator code").fill(code_of(seed))
    page.get_by_role("button", name="Add").click()
    shown = page.locator("#recovery-codes li")
    expect(shown).to_have_count(10)
    codes = shown.all_inner_texts()
    screenshot("account-recovery-codes")
    page.get_by_role("link", name="I have them").click()
    page.set_viewport_size({"width": 375, "height": 700})
    for path in ("", "app/remove/", "recovery-codes/new/"):
        page.goto(f"{url}/admin/account/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, path
        page.emulate_media(color_scheme="dark")
        screenshot(f"account-phone-dark-{path.partition('/')[0]}")
    log_out(page)

    sign_in(page, url, username, "/admin/workers/worker/?q=x")
    expect(page.get_by_label("Code")).to_be_focused()
    screenshot("account-second-factor")
    page.get_by_label("Code").fill("000000")
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_text("This code is not valid")).to_be_visible()
    page.get_by_label("Code").fill(codes[3])
    page.get_by_role("button", name="Confirm").click()
    expect(page).to_have_url(f"{url}/admin/workers/worker/?q=x")
    assert seed not in control_plane.log_text()


def test_a_passkey_signs_in_by_itself_and_can_be_removed(
    page: Page, url: str, username: str, authenticator: str, screenshot: Callable[[str], None]
) -> None:
    sign_in(page, url, username, "/admin/account/")
    page.get_by_role("link", name="Add a passkey").click()
    confirm(page)
    page.get_by_label("Name").fill("Laptop <b>")
    page.get_by_label("Sign in with it alone").check()
    screenshot("account-add-passkey")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("link", name="I have them").click()
    expect(page.get_by_text("Laptop <b>")).to_be_visible()
    expect(page.get_by_text("Signs in by itself")).to_be_visible()
    screenshot("account-overview")
    log_out(page)

    page.goto(f"{url}/admin/workers/worker/?q=y")
    screenshot("account-login")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page).to_have_url(f"{url}/admin/workers/worker/?q=y")
    log_out(page)

    sign_in(page, url, username)
    page.get_by_role("button", name="Use a passkey").click()
    expect(page).to_have_url(f"{url}/admin/")

    page.goto(f"{url}/admin/account/")
    page.get_by_role("link", name="Remove").click()
    page.get_by_role("link", name="Use a security key").click()
    page.get_by_role("button", name="Use a passkey").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("The passkey is removed.")).to_be_visible()
    log_out(page)
    sign_in(page, url, username)
    expect(page).to_have_url(f"{url}/admin/")


def test_a_passkey_that_is_not_confirmed_says_so(page: Page, url: str, page_problems: list[str]) -> None:
    page.goto(f"{url}/admin/login/")
    refuse = "navigator.credentials.get = () => Promise.reject(new DOMException('', 'NotAllowedError'))"
    page.evaluate(f"() => {{ {refuse} }}")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_text("Nothing was confirmed")).to_be_visible()
    assert page.get_by_role("button", name="Use a passkey").is_enabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_login_fits_a_phone(page: Page, url: str, scheme: str, screenshot: Callable[[str], None]) -> None:
    page.set_viewport_size({"width": 375, "height": 700})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{url}/admin/login/")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    screenshot(f"account-login-phone-{scheme}")


@pytest.fixture
def provider() -> Iterator[OpenIdProvider]:
    with open_id_provider() as provider:
        yield provider


def test_single_sign_on_leads_to_the_provider_and_back(  # noqa: PLR0913, PLR0917  # fixtures
    page: Page,
    provider: OpenIdProvider,
    control_plane: ControlPlane,
    username: str,
    tmp_path: Path,
    screenshot: Callable[[str], None],
) -> None:
    """With its settings from the environment, as an operator sets them, and under the policy of a real browser."""
    address = f"{username}@example.com"
    control_plane.manage("shell", "--no-imports", "-c", SET_ADDRESS.format(username=username, address=address))
    provider.claims = {"sub": username, "email": address, "email_verified": True}
    (tmp_path / "secret").write_text(CLIENT_SECRET)
    settings = {
        "OIDC_SERVER_URL": provider.url,
        "OIDC_CLIENT_ID": CLIENT_ID,
        "OIDC_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
        "OIDC_NAME": "Example ID",
        "REQUIRE_SECOND_FACTOR": "true",
    }
    url = f"http://localhost:{(port := free_port())}"
    server = [sys.executable, "manage.py", "runserver", "--noreload", f"localhost:{port}"]
    process = ServerProcess(server, log=tmp_path / "server", cwd=ROOT, env={**control_plane.environ, **settings})
    try:
        process.wait_until(lambda: is_ready(url))
        page.goto(f"{url}/admin/workers/worker/")
        screenshot("account-login-oidc")
        page.get_by_role("button", name="Continue with Example ID").click()
        page.wait_for_url(f"{url}/admin/account/")
        expect(page.get_by_text("Everybody needs a second factor here")).to_be_visible()
        expect(page.get_by_text(f"linked to {address}")).to_be_visible()
        screenshot("account-required")
    finally:
        process.stop()


def is_ready(url: str) -> bool:
    with suppress(OSError), urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310  # http
        return answer.status == 200
    return False
