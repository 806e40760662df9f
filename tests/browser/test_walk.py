"""An operator's day in the console, in a real Chromium, with a fleet that `seed_fleet` made; the issue's items in order.

The `page` fixture fails the test with an error in the browser's console, a violation of the content security policy or
a request to another machine; `look` fails it with what axe calls serious or critical.
"""

import json
import re
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page, expect

from tests.support.axe import problems_of
from tests.support.console_pages import choose, save, start, visit
from tests.support.servers import ControlPlane


class Seeded(NamedTuple):
    """The two organizations that were made, and the workers of the first one's first queue, by name."""

    first: str
    second: str
    workers: dict[str, str]

    @property
    def troubled(self) -> str:
        """The worker that is in a crash loop and runs twice."""
        return self.workers["worker-000001"]


@pytest.fixture(scope="module")
def seeded(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    output = tmp_path_factory.mktemp("seed") / "ids"
    counts = ("--organizations=2", "--queues=4", "--workers=48", "--starts=240")
    control_plane.manage("seed_fleet", *counts, f"--output={output}")
    rows = json.loads(control_plane.manage("dumpdata", "workers.worker").stdout)
    made = [row for row in rows if row["pk"] in output.read_text().split()]
    first, second = sorted({row["fields"]["organization"] for row in made})
    (queue,) = {
        row["fields"]["queue"] for row in made if row["pk"] == output.read_text().split()[0]
    }  # the first made is in the first queue
    workers = {row["fields"]["name"]: row["pk"] for row in made if row["fields"]["queue"] == queue}
    return Seeded(first, second, workers)


def look(page: Page) -> None:
    """Waits until the page is there, and fails with what keeps people from using it."""
    assert problems_of(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def row_of(page: Page, *texts: str) -> Any:
    """The first row of a list that has all these texts."""
    rows = page.locator("#result_list tbody tr")
    for text in texts:
        rows = rows.filter(has_text=text)
    return rows.first


def open_row(page: Page, plane: ControlPlane, path: str, *texts: str) -> None:
    visit(page, plane, path)
    row_of(page, *texts).get_by_role("link").first.click()
    page.wait_for_load_state()


def offline_on_the_dashboard(page: Page) -> int:
    return int(page.locator("#attention a", has_text="offline").inner_text().split()[0])


def test_1_the_dashboard_leads_to_what_needs_attention(
    console: Page, control_plane: ControlPlane, seeded: Seeded, screenshot: Callable[[str], None]
) -> None:
    visit(console, control_plane, "")
    look(console)
    screenshot("dashboard")
    # A bar of which a part is out of sight would show another share.
    assert console.locator("#capacity").evaluate("table => table.scrollWidth <= table.parentElement.clientWidth")
    before = offline_on_the_dashboard(console)
    console.locator("#attention a", has_text="offline").click()
    expect(console.locator("body")).to_contain_text(re.compile(r"\b\d+ workers\b"))
    listed = re.findall(r"\b(\d+) workers\b", console.locator("body").inner_text())
    look(console)
    visit(console, control_plane, "")
    # Meanwhile others may have fallen silent.
    assert before <= int(listed[-1]) <= offline_on_the_dashboard(console)
    console.locator("#attention a", has_text="crash loop").click()
    expect(row_of(console, f"{seeded.first}.production")).to_contain_text("worker-000001")
    console.go_back()
    console.get_by_role("link", name="7d", exact=True).click()
    expect(console.locator("#starts-chart text", has_text=re.compile("^[A-Z][a-z]{2} \\d\\d "))).to_have_count(7)
    console.locator("#starts-chart a").last.click()
    expect(console.locator("#result_list tbody tr").first).to_be_visible()


def test_2_a_worker_is_created_with_its_key_and_watched_at_its_first_boot(
    console: Page, control_plane: ControlPlane, seeded: Seeded, screenshot: Callable[[str], None]
) -> None:
    visit(console, control_plane, "workers/worker/add/")
    look(console)
    choose(console, "queue", f"{seeded.first}.production.queue-2")
    console.locator("#id_name").fill(f"fresh-{secrets.token_hex(4)}")
    save(console)
    worker_id, api_key = console.locator("#worker-id").inner_text(), console.locator("#api-key").inner_text()
    look(console)
    assert start(control_plane, worker_id, api_key, {"hostname": "fresh.example", "pid": 1})[0] == 200
    expect(console.locator("[data-step=start]")).to_have_attribute("data-state", "Done")
    expect(console.locator("[data-step=heartbeat]")).to_have_attribute("data-state", "Waiting")
    screenshot("new-worker")


def test_3_a_worker_s_page_tells_how_it_is_and_what_it_is_given(
    console: Page, control_plane: ControlPlane, seeded: Seeded, screenshot: Callable[[str], None]
) -> None:
    visit(console, control_plane, f"workers/worker/{seeded.troubled}/change/")
    expect(console.locator("#duplicates")).to_be_visible()
    expect(console.locator("#overview")).to_contain_text("every 60 s")
    expect(console.locator("#processes thead")).to_contain_text("Older, ")
    expect(console.locator("#field-temporal_api_key")).to_contain_text(re.compile("fingerprint [0-9a-f]{12}"))
    expect(console.locator("#latest-starts")).to_contain_text("outdated")
    look(console)
    screenshot("worker")


def test_4_a_connection_is_verified_and_the_reason_of_its_failure_shown(
    console: Page, control_plane: ControlPlane, seeded: Seeded
) -> None:
    visit(console, control_plane, "environments/litellmconnection/?verified=no")
    look(console)
    row_of(console, seeded.first).get_by_role("link").first.click()
    expect(console.locator("#connection-state")).to_contain_text("cannot be resolved")
    console.locator("#verify").get_by_role("button", name="Verify").click()
    expect(console.locator("#connection-state")).to_contain_text(re.compile(r"failing \d s ago"))
    look(console)


def test_5_the_wave_of_a_rotated_secret_leads_to_who_still_runs_on_the_old_one(
    console: Page, control_plane: ControlPlane, seeded: Seeded
) -> None:
    open_row(console, control_plane, "environments/temporalconnection/", seeded.first)
    expect(console.locator("#wave tbody tr")).to_have_count(2)
    look(console)
    old = console.locator("#wave tbody tr").last.get_by_role("link")
    count = int(old.inner_text())
    old.click()
    expect(console.locator("#result_list tbody tr")).to_have_count(count)


HEARTBEATS = """
from django.utils.timezone import now
from workers.models import WorkerInstance
WorkerInstance.objects.filter(worker__in={workers!r}.split()).update(last_heartbeat_at=now())
"""


def test_6_a_change_says_what_it_does_before_it_is_saved(
    console: Page, control_plane: ControlPlane, seeded: Seeded, screenshot: Callable[[str], None]
) -> None:
    open_row(console, control_plane, f"workers/workerqueue/?q={seeded.first}", "queue-1")
    console.locator("#id_heartbeat_interval").fill("30")
    save(console)
    expect(console.locator("#impact-summary")).to_contain_text(f"{len(seeded.workers)} workers would be given another")
    look(console)
    screenshot("confirmation")
    console.get_by_role("button", name="Save the change").click()
    expect(console.get_by_text("was changed successfully")).to_be_visible()
    # Who is silent for longer than the tests so far took runs on nothing.
    control_plane.manage("shell", "--command", HEARTBEATS.format(workers=" ".join(seeded.workers.values())))
    visit(console, control_plane, "workers/worker/?attention=outdated")
    expect(row_of(console, f"{seeded.first}.production.queue-1")).to_contain_text("Outdated")


def test_7_an_api_key_is_followed_rotated_and_its_end_foreseen(
    console: Page, control_plane: ControlPlane, seeded: Seeded
) -> None:
    open_row(console, control_plane, f"workers/apikey/?q={seeded.first}", seeded.first, "seed_fleet (discarded)")
    expect(console.locator("#credentials")).to_contain_text("Replaced by version 2")
    look(console)
    console.get_by_role("link", name="Rotate").click()
    look(console)
    console.get_by_role("button", name="Rotate").click()
    expect(console.locator("#api-key")).to_be_visible()
    look(console)
    visit(console, control_plane, "workers/apikey/calendar/")
    look(console)
    expect(console.get_by_text("expires soon").first).to_be_visible()
    visit(console, control_plane, f"workers/apikey/add/?worker={seeded.troubled}")
    look(console)


def test_8_many_workers_are_drained_at_once_when_that_is_confirmed(
    console: Page, control_plane: ControlPlane, seeded: Seeded
) -> None:
    visit(console, control_plane, f"workers/worker/?q={seeded.second}")
    for index in range(2):
        console.locator("#result_list tbody input[type=checkbox]").nth(index).check()
    console.locator("select[name=action]").select_option("drain")
    console.get_by_role("button", name=re.compile("Run")).first.click()
    expect(console.locator("#bulk-summary")).to_contain_text("2 workers chosen")
    look(console)
    console.get_by_role("button", name="Drain 2 workers").click()
    expect(console.get_by_text(re.compile("2 workers drain"))).to_be_visible()


def test_9_a_viewer_of_one_organization_sees_that_one_and_changes_nothing(
    console: Page, control_plane: ControlPlane, seeded: Seeded
) -> None:
    name, password = f"viewer-{secrets.token_hex(3)}", secrets.token_urlsafe(15)
    visit(console, control_plane, "auth/user/add/")
    console.locator("#id_username").fill(name)
    console.locator("#id_password1").fill(password)
    console.locator("#id_password2").fill(password)
    save(console)
    console.locator("#id_is_staff").check()
    save(console)
    visit(console, control_plane, "environments/membership/add/")
    choose(console, "organization", seeded.first)
    console.locator("#id_username").fill(name)
    save(console)
    expect(console.get_by_text("was added successfully")).to_be_visible()

    console.context.clear_cookies()
    visit(console, control_plane, "")
    console.get_by_label("Username").fill(name)
    console.get_by_label("Password").fill(password)
    console.get_by_role("button", name="Log in").click()
    expect(console.get_by_role("link", name=re.compile("Workers$"))).to_be_visible()
    expect(console.get_by_role("link", name=re.compile("Users$"))).to_have_count(0)
    visit(console, control_plane, "workers/worker/")
    assert seeded.second not in console.content()
    visit(console, control_plane, f"workers/worker/{seeded.troubled}/change/")
    expect(console.locator("#overview")).to_be_visible()
    expect(console.get_by_role("button", name="Save", exact=True)).to_have_count(0)
    look(console)


def test_10_the_trail_tells_who_did_what(console: Page, control_plane: ControlPlane, seeded: Seeded) -> None:
    visit(console, control_plane, f"environments/auditevent/?q=user:{control_plane.admin_username}")
    expect(console.locator("#result_list tbody tr").first).to_contain_text(control_plane.admin_username)
    look(console)
    told = control_plane.manage("audit", "--since", "1h", "--organization", seeded.first, "--format", "json").stdout
    actions = {json.loads(line)["action"] for line in told.splitlines()}
    assert {"worker_queue.updated", "api_key.rotated"} <= actions
    assert any("start" in action for action in actions), sorted(actions)
