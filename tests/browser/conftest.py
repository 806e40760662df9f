"""One Chromium for all modules here, and somebody who signed in with it."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import chromium
from tests.support.console_pages import sign_in
from tests.support.servers import ControlPlane


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="package")
def session(browser: Browser, control_plane: ControlPlane) -> Any:
    """The cookies of somebody who signed in."""
    context = browser.new_context()
    sign_in(context.new_page(), control_plane)
    cookies = context.cookies()
    context.close()
    return cookies


@pytest.fixture
def console(page: Page, session: Any) -> Page:
    """The page of somebody who signed in, who has looked at nothing yet."""
    page.context.add_cookies(session)
    return page
