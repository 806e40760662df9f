"""From the invitation to the first login of the colleague, who has to have a second factor, in a real Chromium."""

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

from tests.support.axe import problems_of
from tests.support.console_pages import choose
from tests.support.processes import ROOT, ServerProcess, free_port
from tests.support.servers import ControlPlane

PASSWORD = "a bright cold day in april"


@pytest.fixture
def strict_url(control_plane: ControlPlane, tmp_path: Path) -> Iterator[str]:
    """Another process on the same database, which demands a second factor; its links lead to itself."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    environ = {**control_plane.environ, "REQUIRE_SECOND_FACTOR": "true", "CONTROL_PLANE_URL": url}
    server = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    process = ServerProcess(server, log=tmp_path / "server", cwd=ROOT, env=environ)

    def is_live() -> bool:
        with suppress(OSError), urlopen(f"{url}/livez", timeout=5) as answer:  # noqa: S310  # http
            return answer.status == 200
        return False

    process.wait_until(is_live)
    yield url
    process.stop()


@pytest.fixture
def look(page: Page, screenshot: Callable[[str], Path]) -> Callable[[str], None]:
    """Looks at a page on a desk and on a phone, by day and by night."""

    def look(name: str) -> None:
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in ("light", "dark"):
                page.wait_for_load_state("networkidle")
                # Loading it again, as the system's own switch wants, would send the form once more.
                page.evaluate(f"document.documentElement.classList.toggle('dark', {str(scheme == 'dark').lower()})")
                assert problems_of(page) == [], (name, width, scheme)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
                screenshot(f"{name}-{width}-{scheme}")
        page.set_viewport_size({"width": 1440, "height": 900})
        page.evaluate("document.documentElement.classList.remove('dark')")

    return look


def test_a_colleague_is_invited_sets_password_and_second_factor_and_logs_in(
    page: Page, control_plane: ControlPlane, strict_url: str, look: Callable[[str], None], page_problems: list[str]
) -> None:
    name = f"bob-{secrets.token_hex(3)}"
    invite_on(page, control_plane, name, look)
    # The process that demands a second factor is another one: its command makes the link.
    made = control_plane.manage("invite", name, f"--role={control_plane.organization_id}=operator").stdout.strip()
    link = made.replace(control_plane.url, strict_url)
    page.context.clear_cookies()
    page.goto(f"{strict_url}/admin/account/invitation/")
    look("invitation-without-token")

    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_text(f"{control_plane.organization_id} (operator)")).to_be_visible()
    assert "#" not in page.url
    expect(page.get_by_label("Username")).to_have_value(name)
    look("invitation-password")
    page.locator("#id_password1").fill("short")
    page.locator("#id_password2").fill("short")
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_text("at least 12 characters")).to_be_visible()
    look("invitation-refused-password")
    page.locator("#id_password1").fill(PASSWORD)
    page.locator("#id_password2").fill(PASSWORD)
    page.get_by_role("button", name="Set the password").click()

    expect(page.get_by_text("Your password is set")).to_be_visible()
    look("invitation-login")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("Everybody needs a second factor here")).to_be_visible()
    page.get_by_role("link", name="Add an authenticator app").click()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()
    seed = page.locator("#totp-key").inner_text()
    page.get_by_label("Authenticator code").fill(code_of(seed))
    page.get_by_role("button", name="Add").click()
    page.get_by_role("link", name="I have them").click()
    page.goto(f"{strict_url}/admin/workers/worker/")
    expect(page.locator("#result_list")).to_be_visible()

    page.context.clear_cookies()
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_text("This invitation cannot be used")).to_be_visible()
    opens_over_an_open_page(page, control_plane, strict_url)
    page.goto(link)
    expect(page.get_by_text("This invitation cannot be used")).to_be_visible()
    look("invitation-used")
    assert [problem for problem in page_problems if "410" not in problem] == []
    page_problems.clear()
    token = link.partition("#")[2]
    assert token not in control_plane.log_text()


def opens_over_an_open_page(page: Page, control_plane: ControlPlane, url: str) -> None:
    """A link over the page of another one, of which it differs in the fragment only; refused, shown or empty."""
    for name in ("carol", "dave"):
        made = control_plane.manage("invite", name, f"--role={control_plane.organization_id}=viewer").stdout.strip()
        page.goto(made.replace(control_plane.url, url))
        expect(page.get_by_label("Username")).to_have_value(name)
        assert "#" not in page.url
    page.goto(f"{url}/admin/account/invitation/")
    expect(page.get_by_label("Invitation")).to_be_visible()
    page.goto(made.replace(control_plane.url, url))
    expect(page.get_by_label("Username")).to_have_value("dave")


def code_of(seed: str) -> str:
    """A code that is good for five seconds more, for a machine that is busy."""
    if (left := 30 - time.time() % 30) < 5:
        time.sleep(left)
    return str(format_hotp_value(hotp_value(seed, int(time.time()) // 30)))


def invite_on(page: Page, control_plane: ControlPlane, name: str, look: Callable[[str], None]) -> None:
    """An administrator's part, from the list of members to the link."""
    page.goto(f"{control_plane.url}/admin/environments/membership/")
    page.get_by_label("Username").fill(control_plane.admin_username)
    page.get_by_label("Password").fill(control_plane.admin_password)
    page.get_by_role("button", name="Log in").click()
    look("members")
    page.get_by_role("link", name="Invite a colleague").click()
    look("invite")
    page.get_by_label("User name or mail address").fill(name)
    choose(page, "organization1", control_plane.organization_id)
    page.locator("#id_role1").select_option("operator")
    page.get_by_role("button", name="Invite", exact=True).click()
    expect(page.locator("#link")).to_contain_text("/admin/account/invitation/#")
    look("invited")
    page.get_by_role("link", name="Invite somebody else").click()
    expect(page.locator("#open-invitations")).to_contain_text(name)
    look("invite-open")
