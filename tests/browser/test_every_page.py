"""Every page that links of the console lead to, in both color schemes and on a phone."""

import re
from html import unescape
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.support import axe
from tests.support.console_pages import Fleet, save, visit
from tests.support.servers import ControlPlane

IDENTIFIER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=/)[0-9]+(?=/)")
#: Ends the login, and pages that are files or parts of pages.
LEFT_OUT = re.compile(r"/admin/(logout|jsi18n|search)/|/export/|\.csv$")
#: A notification target, something that stands, and a message about it.
TOLD = """
from environments.models import Organization
from tests.support.notifications import tell
tell(Organization.objects.get(pk="{}"))
"""
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}


def kind_of(path: str) -> str:
    """The address without what tells one row from another, as a page's rows are alike."""
    parts = IDENTIFIER.sub("*", path).split("/")
    # Organizations are known by name.
    return "/".join(
        "*" if before == "organization" and part != "add" else part
        for before, part in zip(["", *parts], parts, strict=False)
    )


def links_on(page: Page) -> list[str]:
    found = re.findall(r'href="([^"]*)"', page.content())
    paths = [urlsplit(unescape(link)).path for link in found]
    return [path for path in paths if path.startswith("/admin/") and not LEFT_OUT.search(path)]


@pytest.fixture(scope="module")
def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = Fleet(control_plane, tmp_path_factory.mktemp("every-page"))
    assert fleet.start(system_info={"hostname": "a-host", "pid": 7, "wide": "W" * 300}) == 200
    control_plane.manage("shell", "-c", TOLD.format(fleet.organization))
    return fleet


def test_every_page_can_be_used_by_everybody_in_both_color_schemes_and_fits_a_phone(
    console: Page, control_plane: ControlPlane, fleet: Fleet
) -> None:
    todo = [
        "/admin/",
        f"/admin/workers/worker/{fleet.worker_id}/change/",
        f"/admin/workers/worker/{fleet.worker_id}/boot/",
    ]
    seen: set[str] = set()
    problems: dict[str, list[str]] = {}
    while todo:
        path = todo.pop(0)
        if (kind := kind_of(path)) in seen:
            continue
        seen.add(kind)
        answer = console.goto(f"{control_plane.url}{path}")
        assert answer
        found = [] if answer.status == 200 else [f"it is answered {answer.status}"]
        for scheme in ("light", "dark"):
            # What a page does when it is loaded in this scheme.
            console.emulate_media(color_scheme=scheme)
            console.evaluate("isDark => document.documentElement.classList.toggle('dark', isDark)", scheme == "dark")
            found += [f"{scheme}: {problem}" for problem in axe.problems_of(console)]
        console.set_viewport_size(PHONE)
        if console.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found.append("it scrolls sideways on a phone")
        console.set_viewport_size(DESK)
        if found:
            problems[kind] = found
        todo += links_on(console)
    assert problems == {}
    assert len(seen) > 50, sorted(seen)


def test_the_question_whether_a_change_is_meant_can_be_used_by_everybody(
    console: Page, control_plane: ControlPlane, fleet: Fleet
) -> None:
    console.emulate_media(color_scheme="dark")
    visit(console, control_plane, f"workers/workerqueue/{fleet.queue_id}/change/")
    console.locator("#id_is_disabled").set_checked(True)
    save(console)
    expect(console.locator("#confirm-change")).to_be_visible()
    assert axe.problems_of(console) == []


def test_the_search_for_what_keeps_people_from_using_a_page_finds_it(page: Page) -> None:
    """The counterpart of the tests above."""
    page.set_content('<html lang="en"><title>Page</title><main><input><p style="color: #ccc">Pale</p></main></html>')
    found = " ".join(axe.problems_of(page))
    assert "critical label" in found
    assert "serious color-contrast" in found
