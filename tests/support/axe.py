"""Finds what keeps people with disabilities from using a page, with axe-core in a real browser."""

from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

SOURCE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
IMPACTS = {"serious", "critical"}


def problems_of(page: Page) -> list[str]:
    """The serious and critical violations on the page as it is once it has loaded, one line each; empty when there is none.

    The script goes in through the debugging protocol, to which the page's content security policy does not apply.
    """
    page.wait_for_load_state()
    page.evaluate(SOURCE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [_line(rule, node) for rule in found["violations"] if rule["impact"] in IMPACTS for node in rule["nodes"]]


def _line(rule: Any, node: Any) -> str:
    reasons = " ".join(check["message"] for kind in ("any", "all", "none") for check in node[kind])
    return f"{rule['impact']} {rule['id']} at {node['target']}: {reasons} {node['html'][:200]}"
