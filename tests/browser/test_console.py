"""The console as a person uses it, in a real Chromium: set everything up, look at what happened, end it again.

The `page` fixture fails every test with an error in the browser's console, a violation of the content security policy
or a request to another machine.
"""

import json
import re
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.console_pages import HOSTILE, Fleet, choose, confirm, id_on, save, saved, sign_in, start, visit
from tests.support.servers import ControlPlane


@pytest.fixture(scope="module")
def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(control_plane, tmp_path_factory.mktemp("fleet"))


def refused(page: Page, message: str) -> None:
    """Saves and sees why not."""
    save(page)
    expect(page.get_by_text(message).first).to_be_visible()


# --- From nothing to a start -------------------------------------------------------------------------------------------


def test_a_person_sets_a_fleet_up_and_its_worker_starts(  # noqa: PLR0915  # one walk through all pages
    console: Page, control_plane: ControlPlane, screenshot: Callable[[str], None]
) -> None:
    name = f"acme-{secrets.token_hex(4)}"
    temporal_secret, litellm_secret = secrets.token_urlsafe(24), secrets.token_urlsafe(24)

    visit(console, control_plane, "")
    console.get_by_role("link", name="Organizations").first.click()
    console.get_by_role("link", name="Add").first.click()
    console.locator("#id_id").fill(name)
    console.locator("#id_name").fill("Acme")
    saved(console, "organization")

    visit(console, control_plane, "environments/temporalconnection/add/")
    choose(console, "organization", name)
    console.locator("#id_name").fill("cloud")
    console.locator("#id_host").fill("acme.tmprl.cloud:7233")
    console.locator("#id_namespace").fill("acme.prod")
    console.locator("#id_api_key").fill(temporal_secret)
    saved(console, "Temporal connection")

    visit(console, control_plane, "environments/litellmconnection/add/")
    choose(console, "organization", name)
    console.locator("#id_name").fill("gateway")
    console.locator("#id_api_url").fill("https://llm.acme.example")
    console.locator("#id_api_key").fill(litellm_secret)
    saved(console, "LiteLLM connection")

    visit(console, control_plane, f"environments/organization/{name}/change/")
    choose(console, "temporal_connection", f"{name}/cloud")
    choose(console, "litellm_connection", f"{name}/gateway")
    saved(console, "organization")

    visit(console, control_plane, "environments/environment/add/")
    choose(console, "organization", name)
    console.locator("#id_name").fill("production")
    saved(console, "environment")

    visit(console, control_plane, "workers/workerqueue/add/")
    choose(console, "environment", f"{name}/production")
    console.locator("#id_name").fill("default")
    console.locator("#id_heartbeat_interval").fill("30")
    saved(console, "worker queue")

    visit(console, control_plane, "workers/worker/add/")
    choose(console, "queue", f"{name}.production.default")
    console.locator("#id_name").fill("worker-1")
    console.locator("#id_is_key_issued").set_checked(False)
    save(console)
    expect(console.get_by_text("None covers this worker yet")).to_be_visible()

    visit(console, control_plane, "workers/apikey/add/")
    console.locator("#id_name").fill("laptop")
    choose(console, "worker", f"{name}/worker-1")
    save(console)
    expect(console.get_by_text("it is not shown again")).to_be_visible()
    api_key = console.locator("#api-key").inner_text()
    curl = console.locator("pre", has_text="curl").inner_text()
    screenshot("api-key-issued")
    worker_id = re.findall(r"/api/v1/workers/([^/]+)/start", curl)[0]
    assert f"Authorization: Bearer {api_key}" in curl

    status, answer = start(control_plane, worker_id, api_key, {"hostname": "host-of-acme"})
    assert status == 200
    assert (answer["temporal_api_key"], answer["litellm_api_key"]) == (temporal_secret, litellm_secret)
    assert answer["task_queue_name"] == f"{name}.production.default"
    assert (answer["temporal_host"], answer["temporal_namespace"]) == ("acme.tmprl.cloud:7233", "acme.prod")
    assert (answer["heartbeat_interval"], answer["litellm_api_url"]) == (30, "https://llm.acme.example")

    console.get_by_role("link", name="To the key's page").click()
    expect(console.get_by_text("laptop").first).to_be_visible()
    assert api_key not in console.content()

    visit(console, control_plane, f"workers/worker/{worker_id}/change/")
    revision = console.locator("#revision").inner_text()
    latest = console.locator("#latest-starts > tbody")
    expect(latest).to_have_count(1)
    expect(latest).to_contain_text("host-of-acme")
    expect(latest).to_contain_text("127.0.0.1")
    expect(latest).to_contain_text(revision)
    screenshot("worker")
    latest.get_by_role("link").first.click()
    content = console.locator("main, #content, body").last
    for text in ("host-of-acme", "laptop", "127.0.0.1", revision, f"{name}.production.default"):
        expect(content).to_contain_text(text)
    screenshot("start")


def test_a_wrong_password_is_refused(page: Page, control_plane: ControlPlane) -> None:
    sign_in(page, control_plane, "wrong")
    expect(page.get_by_text("Please enter the correct username and password")).to_be_visible()


# --- What a worker tells -------------------------------------------------------------------------------------------------


def test_what_a_worker_tells_is_shown_as_text_and_does_nothing(
    console: Page, control_plane: ControlPlane, fleet: Fleet
) -> None:
    dialogs: list[str] = []
    console.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    assert fleet.start(system_info=HOSTILE) == 200
    visit(console, control_plane, f"workers/worker/{fleet.worker_id}/change/")
    latest = console.locator("#latest-starts tbody tr").first
    expect(latest).to_contain_text(HOSTILE["hostname"])
    latest.get_by_role("link").first.click()
    shown = console.locator("pre", has_text="onmouseover")
    assert json.loads(shown.inner_text()) == HOSTILE
    assert console.locator("pre *").count() == 0
    shown.hover()
    for page in ("workers/workerstart/", f"workers/workerstart/?q={fleet.worker_id}", "workers/workerinstance/"):
        visit(console, control_plane, page)
    assert console.evaluate("document.querySelectorAll('[x-init*=alert], [onerror], [onmouseover]').length") == 0
    assert dialogs == []


def test_long_and_odd_text_does_not_widen_the_page(console: Page, control_plane: ControlPlane, fleet: Fleet) -> None:
    assert fleet.start(system_info=HOSTILE) == 200
    visit(console, control_plane, f"workers/worker/{fleet.worker_id}/change/")
    console.locator("#latest-starts tbody tr").first.get_by_role("link").first.click()
    expect(console.locator("pre", has_text="onmouseover")).to_be_visible()
    assert console.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


# --- What a worker is given ------------------------------------------------------------------------------------------------


def test_a_worker_s_page_tells_which_level_won(console: Page, control_plane: ControlPlane, fleet: Fleet) -> None:
    visit(console, control_plane, f"workers/worker/{fleet.worker_id}/change/")
    fields = ("temporal_host", "litellm_api_url", "otel_service_name")
    temporal, litellm, telemetry = (console.locator(f"#field-{name}") for name in fields)
    expect(temporal).to_contain_text(f"{fleet.organization}/narrow")
    expect(temporal).to_contain_text(re.compile(r"queue", re.IGNORECASE))
    expect(temporal.locator("s")).to_contain_text(f"{fleet.organization}/cloud")
    expect(litellm).to_contain_text(f"{fleet.organization}/gateway")
    expect(litellm).to_contain_text(re.compile(r"organization", re.IGNORECASE))
    expect(telemetry).to_contain_text("Default: no telemetry settings at")
    given = console.locator("#configuration")
    expect(given).to_contain_text("narrow.example.com:7233")
    expect(given).to_contain_text(re.compile(r"fingerprint [0-9a-f]{12}"))
    assert fleet.secret not in console.content()


def test_a_secret_can_be_replaced_and_never_read(console: Page, control_plane: ControlPlane, fleet: Fleet) -> None:
    row = next(row for row in fleet.rows("environments.litellmconnection"))
    path = f"environments/litellmconnection/{row['pk']}/change/"
    fingerprint = row["fields"]["api_key_fingerprint"]

    visit(console, control_plane, path)
    expect(console.get_by_text(fingerprint).first).to_be_visible()
    expect(console.locator("#id_api_key")).to_have_value("")
    console.locator("#id_api_url").fill("https://renamed.example.com")
    saved(console, "LiteLLM connection", told=("https://renamed.example.com", "1 worker would be given"))
    visit(console, control_plane, path)
    expect(console.get_by_text(fingerprint).first).to_be_visible()

    console.locator("#id_api_key").fill("typed-in-the-browser")
    save(console)
    expect(console.locator("#changes")).to_contain_text(fingerprint)
    assert "typed-in-the-browser" not in console.content()
    confirm(console, f"{fleet.organization}.production.default")
    expect(console.get_by_text("was changed successfully")).to_be_visible()
    visit(console, control_plane, path)
    expect(console.locator("form").get_by_text(fingerprint)).to_have_count(0)
    expect(console.locator("#id_api_key")).to_have_value("")
    assert "typed-in-the-browser" not in console.content()
    (after,) = fleet.rows("environments.litellmconnection")
    assert after["fields"]["api_key_version"] == row["fields"]["api_key_version"] + 1
    status, answer = start(control_plane, fleet.worker_id, fleet.api_key)
    assert (status, answer["litellm_api_key"]) == (200, "typed-in-the-browser")

    visit(console, control_plane, f"environments/auditevent/?q={row['pk']}")
    console.locator("#result_list").get_by_role("link", name=re.compile(r"\d")).filter(
        has_not_text="admin"
    ).first.click()
    change = console.get_by_role("row", name=re.compile("api.key.fingerprint"))
    expect(change).to_contain_text(fingerprint)
    expect(console.get_by_text("user:admin").first).to_be_visible()
    expect(console.get_by_text("127.0.0.1").first).to_be_visible()
    assert "typed-in-the-browser" not in console.content()


# --- Ending it -------------------------------------------------------------------------------------------------------------


def test_a_worker_is_disabled_and_enabled_by_its_switch(
    console: Page, control_plane: ControlPlane, fleet: Fleet
) -> None:
    assert fleet.start() == 200
    for is_disabled, status in ((True, 403), (False, 200)):
        visit(console, control_plane, f"workers/worker/{fleet.worker_id}/change/")
        console.locator("#id_is_disabled").set_checked(is_disabled)
        saved(console, "worker", told=("running process",) if is_disabled else None)
        assert fleet.start() == status
    visit(console, control_plane, f"environments/auditevent/?q={fleet.worker_id}")
    expect(console.get_by_text("worker.updated").first).to_be_visible()


def test_a_queue_is_disabled_by_its_switch(console: Page, control_plane: ControlPlane, fleet: Fleet) -> None:
    for is_disabled, status in ((True, 409), (False, 200)):
        visit(console, control_plane, f"workers/workerqueue/{fleet.queue_id}/change/")
        console.locator("#id_is_disabled").set_checked(is_disabled)
        saved(console, "worker queue", told=("running process",) if is_disabled else None)
        assert fleet.start() == status


def test_a_key_is_rotated_with_a_grace_period_and_revoked(
    console: Page, control_plane: ControlPlane, fleet: Fleet, page_problems: list[str]
) -> None:
    issued = control_plane.manage("issue_api_key", "--worker", fleet.worker_id, "--name", "old", "--format", "json")
    old = json.loads(issued.stdout)
    visit(console, control_plane, f"workers/apikey/{old['id']}/change/")
    console.get_by_role("link", name="Rotate").click()
    console.get_by_label("Grace period in hours").fill("2")
    console.get_by_role("button", name="Rotate").click()
    new_key = console.locator("#api-key").inner_text()
    assert fleet.start(old["api_key"]) == 200
    assert fleet.start(new_key) == 200

    console.reload()  # asks the server again: the form is refused, and no third key is made
    assert new_key not in console.content()
    assert len([row for row in fleet.rows("workers.apikey") if row["fields"]["name"] == "old"]) == 2

    visit(console, control_plane, f"workers/apikey/{old['id']}/change/")
    console.get_by_role("link", name="Revoke").click()
    console.get_by_label("Reason").fill("laptop lost")
    console.get_by_label("Cut off the worker").check()
    console.get_by_role("button", name="Revoke").click()
    expect(console.get_by_text("is revoked")).to_be_visible()
    expect(console.get_by_text("laptop lost")).to_be_visible()
    assert fleet.start(old["api_key"]) == 401
    assert fleet.start(new_key) == 200
    visit(console, control_plane, f"environments/auditevent/?q={old['id']}")
    for action in ("api_key.issued", "api_key.rotated", "api_key.revoked"):
        expect(console.get_by_text(action)).to_be_visible()


# --- What a page says no to --------------------------------------------------------------------------------------------------


def test_a_name_that_is_taken_is_told_on_the_form(console: Page, control_plane: ControlPlane, fleet: Fleet) -> None:
    visit(console, control_plane, "environments/environment/add/")
    choose(console, "organization", fleet.organization)
    console.locator("#id_name").fill("production")
    refused(console, "already exists")
    visit(console, control_plane, "environments/organization/add/")
    console.locator("#id_id").fill(fleet.organization)
    console.locator("#id_name").fill("Again")
    refused(console, "already exists")


def test_another_organization_s_connection_is_told_on_the_form(
    console: Page, control_plane: ControlPlane, fleet: Fleet
) -> None:
    visit(console, control_plane, f"workers/worker/{fleet.worker_id}/change/")
    choose(console, "temporal_connection", "demo/local")
    refused(console, "This belongs to another organization.")


def test_a_queue_without_environment_is_told_on_the_form(console: Page, control_plane: ControlPlane) -> None:
    """Chromium does not hold back a form for a select box that is hidden behind a searchable one."""
    visit(console, control_plane, "workers/workerqueue/add/")
    console.locator("#id_name").fill("no-environment")
    console.locator("#workerqueue_form").evaluate("form => form.noValidate = true")
    refused(console, "This field is required.")


@pytest.mark.parametrize("model", ["workers/workerstart", "environments/auditevent", "workers/workerinstance"])
def test_what_is_on_record_can_only_be_looked_at(
    model: str, console: Page, control_plane: ControlPlane, fleet: Fleet
) -> None:
    assert fleet.start() == 200
    visit(console, control_plane, f"{model}/")
    expect(console.locator("#result_list tbody tr").first).to_be_visible()
    expect(console.get_by_role("link", name="Add another", exact=True)).to_have_count(0)
    console.locator("#result_list tbody tr a").first.click()
    expect(console).to_have_url(re.compile(r"/change/"))
    expect(console.get_by_role("button", name="Save", exact=True)).to_have_count(0)
    expect(console.get_by_role("link", name="Delete", exact=True)).to_have_count(0)
    token = console.locator("[name=csrfmiddlewaretoken]").first.input_value()
    for path in (f"{model}/{id_on(console)}/change/", f"{model}/{id_on(console)}/delete/", f"{model}/add/"):
        answer = console.request.post(
            f"{control_plane.url}/admin/{path}", form={"csrfmiddlewaretoken": token, "post": "yes", "_save": "Save"}
        )
        assert answer.status == 403


def test_signing_out_ends_the_session(page: Page, control_plane: ControlPlane) -> None:
    sign_in(page, control_plane)
    expect(page).to_have_url(f"{control_plane.url}/admin/")
    cookies: Any = page.context.cookies()
    assert {cookie["name"] for cookie in cookies} == {"csrftoken", "device", "sessionid"}
    assert all(cookie["httpOnly"] and cookie["sameSite"] == "Lax" for cookie in cookies)
    page.locator("form[action*=logout]").evaluate("form => form.submit()")
    page.wait_for_url(re.compile("logout"))
    page.context.add_cookies(cookies)
    visit(page, control_plane, "workers/worker/")
    expect(page).to_have_url(re.compile("/admin/login/"))
