"""What the console's pages ask by themselves, when the control plane is busy: they say so, and ask less and less often."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.servers import ControlPlane

CHECKLIST, SEARCH = re.compile(r"/boot/steps/$"), re.compile(r"/admin/search/\?")


class Busy:
    """Answers in the place of the control plane, and counts how often it was asked."""

    def __init__(self, page: Page, address: re.Pattern[str], status: int, **headers: str) -> None:
        self.page, self.address, self.asked = page, address, 0
        self.answer: dict[str, Any] = {"status": status, "headers": headers, "body": "<h1>Busy</h1>"}
        page.route(address, self._handle)

    def _handle(self, route: Route) -> None:
        self.asked += 1
        route.fulfill(**self.answer)

    def end(self) -> None:
        self.page.unroute(self.address)


@pytest.mark.parametrize("status", [429, 503])
def test_a_checklist_says_that_it_is_not_fresh_and_asks_less_often(
    status: int,
    console: Page,  # a fixture
    control_plane: ControlPlane,
    page_problems: list[str],
) -> None:
    console.clock.install()
    busy = Busy(console, CHECKLIST, status, **{"Retry-After": "7"})
    console.goto(f"{control_plane.url}/admin/workers/worker/{control_plane.worker_id}/boot/")
    console.clock.run_for(3_100)
    told = console.get_by_text("The control plane is busy")
    expect(told).to_have_text("The control plane is busy: it is asked again in 7 s.")
    console.clock.run_for(6_500)
    assert busy.asked == 1
    console.clock.run_for(600)
    expect(told).to_have_text("The control plane is busy: it is asked again in 14 s.")
    assert busy.asked == 2
    expect(console.locator("[data-step]")).to_have_count(4)
    busy.end()
    console.clock.run_for(14_100)
    expect(told).to_have_count(0)
    page_problems.clear()
    for _ in range(3):
        with console.expect_response(CHECKLIST):
            console.clock.run_for(3_100)
        expect(console.locator("[data-step]")).to_have_count(4)


@pytest.mark.parametrize("status", [429, 503])
def test_the_palette_says_that_it_waits_and_asks_for_what_is_typed_by_then(
    status: int,
    console: Page,  # a fixture
    control_plane: ControlPlane,
    page_problems: list[str],
) -> None:
    console.clock.install()
    console.goto(f"{control_plane.url}/admin/")
    busy = Busy(console, SEARCH, status, **{"Retry-After": "5"})
    console.keyboard.press("Control+k")
    typed = console.locator("#search-input-command")
    typed.press_sequentially("aud")
    console.clock.run_for(700)
    told = console.get_by_text("The control plane is busy: the search goes on in 5 s.")
    expect(told).to_be_visible()
    typed.press_sequentially("it")
    console.clock.run_for(3_000)
    assert busy.asked == 1
    busy.end()
    console.clock.run_for(2_500)
    expect(console.get_by_role("link", name="Audit events").last).to_be_visible()
    expect(console.locator("#command-results-list")).to_contain_text("Audit events")
    expect(told).to_have_count(0)
    page_problems.clear()
