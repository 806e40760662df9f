"""A person at the console, in a real Chromium."""

import json
import re
import secrets
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.support.servers import ControlPlane

FLEET = """
organizations:
  - id: {id}
    name: Browser
    temporal_connection: cloud
    litellm_connection: gateway
    temporal_connections:
      - {{name: cloud, host: "temporal.example.com:7233", namespace: n, api_key: {{file: secret}}}}
      - {{name: narrow, host: "narrow.example.com:7233", namespace: n, api_key: {{file: secret}}}}
    litellm_connections:
      - {{name: gateway, api_url: "https://llm.example.com", api_key: {{file: secret}}}}
    environments:
      - name: production
        worker_queues:
          - {{name: default, temporal_connection: narrow, workers: [{{name: first}}]}}
"""


#: What a worker may tell of itself, and what it must not do to the page.
HOSTILE = {
    "hostname": "<div x-init=alert(1)>host</div>",
    "script": "</script><script>alert(2)</script>",
    "attribute": '" onmouseover="alert(3)" x-data="{a: alert(4)}" \'',
    "pre": "</pre><img src=x onerror=alert(5)>",
    "template": "{{ 7 * 7 }} {% now %} ${alert(6)}",
    "bidi": "\u202egnp.exe\u2066\u200b\ufeff",
    "long": "W" * 4_096,
    "wide": "\U0001f980" * 1_000,
    "<b x-text=alert(7)>": {"nested": [None, True, 1.5, "\x7f\u2028"]},
    "link": "javascript:alert(8)",
}


def sign_in(page: Page, plane: ControlPlane, password: str = "") -> None:
    page.goto(f"{plane.url}/admin/")
    page.get_by_label("Username").fill(plane.admin_username)
    page.get_by_label("Password").fill(password or plane.admin_password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_load_state()


class Fleet:
    """An organization with one worker and a key for it, made by commands."""

    def __init__(self, plane: ControlPlane, directory: Path) -> None:
        self.plane = plane
        self.organization = f"org-{secrets.token_hex(4)}"
        self.secret = secrets.token_urlsafe(24)
        (directory / "secret").write_text(self.secret)
        (directory / "fleet.yaml").write_text(FLEET.format(id=self.organization))
        plane.manage("apply", str(directory / "fleet.yaml"))
        worker = self.rows("workers.worker")[0]
        self.worker_id, self.queue_id = worker["pk"], worker["fields"]["queue"]
        issued = plane.manage("issue_api_key", "--worker", self.worker_id, "--name", "first", "--format", "json")
        self.key_id, self.api_key = (json.loads(issued.stdout)[name] for name in ("id", "api_key"))

    def rows(self, model: str) -> list[dict[str, Any]]:
        rows = json.loads(self.plane.manage("dumpdata", model).stdout)
        return [row for row in rows if row["fields"].get("organization") == self.organization]

    def start(self, api_key: str = "", system_info: Any = None) -> int:
        return start(self.plane, self.worker_id, api_key or self.api_key, system_info)[0]


def start(plane: ControlPlane, worker_id: str, api_key: str, system_info: Any = None) -> tuple[int, dict[str, Any]]:
    path, headers = f"/api/v1/workers/{worker_id}/start", {"Authorization": f"Bearer {api_key}"}
    status, _, body = plane.request("POST", path, json={"system_info": system_info or {}}, headers=headers)
    return status, json.loads(body)


def visit(page: Page, plane: ControlPlane, path: str) -> None:
    page.goto(f"{plane.url}/admin/{path}")


def choose(page: Page, field: str, text: str) -> None:
    """Picks an entry of a select box that searches as one types, by the words of its text."""
    page.locator(f"#id_{field} + .select2-container").click()
    page.locator(".select2-container--open .select2-search__field").fill(re.sub(r"[/.]", " ", text))
    page.locator(".select2-container--open [role=option][aria-selected]", has_text=text).first.click()
    expect(page.locator(f"#id_{field} + .select2-container")).to_contain_text(text)


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()


def confirm(page: Page, *told: str) -> None:
    """Reads what a change does to the fleet, and says yes to it."""
    for text in ("Nothing is saved yet", *told):
        expect(page.locator("#confirm-change")).to_contain_text(text)
    page.get_by_role("button", name="Save the change").click()


def saved(page: Page, kind: str, *, told: tuple[str, ...] | None = None) -> None:
    """Saves and sees the message that it was; with `told`, says yes to the page that tells these effects first."""
    save(page)
    if told is not None:
        confirm(page, *told)
    expect(page.get_by_text(re.compile(rf"The {kind} .* was (added|changed) successfully"))).to_be_visible()


def id_on(page: Page) -> str:
    return page.url.rstrip("/").split("/")[-2]
