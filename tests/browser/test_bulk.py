"""Many workers at once, as a person does it in Chromium: choose, look what happens, confirm, find it in the trail."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.axe import problems_of
from tests.support.console_pages import choose, saved, start, visit
from tests.support.servers import ControlPlane

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def organization(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One of `seed_fleet`'s, with 60 workers in two queues."""
    output = tmp_path_factory.mktemp("seed") / "workers"
    size = ("--organizations", "1", "--queues", "2", "--workers", "60", "--starts", "60")
    control_plane.manage("seed_fleet", *size, "--output", str(output))
    first = output.read_text().split()[0]
    rows = json.loads(control_plane.manage("dumpdata", "workers.worker", "--pks", first).stdout)
    return str(rows[0]["fields"]["organization"])


@pytest.fixture
def workers(page: Page, control_plane: ControlPlane, session: Any, organization: str) -> Page:
    """The list of the organization's workers."""
    page.context.add_cookies(session)
    visit(page, control_plane, f"workers/worker/?q={organization}")
    return page


def run(page: Page, action: str, rows: int) -> None:
    """Ticks the first rows and runs an action of the list on them; with none, all on all pages."""
    if rows:
        for row in page.locator("#result_list .action-select").all()[:rows]:
            row.check()
    else:
        page.locator("#action-toggle").check()
        page.get_by_role("link", name=re.compile("Select all 60")).click()
    page.get_by_label("Select action to run").select_option(action)
    page.get_by_role("button", name="Run").click()


def looks_well(page: Page, screenshot: Callable[[str], None], name: str) -> None:
    """On a desk, on a phone and in the dark, with nothing grave to be said by axe and nothing wider than the screen."""
    desk = page.viewport_size
    assert desk
    screenshot(name)
    assert problems_of(page) == []
    page.evaluate("document.documentElement.classList.add('dark')")
    assert problems_of(page) == []
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]  # its keys are these
    screenshot(f"{name}-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.evaluate("document.documentElement.classList.remove('dark')")
    page.set_viewport_size(desk)


def test_three_workers_are_disabled_and_the_trail_says_so(
    workers: Page, control_plane: ControlPlane, organization: str, screenshot: Callable[[str], None]
) -> None:
    for row in workers.locator("#result_list .action-select").all()[:3]:
        row.check()
    screenshot("bulk-choose")
    run(workers, "disable", 3)
    expect(workers.locator("#bulk-summary")).to_contain_text("3 workers chosen")
    expect(workers.get_by_text("told to end at their next heartbeat")).to_be_visible()
    workers.get_by_label("Reason").fill("The disk is full")
    workers.get_by_label("Until").fill("2100-01-31T18:00:00")
    looks_well(workers, screenshot, "bulk-disable")
    workers.get_by_role("button", name="Disable 3 workers").click()
    expect(workers.get_by_text("3 workers disabled.")).to_be_visible()
    expect(workers.locator("#result_list").get_by_text("ends in")).to_have_count(3)
    expect(workers).to_have_url(re.compile(rf"/workers/worker/\?q={organization}$"))
    expect(workers.locator("#result_list").get_by_text("Disabled")).to_have_count(3)
    held = workers.locator("#result_list tr", has_text="ends in").first
    address = held.get_by_role("link").first.get_attribute("href")

    visit(
        workers, control_plane, f"environments/auditevent/?period=24h&did=changed&of=worker&organization={organization}"
    )
    rows = workers.locator("#result_list tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("user:admin")
    expect(rows.first).to_contain_text("is disabled")
    looks_well(workers, screenshot, "audit")
    rows.first.get_by_role("link").first.click()
    expect(workers.locator("#changes")).to_contain_text("yes")
    looks_well(workers, screenshot, "audit-event")
    told = control_plane.manage(
        "audit", "--since", "24h", "--organization", organization, "--people", "--format", "json"
    )
    updated = [line for line in map(json.loads, told.stdout.splitlines()) if line["action"] == "worker.updated"]
    why = {"state_reason": ("", "The disk is full"), "state_ends_at": (None, "2100-01-31 18:00:00+00:00")}
    fields = {"is_disabled": (False, True), **why}
    told_so = {name: {"before": before, "after": after} for name, (before, after) in fields.items()}
    assert [line["fields"] for line in updated] == 3 * [told_so]
    workers.goto(f"{control_plane.url}{address}")
    expect(workers.locator(".held")).to_contain_text("The reason: The disk is full")
    expect(workers.get_by_label("Until")).to_have_value("2100-01-31T18:00")
    looks_well(workers, screenshot, "held-worker")


def test_the_list_is_downloaded_as_csv(workers: Page, organization: str) -> None:
    with workers.expect_download() as download:
        run(workers, "export", 0)
    with Path(download.value.path()).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert download.value.suggested_filename.startswith("workers-")
    assert len(rows) == 60
    assert {row["organization"] for row in rows} == {organization}


def test_workers_are_moved_after_a_look_at_what_that_does(
    workers: Page, control_plane: ControlPlane, organization: str, screenshot: Callable[[str], None]
) -> None:
    visit(workers, control_plane, "workers/workerqueue/add/")
    choose(workers, "environment", f"{organization}/production")
    workers.locator("#id_name").fill("spare")
    saved(workers, "worker queue")
    # Two of one queue, since the seed calls the workers of each queue alike.
    visit(workers, control_plane, f"workers/worker/?q={organization}&o=-3")
    run(workers, "move", 2)
    here = workers.locator("#shares a").first.inner_text()
    choose(workers, "queue", f"{organization}.production.queue-{'2' if here.endswith('1') else '1'}")
    workers.get_by_role("button", name="Look what it does").click()
    expect(workers.get_by_text("The queue can have one worker of each name")).to_be_visible()
    assert problems_of(workers) == []

    choose(workers, "queue", f"{organization}.production.spare")
    workers.get_by_role("button", name="Look what it does").click()
    expect(workers.locator("#move-summary")).to_contain_text("2 workers would be in")
    expect(workers.locator("#impact tbody tr")).to_have_count(workers.locator("#shares tbody tr").count())
    looks_well(workers, screenshot, "bulk-move")
    workers.get_by_role("button", name="Move 2 workers").click()
    expect(workers.get_by_text("2 workers moved.")).to_be_visible()
    expect(workers.locator("#result_list").get_by_text(f"{organization}.production.spare")).to_have_count(2)


def test_keys_are_downloaded_once_and_start_their_workers(
    workers: Page, control_plane: ControlPlane, screenshot: Callable[[str], None]
) -> None:
    run(workers, "issue_keys", 2)
    looks_well(workers, screenshot, "bulk-keys")
    button = workers.get_by_role("button", name="Issue and download")
    with workers.expect_download() as download:
        button.click()
    with Path(download.value.path()).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert rows[0]["api_key"] not in workers.content()
    assert start(control_plane, rows[1]["worker_id"], rows[0]["api_key"])[0] == 403
    button.click()
    expect(workers.get_by_text("have a key of this name already")).to_be_visible()
