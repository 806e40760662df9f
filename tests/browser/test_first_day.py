"""A newcomer's first day: what is printed is done, the worker stays online, and nothing is red until there is trouble.

Then the workers' connection to LiteLLM is taken away and put back, and everything that tells of the fleet tells of that.
"""

import json
import re
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.axe import problems_of
from tests.support.console_pages import choose, save, sign_in, visit
from tests.support.databases import MakeDatabase
from tests.support.processes import ROOT, ServerProcess
from tests.support.servers import ControlPlane, TemporalServer

TOKEN = "a-token-of-monitoring-for-the-first-day"
COMMAND = re.compile(r"^(?:CONTROL_PLANE_URL=|curl ).*?[^\\]$", re.MULTILINE | re.DOTALL)
WORKFLOW = re.compile(r"^\S+ examples/temporal_workflow.py .*$", re.MULTILINE)
REASON = "no LiteLLM connection at any"
NOTHING = "Nothing. All that runs is as it should be."
#: What the console paints red: a badge, a figure, a sentence about a problem, a note on an error.
RED = ".cp-badge-danger, .cp-figure-danger, .cp-problem, .errornote"


class FirstDay:
    """A control plane that was just set up, its worker as printed, and who looks at it."""

    def __init__(self, plane: ControlPlane, printed: str, page: Page) -> None:
        self.plane, self.page, self.printed = plane, page, printed
        self.worker, self.start, self.goodbye = COMMAND.findall(printed)
        self.worker_id = plane.worker_id

    def run(self, command: str) -> str:
        """What a printed command prints."""
        done = subprocess.run(  # noqa: S603  # as a person would paste it
            ["bash", "-c", command],  # noqa: S607
            cwd=ROOT,
            env=self.plane.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout + done.stderr

    def by_hand(self) -> str:
        """What the start is answered that is printed for the second worker, and the goodbye, in one shell."""
        return self.run(f"{self.start}\n{self.goodbye}")

    def look_at(self, path: str) -> Page:
        visit(self.page, self.plane, path)
        assert problems_of(self.page) == []
        return self.page

    def red(self) -> dict[str, list[str]]:
        """What is red on the pages that tell of the fleet."""
        pages = ("", "workers/worker/", f"workers/worker/{self.worker_id}/change/", "workers/workerqueue/")
        return {path: found for path in pages if (found := self.look_at(path).locator(RED).all_inner_texts())}

    def told_by_commands(self) -> str:
        """What `doctor`, which finds more to say about a database for tests, and `list_workers` print."""
        doctor = self.plane.manage("doctor", check=False)
        return doctor.stdout + doctor.stderr + self.plane.manage("list_workers").stdout

    def listed(self) -> dict[str, Any]:
        """The worker as `list_workers` tells it."""
        lines = self.plane.manage("list_workers", "--format", "json").stdout.splitlines()
        return next(row for row in map(json.loads, lines) if row["id"] == self.worker_id)

    def figure(self, name: str) -> float:
        """The sum of a metric's values."""
        _, _, body = self.plane.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", body.decode(), re.MULTILINE))

    def point_to(self, connection: str) -> None:
        """Gives the organization's workers this LiteLLM connection, or none, up to the question whether that is meant."""
        visit(self.page, self.plane, f"environments/organization/{self.plane.organization_id}/change/")
        if connection:
            choose(self.page, "litellm_connection", connection)
        else:
            self.page.locator("#id_litellm_connection").evaluate(
                "select => { select.value = ''; select.dispatchEvent(new Event('change', {bubbles: true})) }"
            )
        save(self.page)


@pytest.fixture
def day(
    browser: Browser,
    page: Page,
    temporal_server: TemporalServer,
    migrated_database: MakeDatabase,
    tmp_path: Path,
) -> Generator[FirstDay]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METRICS_TOKEN", TOKEN)
        plane = ControlPlane(tmp_path, migrated_database("first_day"))
    try:
        printed = plane.manage("quickstart", "--no-serve", "--temporal", temporal_server.host).stdout
        sign_in(page, plane)
        day = FirstDay(plane, printed, page)
        command = f"exec env {day.worker}"
        process = ServerProcess(["bash", "-c", command], log=tmp_path / "worker", cwd=ROOT, env=plane.environ)
        try:
            process.wait_until(lambda: "Polling " in process.log_text())
            yield day
        finally:
            process.stop()
    finally:
        plane.stop()


def test_nothing_is_red_until_a_connection_is_taken_away_and_nothing_once_it_is_back(
    day: FirstDay, screenshot: Any
) -> None:
    page = day.page

    # As printed: a worker that stays, a workflow that completes, a start by hand that says goodbye.
    (workflow,) = WORKFLOW.findall(day.printed)
    assert "Workflow completed" in day.run(workflow)
    assert "task_queue_name" in day.by_hand()
    assert day.listed()["liveness"] == "Online"
    assert day.red() == {}
    expect(day.look_at("").locator("#attention")).to_contain_text(NOTHING)
    screenshot("first-day-green")

    # The connection goes: what that does is told before it is done, and asked for by the name that it concerns.
    day.point_to("")
    expect(page.locator("body")).to_contain_text("could not start any more: ")
    expect(page.locator("body")).to_contain_text(REASON)
    screenshot("first-day-confirmation")
    assert problems_of(page) == []
    page.get_by_role("button", name="Save the change").click()
    page.locator("#typed-name").fill(page.locator("label[for=typed-name] bdi").inner_text())
    page.get_by_role("button", name="Save the change").click()
    expect(page.get_by_text("was changed successfully")).to_be_visible()
    assert REASON in day.by_hand()

    dashboard = day.look_at("")
    expect(dashboard.locator("#attention")).to_contain_text("1 worker whose latest start was refused")
    expect(dashboard.locator("#attention")).to_contain_text("1 worker queue whose configuration is incomplete")
    expect(dashboard.locator("#refused-starts")).to_contain_text(REASON)
    screenshot("first-day-red")
    expect(day.look_at(f"workers/worker/{day.worker_id}/change/").locator("#incomplete")).to_contain_text(REASON)
    assert day.told_by_commands().count(REASON) > 1
    assert REASON in day.plane.manage("list_workers").stdout
    assert day.figure("controlplane_workers_refused") == 1
    assert day.figure("controlplane_queue_incomplete") == 1

    # It is put back, and the one whose start was refused starts.
    day.point_to("demo/local")
    page.get_by_role("button", name="Save the change").click()
    expect(page.get_by_text("was changed successfully")).to_be_visible()
    assert "task_queue_name" in day.by_hand()
    assert day.red() == {}
    expect(day.look_at("").locator("#attention")).to_contain_text(NOTHING)
    assert REASON not in day.told_by_commands()
    assert day.figure("controlplane_workers_refused") == day.figure("controlplane_queue_incomplete") == 0
