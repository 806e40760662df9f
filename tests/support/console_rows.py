"""Rows and forms of the console's pages."""

from typing import Any

import pytest
from django.test import Client

from environments.models import (
    Environment,
    LiteLLMConnection,
    Organization,
    Role,
    TelemetrySettings,
    TemporalConnection,
)
from tests.support import factories
from tests.support.calls import start
from tests.support.console import REGISTERED, member, person
from tests.support.factories import Fleet
from tests.support.notifications import tell
from workers.models import Worker, WorkerQueue

each_model = pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model._meta.model_name)


def with_every_kind_of_row(fleet: Fleet) -> Fleet:
    factories.create_telemetry(fleet.organization)
    tell(fleet.organization)
    assert start(fleet, {"system_info": {"hostname": "host-of-the-fleet"}}).status_code == 200
    person(is_staff=True, is_superuser=True)
    member(fleet.organization, Role.VIEWER)
    return fleet


def request_of(client: Client) -> Any:
    return client.get("/admin/jsi18n/").wsgi_request  # the page that costs least


def new_row_like(row: Any) -> dict[str, Any]:
    """What a person types for a second row of the same name."""
    fields = {
        Organization: {"id": row.pk, "name": "Again"},
        Environment: {"organization": row.organization_id, "name": getattr(row, "name", "")},
        TelemetrySettings: {
            "organization": row.organization_id,
            "name": getattr(row, "name", ""),
            "otel_service_name": "s",
            "otel_traces_sampler": "always_on",
        },
    }
    more = {
        TemporalConnection: {"host": "a:7233", "namespace": "n", "requires_api_key": "on", "api_key": "k"},
        LiteLLMConnection: {"api_url": "https://a.example", "requires_api_key": "on", "api_key": "k"},
    }
    if isinstance(row, WorkerQueue):
        return {
            "environment": row.environment_id,
            "name": row.name,
            "heartbeat_interval": 60,
            "duplicate_policy": "allow",
        }
    if isinstance(row, Worker):
        return {"queue": row.queue_id, "name": row.name}
    if isinstance(row, TemporalConnection | LiteLLMConnection):
        return {"organization": row.organization_id, "name": row.name, **more[type(row)]}
    return fields[type(row)]
