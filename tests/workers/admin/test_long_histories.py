"""A page reads a few rows of a history, however long that is: what PostgreSQL looks at for each statement is counted."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from environments.admin import console, paginator
from environments.models import AuditEvent, LiteLLMConnection, TemporalConnection
from tests.support.calls import fresh_fleet, start
from tests.support.console import person, signed_in, url
from tests.support.factories import Fleet
from tests.support.plans import rows_read
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

#: Rows of each history, and how many of them a statement may look at: a key's page tells of its latest 1,000 starts.
LENGTH, MOST = 5_000, 2_200
LONG_AGO = timedelta(days=60)


@pytest.fixture
def fleet(db: None, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A worker that was restarted without end, whose connection was verified and which was edited as often."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite does not tell how many rows it looked at")
    monkeypatch.setattr(paginator, "MOST_ROWS", 100)
    monkeypatch.setattr(console, "MOST_SEARCHED", 100)
    person(is_staff=True, is_superuser=True)
    fleet = fresh_fleet()
    assert start(fleet, {"system_info": {"hostname": "a", "pid": 1}}).status_code == 200
    (first,), (process,) = WorkerStart.objects.all(), WorkerInstance.objects.all()
    moments = [timezone.now() - LONG_AGO - timedelta(minutes=number) for number in range(LENGTH)]
    ids = [uuid4() for _ in moments]
    WorkerStart.objects.bulk_create(
        WorkerStart(**_values(first) | {"id": pk, "started_at": at}) for pk, at in zip(ids, moments, strict=True)
    )
    past = {"is_current": False, "queue_id": None}
    WorkerInstance.objects.bulk_create(
        WorkerInstance(**_values(process) | past | {"id": pk, "started_at": at, "last_heartbeat_at": at})
        for pk, at in zip(ids, moments, strict=True)
    )
    organization = fleet.organization
    AuditEvent.objects.bulk_create(
        AuditEvent(organization=organization, occurred_at=at, actor="user:ada", action="x.verified", object_id=row.pk)
        for row in (fleet.worker, fleet.temporal, fleet.api_key)
        for at in moments
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        cursor.execute("SET LOCAL enable_seqscan = off")  # is there an index at all? these tables are small
    return fleet


def _values(row: Any) -> dict[str, Any]:
    return {each.attname: getattr(row, each.attname) for each in row._meta.concrete_fields}


def looked_at(client: Client, address: str) -> dict[str, int]:
    """How many rows each of the page's statements looked at."""
    statements: dict[str, Any] = {}

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("SELECT") and "FOR " not in sql[-40:]:
            statements[sql] = params
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        assert client.get(address).status_code == 200, address
    found = {}
    with connection.cursor() as cursor:
        for sql, params in statements.items():
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
            (answer,) = cursor.fetchone() or ()
            (plan,) = json.loads(answer) if isinstance(answer, str) else answer
            found[sql] = rows_read(plan["Plan"])
    return found


def test_no_page_looks_at_all_of_a_long_history(fleet: Fleet) -> None:
    client = signed_in()
    worker, key, (latest, *_) = fleet.worker, fleet.api_key, WorkerStart.objects.order_by("-started_at")[:1]
    addresses = [
        url(Worker, "change", worker.pk),
        f"{url(Worker, 'change', worker.pk)}?part=overview",
        url(Worker, "boot", worker.pk),
        url(Worker, "boot_steps", worker.pk),
        url(Worker, "history", worker.pk),
        url(WorkerQueue, "change", fleet.queue.pk),
        url(TemporalConnection, "change", fleet.temporal.pk),
        url(LiteLLMConnection, "change", fleet.litellm.pk),
        url(WorkerStart, "change", latest.pk),
        "/admin/",
        "/admin/?period=7d",
        "/admin/workers/apikey/calendar/",
        *(url(model, "changelist") for model in (Worker, WorkerQueue, WorkerStart, WorkerInstance, AuditEvent)),
        f"{url(WorkerStart, 'changelist')}?worker={worker.pk}",
        f"{url(WorkerInstance, 'changelist')}?worker={worker.pk}",
        f"{url(AuditEvent, 'changelist')}?object_id={worker.pk}",
        *(f"{url(model, 'changelist')}?q=nothing-is-called-so" for model in (WorkerStart, WorkerInstance, AuditEvent)),
        *(f"{url(model, 'changelist')}?q={worker.pk}" for model in (WorkerStart, WorkerInstance, AuditEvent)),
        *(f"{url(model, 'changelist')}?o=2.3" for model in (WorkerStart, WorkerInstance, AuditEvent)),
        url(ApiKey, "changelist"),
        url(ApiKey, "change", key.pk),
        url(ApiKey, "revoke", key.pk),
    ]
    beyond = {
        address: {sql[-300:]: count for sql, count in found.items() if count > MOST}
        for address in addresses
        if (found := looked_at(client, address))
    }
    assert {address: found for address, found in beyond.items() if found} == {}
