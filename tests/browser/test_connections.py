"""A person adds connections, verifies them before and after saving, replaces a secret, and sees it reach the workers.

LiteLLM is a server on this machine; Temporal is a real one. The `page` fixture fails the test for any script error,
console error, violation of the content security policy or foreign address.
"""

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.console_pages import Fleet, choose, id_on, save, saved, visit
from tests.support.gateways import Gateway
from tests.support.servers import ControlPlane, TemporalServer


@pytest.fixture
def page(page: Page, session: Any) -> Page:
    """The page of somebody who signed in."""
    page.context.add_cookies(session)
    return page


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    yield server
    server.stop()


@pytest.fixture
def fleet(control_plane: ControlPlane, tmp_path: Path) -> Fleet:
    return Fleet(control_plane, tmp_path)


def verify_typed(page: Page, outcome: str) -> None:
    """Presses the button and sees the answer beside it."""
    page.get_by_role("button", name="Verify what is typed").click()
    expect(page.get_by_role("status")).to_contain_text(outcome)


def confirm(page: Page) -> None:
    """Saves, is asked whether that is meant, and says yes."""
    save(page)
    expect(page.get_by_text("What it does")).to_be_visible()
    page.get_by_role("button", name="Save the change").click()
    expect(page.get_by_text("was changed successfully")).to_be_visible()


def test_a_secret_is_verified_replaced_and_seen_to_reach_the_workers(  # one walk  # noqa: PLR0915
    page: Page, control_plane: ControlPlane, fleet: Fleet, gateway: Gateway, screenshot: Callable[[str], None]
) -> None:
    first, second = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    gateway.keys = {first, second}

    visit(page, control_plane, "environments/litellmconnection/add/")
    verify_typed(page, "Organization: This field is required.")
    choose(page, "organization", fleet.organization)
    page.locator("#id_api_url").fill("http://169.254.169.254/latest")
    page.locator("#id_api_key").fill(first)
    verify_typed(page, "The control plane never connects to 169.254.169.254")
    page.locator("#id_api_url").fill(gateway.url)
    expect(page.get_by_role("status")).to_be_empty()
    page.locator("#id_api_key").fill("sk-wrong")
    verify_typed(page, "The API key is not accepted (401).")
    page.locator("#id_api_key").fill(first)
    verify_typed(page, "LiteLLM 1.80.5")
    screenshot("connection-typed")
    page.locator("#id_name").fill("own")
    expect(page.get_by_role("status")).to_be_empty()
    verify_typed(page, "LiteLLM 1.80.5")
    saved(page, "LiteLLM connection")

    page.get_by_role("link", name="own").first.click()
    path = f"environments/litellmconnection/{id_on(page)}/change/"
    state = page.locator("#connection-state")
    expect(state).to_contain_text(re.compile(r"version 1.*ok", re.DOTALL))
    assert gateway.shown == ["sk-wrong", first, first]
    page.locator("#verify").get_by_role("button", name="Verify").click()
    expect(page.get_by_text("Verified in")).to_be_visible()

    visit(page, control_plane, f"environments/organization/{fleet.organization}/change/")
    choose(page, "litellm_connection", f"{fleet.organization}/own")
    confirm(page)
    assert fleet.start(system_info={"hostname": "one", "pid": 1}) == 200

    visit(page, control_plane, path)
    expect(page.locator("#users")).to_contain_text(fleet.organization)
    page.locator("#id_api_url").fill(f"{gateway.url}/v1")
    verify_typed(page, "Type the API key to verify another endpoint")
    page.locator("#id_api_url").fill(gateway.url)
    page.locator("#id_api_key").fill(second)
    verify_typed(page, "LiteLLM 1.80.5")
    confirm(page)

    visit(page, control_plane, path)
    expect(state).to_contain_text(re.compile(r"version 2.*ok", re.DOTALL))
    retirement = page.locator("#retirement")
    expect(retirement).to_contain_text("1 live worker still runs on version 1: restart it")
    screenshot("rotation-wave")
    page.locator("#wave").get_by_role("link").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    expect(page.locator("#result_list")).to_contain_text("one")

    goodbye = {"reason": "deploy", "system_info": {"hostname": "one", "pid": 1}}
    path_to, headers = f"/api/v1/workers/{fleet.worker_id}/disconnect", {"Authorization": f"Bearer {fleet.api_key}"}
    assert control_plane.request("POST", path_to, json=goodbye, headers=headers)[0] == 204
    assert fleet.start(system_info={"hostname": "two", "pid": 2}) == 200
    visit(page, control_plane, path)
    expect(retirement).to_contain_text("Version 1 can be retired: no live worker runs on it.")
    assert not {first, second, "sk-wrong"} & set(re.findall(r"[\w-]{8,}", page.content()))
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_real_temporal_is_verified_before_it_is_saved_and_after(
    page: Page, control_plane: ControlPlane, fleet: Fleet, temporal_server: TemporalServer
) -> None:
    visit(page, control_plane, "environments/temporalconnection/add/")
    choose(page, "organization", fleet.organization)
    page.locator("#id_name").fill("real")
    page.locator("#id_host").fill(temporal_server.host)
    page.locator("#id_namespace").fill("nosuch")
    page.locator("#id_is_tls_enabled").set_checked(False)
    page.locator("#id_requires_api_key").set_checked(False)
    verify_typed(page, "Temporal has no namespace nosuch.")
    page.locator("#id_namespace").fill(temporal_server.namespace)
    verify_typed(page, "Verified in")
    saved(page, "Temporal connection")
    page.get_by_role("link", name="real").first.click()
    expect(page.locator("#connection-state")).to_contain_text("ok")
    page.locator("#verify").get_by_role("button", name="Verify").click()
    expect(page.get_by_text("Verified in")).to_be_visible()
