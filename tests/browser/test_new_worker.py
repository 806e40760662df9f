"""A person makes a worker, copies how to start it, starts it, and watches it come up on the same page."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.console_pages import Fleet, choose, save, start, visit
from tests.support.servers import ControlPlane

SHORT = 30


@pytest.fixture
def page(page: Page, session: Any) -> Page:
    """The page of somebody who signed in."""
    page.context.add_cookies(session)
    return page


@pytest.fixture
def foreign(control_plane: ControlPlane, tmp_path: Path) -> Fleet:
    """Another organization with a key."""
    return Fleet(control_plane, tmp_path)


def copied(page: Page, kind: str) -> str:
    """What a button puts on the clipboard."""
    title = {"shell": "Shell", "python": "Python"}[kind]
    if not page.locator(f"#command-{kind}").is_visible():
        page.locator("summary", has_text=title).click()
    page.get_by_role("button", name=f"Copy the text for {title}").click()
    expect(page.get_by_role("button", name=f"Copy the text for {title}")).to_have_text("Copied")
    text: str = page.evaluate("navigator.clipboard.readText()")
    assert text == page.locator(f"#command-{kind}").text_content()
    return text


def expect_steps(page: Page, **states: str) -> None:
    for name, state in states.items():
        expect(page.locator(f"[data-step={name}]")).to_have_attribute("data-state", state)


@contextmanager
def running(*command: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A program, which ends well when it is told to."""
    given = {**os.environ, **environ}
    with subprocess.Popen(command, env=given, text=True, stdout=subprocess.PIPE) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()
    assert process.returncode == 0


def test_a_person_makes_a_worker_and_watches_its_first_boot(
    page: Page, control_plane: ControlPlane, foreign: Fleet, screenshot: Callable[[str], None]
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, control_plane, "workers/worker/add/")
    plane = control_plane
    choose(page, "queue", f"{plane.organization_id}.{plane.environment}.{plane.queue}")
    page.locator("#id_name").fill(f"new-{secrets.token_hex(4)}")
    page.locator("#id_labels").fill("gpu, rack-7")
    screenshot("new-worker")
    save(page)

    expect(page.get_by_text("it is not shown again")).to_be_visible()
    api_key, worker_id = page.locator("#api-key").inner_text(), page.locator("#worker-id").inner_text()
    expect_steps(page, key="Waiting", start="Waiting", heartbeat="Waiting", polling="Waiting")
    page.evaluate("window.isTheSamePage = true")

    assert start(plane, worker_id, foreign.api_key)[0] == 404
    expect(page.get_by_text("A key of another organization was used.")).to_be_visible()
    expect_steps(page, key="Failed", start="Waiting")

    with running("sh", "-c", copied(page, "shell")) as process:
        expect_steps(page, key="Done", start="Done", heartbeat="Done")
        screenshot("worker-created")
        assert process.stdout
        assert process.stdout.readline().startswith(f"Started as worker {worker_id}")
    with running(sys.executable, "-u", "-c", copied(page, "python"), API_KEY=api_key) as process:
        assert process.stdout
        assert process.stdout.readline().startswith(f"Started as worker {worker_id}")
        expect_steps(page, key="Done", start="Done", heartbeat="Done")
    assert page.evaluate("window.isTheSamePage")

    page.get_by_role("link", name="This checklist on a page of its own").click()
    expect_steps(page, key="Done", start="Done", heartbeat="Done", polling="Done")
    assert api_key not in page.content()

    issued = plane.manage("issue_api_key", "--worker", worker_id, "--name", "short", "--format", "json")
    revoked = json.loads(issued.stdout)
    plane.manage("revoke_api_key", revoked["id"], "--reason", "leaked")
    assert start(plane, worker_id, revoked["api_key"])[0] == 401
    expect(page.get_by_text("This API key is revoked.")).to_be_visible()
    expect_steps(page, key="Failed")
    screenshot("first-boot")
