"""What `deploy/` has monitoring ask for is what the service tells."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from controlplane.monitoring.metrics import OUTCOMES, UNOPENED, counting, exposition
from controlplane.monitoring.requests import CALLS
from tests.support.calls import fresh_fleet
from tests.support.processes import ROOT
from workers.models import Liveness, Lookout, QueueObservation, Sweep

DEPLOY = ROOT / "deploy"
SELECTOR = re.compile(r"\b(controlplane_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
#: Every value of the labels that have a few.
VALUES = {
    "outcome": {*OUTCOMES.values(), "invalid"},
    "call": {*CALLS.values(), "api", "console", "other"},
    "liveness": {liveness.lower().replace(" ", "_") for liveness in Liveness},
    "key": {"active", "older"},
    "work": {"not_polling", "cut_off"},
    "state": {"waiting", "delivered", "given_up"},
    "expires": {"expired", "1d", "3d", "10d", "20d", "30d", "later", "never"},
}


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"])


def expressions() -> list[str]:
    return [rule["expr"] for rule in alerts()] + [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.fixture
def told(db: None, settings: Settings, tmp_path: Path) -> dict[str, set[str]]:
    """Every metric that the service tells, with its labels."""
    fleet, now = fresh_fleet(), timezone.now()
    seen = {"id": fleet.queue.pk, "queue": fleet.queue, "organization": fleet.organization, "backlog": 0}
    QueueObservation.objects.create(asked_at=now, observed_at=now, **seen)
    Sweep.objects.create(finished_at=now)
    Lookout.objects.create(finished_at=now)
    UNOPENED.inc(0)
    for call in VALUES["call"]:
        counting(call, 200)(0.01)
    families = text_string_to_metric_families(exposition().decode())
    samples = [sample for family in families for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


def test_every_metric_and_label_that_is_asked_for_is_told(told: dict[str, set[str]]) -> None:
    asked = [found for expression in expressions() for found in SELECTOR.findall(expression)]
    assert len(asked) > 20
    for name, matchers in asked:
        assert name in told
        for label, values in MATCHER.findall(matchers):
            assert label in told[name], (name, label)
            known = VALUES.get(label)
            assert known is None or set(values.split("|")) <= known, (name, label, values)


def test_every_metric_that_is_told_is_watched_or_shown(told: dict[str, set[str]]) -> None:
    text = " ".join(expressions())
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in told}
    assert {family for family in families if family not in text} == set()


def test_every_metric_that_is_told_is_explained_with_its_labels(told: dict[str, set[str]]) -> None:
    page = (ROOT / "docs" / "operate" / "monitoring.md").read_text()
    table = dict(re.findall(r"^\| `(controlplane_\w+)` \|([^|]*)\|", page, re.MULTILINE))
    explained = {name: set(re.findall(r"\w+", labels)) for name, labels in table.items()}
    kept = {name: labels for name, labels in told.items() if not name.endswith(("_created", "_bucket", "_sum"))}
    assert explained == {name.removesuffix("_count"): labels for name, labels in kept.items()}


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 8


def test_every_panel_of_the_dashboard_asks_for_something_and_stands_alone() -> None:
    places = [tuple(panel["gridPos"][name] for name in "xywh") for panel in panels()]
    assert len(places) == len(set(places)) > 8
    cells = [(column, row) for x, y, w, h in places for column in range(x, x + w) for row in range(y, y + h)]
    assert len(cells) == len(set(cells)), "two panels overlap"
    assert all(panel["targets"] for panel in panels())
