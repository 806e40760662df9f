"""A worker's page in a real Chromium, as somebody reads it who wonders what a worker does; also when it is hostile.

The `page` fixture fails the test for any script error, console error, CSP violation or foreign address.
"""

import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.console_pages import FLEET
from tests.support.servers import ControlPlane

MARKUP = "<div x-init=alert(1)></script><script>alert(2)</script><img src=x onerror=alert(3)>"
QUOTES = '" onmouseover="alert(4)" x-data="{a: alert(5)}" \' {{ 7 * 7 }}'
BIDI = "\u202egnp.exe\u2066\u200b\ufeff"
LONG = "W" * 4_096
KEYS = ("hostname", "python_version", "sdk_version", "platform", "pid", "items", MARKUP, QUOTES, BIDI, "K" * 512)


class Walk:
    """One organization with one worker, and how the worker calls."""

    def __init__(self, plane: ControlPlane, directory: Path) -> None:
        self.plane, self.directory = plane, directory
        self.organization = f"page-{secrets.token_hex(4)}"
        self.secret = secrets.token_urlsafe(24)
        (directory / "secret").write_text(self.secret)
        self.apply("narrow.example.com:7233")
        rows = json.loads(plane.manage("dumpdata", "workers.worker").stdout)
        self.worker_id = next(row["pk"] for row in rows if row["fields"]["organization"] == self.organization)
        issued = plane.manage("issue_api_key", "--worker", self.worker_id, "--name", "first", "--format", "json")
        self.api_key = json.loads(issued.stdout)["api_key"]

    def apply(self, host: str) -> None:
        fleet = FLEET.format(id=self.organization).replace("narrow.example.com:7233", host)
        (self.directory / "fleet.yaml").write_text(fleet)
        self.plane.manage("apply", str(self.directory / "fleet.yaml"))

    def call(self, verb: str, body: Any) -> None:
        path, headers = f"/api/v1/workers/{self.worker_id}/{verb}", {"Authorization": f"Bearer {self.api_key}"}
        status, _, answer = self.plane.request("POST", path, json=body, headers=headers)
        assert status in {200, 204}, answer

    def start(self, **system_info: Any) -> None:
        self.call("start", {"system_info": system_info})

    @property
    def address(self) -> str:
        return f"{self.plane.url}/admin/workers/worker/{self.worker_id}/change/"


@pytest.fixture
def walk(control_plane: ControlPlane, tmp_path: Path) -> Walk:
    return Walk(control_plane, tmp_path)


def test_an_operator_sees_at_a_glance_what_runs_and_why_it_is_not_what_it_should_be(  # one walk through the page
    console: Page, walk: Walk, screenshot: Callable[[str], None]
) -> None:
    walk.start(hostname="gpu-a", pid=11, sdk_version="1.0.1", cpu_percent=3)
    walk.start(hostname="gpu-b", pid=12, sdk_version="1.0.2", python_version="3.12.7", cpu_percent=9)
    walk.call("heartbeat", {"status": "busy", "system_info": {"hostname": "gpu-b", "pid": 12}, "logs": ["polling"]})
    console.clock.install()
    console.goto(walk.address)
    overview = console.locator("#overview")
    expect(overview).to_contain_text(re.compile(r"Online\s+last seen \d+ s ago, every 60 s"))
    expect(overview).to_contain_text("gpu-b")
    expect(console.locator("#duplicates")).to_be_visible()
    expect(console.locator("#processes thead")).to_contain_text(re.compile(r"Current, Online\s*Older, Online"))

    walk.apply("moved.example.com:7233")
    console.clock.fast_forward(16_000)  # the overview is kept fresh by itself
    expect(console.locator("#outdated")).to_contain_text("restart it")
    expect(console.locator("#outdated")).to_contain_text("command:apply")
    console.reload()

    console.get_by_role("link", name="Configuration", exact=True).click()
    host = console.locator("#field-temporal_host")
    expect(host).to_be_in_viewport()
    expect(host).to_contain_text("moved.example.com:7233")
    expect(host.locator("s")).to_contain_text("temporal.example.com:7233")
    expect(console.locator("#field-temporal_api_key")).to_contain_text(re.compile("fingerprint [0-9a-f]{12}"))
    for secret in (walk.secret, walk.api_key):
        assert secret not in console.content()

    latest = console.locator("#latest-starts > tbody").first
    expect(latest).to_contain_text("outdated")
    latest.get_by_text("3 differences to the start before").click()
    expect(latest.locator("table")).to_contain_text(re.compile(r'sdk_version\s*"1.0.1"\s*"1.0.2"'))
    expect(latest.locator("table tbody").last).to_contain_text(re.compile(r"Measurements[^$]*cpu_percent\s*3\s*9"))
    screenshot("worker-page")
    console.get_by_role("link", name="All starts of this worker").click()
    expect(console.locator("#result_list tbody tr")).to_have_count(2)
    console.go_back()
    console.get_by_role("link", name="All audit events of this worker").click()
    expect(console.locator("#result_list")).to_contain_text("worker.created")
    console.go_back()

    latest.get_by_role("link").first.click()
    expect(console.locator("#content")).to_contain_text("Difference to the start before")
    console.get_by_role("link", name=f"{walk.organization}/first", exact=True).click()
    expect(console).to_have_url(walk.address)
    host.get_by_role("link", name=f"{walk.organization}/narrow").click()
    expect(console.locator("#id_host")).to_have_value("moved.example.com:7233")


def test_a_hostile_worker_breaks_no_page_and_runs_nothing(console: Page, walk: Walk) -> None:
    dialogs: list[str] = []
    console.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    reason = {"reason": MARKUP[:200], "error_message": (QUOTES + BIDI + LONG)[:2000], "exit_code": 2**60}
    report_hostile_things(walk, MARKUP)
    walk.call("disconnect", reason)
    look_at_every_page(console, walk)
    expect(console.locator("#overview")).to_contain_text(re.compile(rf"stopped \d+ s ago: {re.escape(MARKUP[:60])}"))

    for text in (QUOTES, BIDI, LONG):
        report_hostile_things(walk, text)
    look_at_every_page(console, walk)
    expect(console.locator("#audit")).to_be_visible()
    expect(console.locator("#logs")).to_contain_text(LONG[:1000])
    expect(console.locator("#latest-starts > tbody").last).to_contain_text(MARKUP[:60])
    console.get_by_role("link", name="Logs", exact=True).click()
    expect(console.locator("#logs")).to_be_in_viewport()
    assert dialogs == []


def report_hostile_things(walk: Walk, text: str) -> None:
    walk.start(**dict.fromkeys(KEYS, text), nested=[{text[:512]: [text, None, 1]}])
    report = {key: [text] for key in KEYS}
    walk.call("heartbeat", {"system_info": report, "logs": [text] * 3, "current_task_id": text[:255]})


def look_at_every_page(console: Page, walk: Walk) -> None:
    """The worker's page and those of its latest start and instance, wide and narrow; ends at the first."""
    console.goto(walk.address)
    links = [
        console.locator("#latest-starts tbody a").first,
        console.locator("#processes a[href*=workerinstance]").first,
    ]
    addresses = [*(f"{walk.plane.url}{link.get_attribute('href')}" for link in links), walk.address]
    for width in (390, 1440):
        console.set_viewport_size({"width": width, "height": 900})
        for address in addresses:
            console.goto(address)
            console.locator("#content details").evaluate_all("all => all.forEach(each => { each.open = true })")
            console.mouse.move(width / 2, 450)
            assert (
                console.evaluate("document.querySelectorAll('[x-init*=alert], [onerror], [onmouseover]').length") == 0
            )
            assert console.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
