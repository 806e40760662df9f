"""The life of an API key as an operator sees it, in a real Chromium: issue, look, find, rotate, revoke, calendar.

The `page` fixture fails the test with an error in the browser's console, a violation of the content security policy or
a request to another machine.
"""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.axe import problems_of
from tests.support.console_pages import HOSTILE, Fleet, choose, save, start, visit
from tests.support.servers import ControlPlane


@pytest.fixture(scope="module")
def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(control_plane, tmp_path_factory.mktemp("fleet"))


def test_an_operator_follows_a_key_from_its_issue_to_its_end(  # one walk through all pages
    console: Page,  # the fixture
    control_plane: ControlPlane,
    fleet: Fleet,
) -> None:
    # Issued from a link; only the object of the chosen scope is asked for.
    visit(console, control_plane, f"workers/apikey/add/?worker={fleet.worker_id}")
    expect(console.locator("#id_worker + .select2-container")).to_contain_text(f"{fleet.organization}/first")
    expect(console.locator("#id_queue + .select2-container")).to_be_hidden()
    console.get_by_label("One worker queue").check()
    expect(console.locator("#id_worker + .select2-container")).to_be_hidden()
    choose(console, "queue", f"{fleet.organization}.production.default")
    assert problems_of(console) == []
    console.locator("#id_name").fill("found in a log")
    save(console)
    expect(console.get_by_text("it is not shown again")).to_be_visible()
    api_key = console.locator("#api-key").inner_text()
    expect(console.locator("#worker-command")).to_contain_text(fleet.queue_id)
    console.get_by_role("button", name="Copy the key").click()
    expect(console.get_by_role("button", name=re.compile("Copied|Selected"))).to_be_visible()
    assert problems_of(console) == []

    # Used, and looked at.
    assert start(control_plane, fleet.worker_id, api_key, HOSTILE)[0] == 200
    console.get_by_role("link", name="To the key's page").click()
    expect(console.locator("#live")).to_contain_text("1 live worker")
    expect(console.locator("#processes")).to_contain_text(HOSTILE["hostname"])
    expect(console.locator("#addresses")).to_contain_text("127.0.0.1")
    expect(console.locator("#credentials tbody tr")).to_have_count(2)
    expect(console.locator("#credentials")).to_contain_text("Still current")
    expect(console.locator("#audit")).to_contain_text("api_key.issued")
    assert problems_of(console) == []
    assert console.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    key_page = console.url

    # Whose key is this?
    visit(console, control_plane, "workers/apikey/")
    assert problems_of(console) == []
    console.get_by_label("Whose key is this?").fill(f"Authorization: Bearer {api_key}")
    console.get_by_role("button", name="Find it").click()
    expect(console).to_have_url(key_page)
    assert api_key not in console.content()

    # Rotated: who still uses the old one is told until nobody does.
    console.get_by_role("link", name="Rotate").click()
    expect(console.locator("#consequence")).to_contain_text("1 live worker runs with it and needs the new key")
    assert problems_of(console) == []
    console.get_by_role("button", name="Rotate").click()
    new_key = console.locator("#api-key").inner_text()
    console.get_by_role("link", name="Its page").click()
    expect(console.locator("#replaced")).to_contain_text("1 live worker still uses this one")

    # Revoking what is in use asks for more than a reason.
    console.get_by_role("link", name="Revoke").click()
    expect(console.locator("#consequence")).to_contain_text("1 live worker runs with it")
    assert problems_of(console) == []
    console.get_by_label("Reason").fill("seen in a log")
    console.get_by_label("Cut off the worker that runs with this key").check()
    console.get_by_role("button", name="Revoke").click()
    expect(console.get_by_text("is revoked")).to_be_visible()
    expect(console.locator("#key")).to_contain_text("seen in a log")
    assert start(control_plane, fleet.worker_id, api_key)[0] == 401
    assert start(control_plane, fleet.worker_id, new_key)[0] == 200


def test_a_key_for_an_organization_is_asked_for_twice(
    console: Page,  # the fixture
    control_plane: ControlPlane,
    fleet: Fleet,
) -> None:
    visit(console, control_plane, f"workers/apikey/add/?organization={fleet.organization}")
    expect(console.get_by_label("A whole organization")).to_be_checked()
    console.locator("#id_name").fill("for all")
    save(console)
    expect(console.locator("#consequence")).to_contain_text("1 worker can be started with it today")
    assert problems_of(console) == []
    console.get_by_role("link", name="Cancel").click()
    visit(console, control_plane, f"workers/apikey/add/?organization={fleet.organization}")
    console.locator("#id_name").fill("for all")
    save(console)
    console.get_by_role("button", name="Issue it for the whole organization").click()
    expect(console.locator("#api-key")).to_be_visible()
    assert len([row for row in fleet.rows("workers.apikey") if row["fields"]["scope"] == "organization"]) == 1


def test_the_calendar_leads_to_what_expires_on_a_day(
    console: Page,  # the fixture
    control_plane: ControlPlane,
    fleet: Fleet,
    tmp_path: Path,
) -> None:
    scope = ("--worker", fleet.worker_id, "--name", "short", "--days", "40")
    issued = json.loads(control_plane.manage("issue_api_key", *scope, "--format", "json").stdout)
    day = issued["expires_at"][:10]
    visit(console, control_plane, "workers/apikey/")
    console.get_by_role("link", name="Expiry calendar", exact=True).click()
    expect(console.locator("#coming")).to_contain_text("short")
    assert problems_of(console) == []
    console.get_by_role("link", name=re.compile(rf"API keys? on {day}")).click()
    expect(console.locator("#result_list")).to_contain_text("short")
    visit(console, control_plane, "workers/apikey/calendar/")
    console.set_viewport_size({"width": 390, "height": 844})
    assert console.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
