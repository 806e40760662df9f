"""A form that was opened before somebody else saved changes what its person changed, and nothing else."""

from typing import Any, NamedTuple

import pytest
from django.test import Client

from environments.models import AuditEvent, LiteLLMConnection, Organization, TelemetrySettings, TemporalConnection
from tests.support.console import post_confirmed, url
from tests.support.crawler import fields_of
from tests.support.factories import Fleet
from workers.models import NotificationTarget, Worker, WorkerQueue


class Row(NamedTuple):
    """A kind of row, what somebody else changes of it, and what the person of the older form does."""

    model: Any
    theirs: dict[str, Any]
    typed: dict[str, str]


DISABLED = {"is_disabled": True, "state_reason": "somebody's"}
ROWS = {
    "worker": Row(Worker, DISABLED, {"description": "mine"}),
    "queue": Row(WorkerQueue, {**DISABLED, "max_workers": 7}, {"description": "mine"}),
    "organization": Row(Organization, {"temporal_connection_id": None}, {"name": "mine"}),
    "Temporal": Row(TemporalConnection, {"namespace": "theirs", "is_tls_enabled": False}, {"name": "mine"}),
    "LiteLLM": Row(LiteLLMConnection, {"api_url": "https://theirs.example.com"}, {"name": "mine"}),
    "telemetry": Row(TelemetrySettings, {"otel_service_name": "theirs"}, {"name": "mine"}),
    "target": Row(NotificationTarget, {"is_enabled": False}, {"name": "mine"}),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_others_saved_meanwhile_stays(name: str, fleet: Fleet, client: Client) -> None:
    model, theirs, typed = ROWS[name]
    row = model.objects.filter(**({} if model is Organization else {"organization": fleet.organization})).first()
    page = url(model, "change", row.pk)
    opened = fields_of(client.get(page).content.decode(), f"{model._meta.model_name}_form")
    model.objects.filter(pk=row.pk).update(**theirs)
    before = AuditEvent.objects.count()
    answer = post_confirmed(client, page, opened | typed)
    assert answer.status_code == 302, answer.content.decode()
    row.refresh_from_db()
    assert {key: getattr(row, key) for key in theirs | typed} == theirs | typed
    (event,) = AuditEvent.objects.order_by("occurred_at")[before:]
    assert set(event.changes) == set(typed)
