"""Fixtures of a person who signed in, in a real Chromium."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.console_pages import sign_in
from tests.support.servers import ControlPlane


@pytest.fixture(scope="module")
def session(browser: Browser, control_plane: ControlPlane) -> Any:
    """The cookies of somebody who signed in."""
    context = browser.new_context()
    sign_in(context.new_page(), control_plane)
    cookies = context.cookies()
    context.close()
    return cookies


@pytest.fixture
def console(page: Page, control_plane: ControlPlane, session: Any) -> Page:
    """The console's first page after the login."""
    page.context.add_cookies(session)
    page.goto(f"{control_plane.url}/admin/")
    return page
