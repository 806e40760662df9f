"""Fixtures that drive a real Chromium through the control plane, as a person would.

While Playwright's synchronous API is in use an asyncio loop runs in the test's thread, where Django refuses to use its
ORM and `asyncio.run` fails. So browser tests see the control plane over HTTP, as a process of its own, `control_plane`.
They lie in tests/browser, where one process runs them all with one browser, which ends with them lest the loop reach the
next test.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.support.processes import ROOT

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
TIMEOUT_MILLISECONDS = 15_000
#: Asks for the pictures, with any value: nothing is asserted of them, and each takes a third of a second.
SCREENSHOTS = "TEST_SCREENSHOTS"
#: Bytes; the path of a socket has at most 107, of which Chromium and we add 58.
MAX_TEMPORARY_DIRECTORY = 49


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks the tests with a browser, so that a run can leave them out, and keeps them in one process."""
    if "browser" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.browser)
        item.add_marker(pytest.mark.xdist_group("browser"))


@contextmanager
def chromium(home: Path) -> Generator[Browser]:
    """A headless Chromium from the system's packages, with a home directory of its own."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert program, f"None of {', '.join(PROGRAMS)} is installed."
    # Chromium's own sandbox does not work for root.
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with _directory_for_sockets() as sockets, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=arguments, env={**os.environ, "HOME": str(home), "TMPDIR": sockets}
        )
        yield browser
        browser.close()


@pytest.fixture
def page_problems() -> list[str]:
    """What went wrong in the page so far; a test that provokes a problem checks it and clears the list."""
    return []


@pytest.fixture
def page(browser: Browser, page_problems: list[str]) -> Generator[Page]:
    """A page without cookies; fails the test for any script error, console error, CSP violation or foreign address."""

    def note_message(message: ConsoleMessage) -> None:
        # Chromium reports violations of the content security policy as console errors.
        if message.type == "error":
            page_problems.append(f"console: {message.text} ({message.location.get('url')})")

    def note_request(request: Request) -> None:
        if urlsplit(request.url).hostname not in {None, "127.0.0.1", "localhost"}:
            page_problems.append(f"request: {request.url} is not on this machine")

    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(TIMEOUT_MILLISECONDS)
    context.on("console", note_message)
    context.on("weberror", lambda problem: page_problems.append(f"script: {problem.error}"))
    context.on("request", note_request)
    yield context.new_page()
    context.close()
    assert not page_problems, "\n".join(page_problems)


@pytest.fixture
def screenshot(page: Page) -> Callable[[str], None]:
    """A function that waits for the page and saves all of it as `var/screenshots/<name>.png` if pictures are wanted.

    `TEST_SCREENSHOTS=yes` says that they are.
    """

    def save(name: str) -> None:
        # A click waits for the next page to begin, not for it to be there.
        page.wait_for_load_state()
        if SCREENSHOTS not in os.environ:
            return
        path = ROOT / "var" / "screenshots" / f"{name}.png"
        window = page.viewport_size
        assert window
        # As high as the page: what sticks to the window's edges would lie across the middle of it.
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": window["width"], "height": max(height, window["height"])})
        page.screenshot(path=path, full_page=True)
        page.set_viewport_size(window)

    return save


def _directory_for_sockets() -> tempfile.TemporaryDirectory[str]:
    """A directory for Chromium's socket, in /tmp if the path of the usual one is too long."""
    is_too_long = len(os.fsencode(tempfile.gettempdir())) > MAX_TEMPORARY_DIRECTORY
    return tempfile.TemporaryDirectory(dir="/tmp" if is_too_long else None)  # noqa: S108
