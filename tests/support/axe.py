"""Finds what keeps people with disabilities from using a page, with axe-core in a real browser."""

from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

#: Of each rule axe tells how grave its violations are: only those that are asserted are looked for, and only they are told.
GRAVE = """
async () => {
    const rules = axe._audit.rules.filter(rule =>
        rule.enabled && ['serious', 'critical'].includes(rule.impact) && !rule.tags.includes('experimental'));
    const found = await axe.run(document, {
        runOnly: {type: 'rule', values: rules.map(rule => rule.id)}, resultTypes: ['violations'],
    });
    return {count: rules.length, violations: found.violations};
}
"""
#: Fewer rules than these would mean that axe calls them otherwise by now.
RULES = 60
SOURCE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def problems_of(page: Page) -> list[str]:
    """The serious and critical violations on the page as it is once it has loaded, one line each; empty when there is none.

    The script goes in through the debugging protocol, to which the page's content security policy does not apply.
    """
    page.wait_for_load_state()
    page.evaluate(SOURCE)
    found = page.evaluate(GRAVE)
    assert found["count"] > RULES
    return [_line(rule, node) for rule in found["violations"] for node in rule["nodes"]]


def _line(rule: Any, node: Any) -> str:
    reasons = " ".join(check["message"] for kind in ("any", "all", "none") for check in node[kind])
    return f"{rule['impact']} {rule['id']} at {node['target']}: {reasons} {node['html'][:200]}"
