"""Applies fleets' documents, and compares whole databases."""

from pathlib import Path
from typing import Any

from django.utils import timezone

from environments.audit import Actor
from tests.support.tables import stored
from workers.fleet import Applied, Change, apply_document
from workers.models import Refusal, RefusedStart

TEMPORAL_SECRET = "temporal-key-2b7e1516"
LITELLM_SECRET = "litellm-key-28aed2a6"
ENVIRON = {"TEMPORAL_API_KEY": TEMPORAL_SECRET, "LITELLM_API_KEY": LITELLM_SECRET}

ACME = """\
organizations:
  - id: acme
    name: Acme
    temporal_connection: cloud
    litellm_connection: gateway
    telemetry_settings: standard
    temporal_connections:
      - {name: cloud, host: "acme.tmprl.cloud:7233", namespace: acme.prod, api_key: {env: TEMPORAL_API_KEY}}
    litellm_connections:
      - {name: gateway, api_url: "https://llm.acme.example", api_key: {env: LITELLM_API_KEY}}
    all_telemetry_settings:
      - {name: standard, otel_exporter_otlp_endpoint: "https://otel.acme.example", otel_traces_sampler_arg: 0.5}
    environments:
      - name: production
        description: Where it counts
        worker_queues:
          - name: default
            heartbeat_interval: 30
            workers:
              - {name: w1, id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff}
              - {name: w2, is_disabled: true}
"""
#: Objects that ACME names.
ACME_SIZE = 8


def apply(text: str, **options: Any) -> list[Change]:
    """The changes; in errors the document is called fleet.yaml."""
    return apply_all(text, **options).changes


def apply_all(text: str, **options: Any) -> Applied:
    """The changes, and what they do."""
    arguments: dict[str, Any] = {
        "source": "fleet.yaml",
        "directory": Path(__file__).parent,
        "actor": Actor("command:apply"),
        "now": timezone.now(),
        "environ": ENVIRON,
    }
    return apply_document(text, **arguments | options)


def told(changes: list[Change]) -> list[str]:
    """Each change as `action kind name`."""
    return [f"{change.action} {change.kind} {change.name}" for change in changes]


def everything() -> dict[str, list[Any]]:
    """All rows of all tables, but for those that tell of refused starts, and of what there is to be allowed."""
    return stored(Refusal, RefusedStart)
