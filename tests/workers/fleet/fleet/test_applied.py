"""What applying a document makes, and what running it again does."""

import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments import audit
from environments.encryption import Secret
from environments.models import (
    AuditEvent,
    Environment,
    LiteLLMConnection,
    Organization,
    TelemetrySettings,
    TemporalConnection,
)
from environments.sealing.data_keys import open_api_key
from tests.support.documents import ACME, ACME_SIZE, ENVIRON, LITELLM_SECRET, TEMPORAL_SECRET, apply, everything, told
from tests.support.fleet_documents import ACTOR, begin, changed
from workers.api_keys.issuing import issue_api_key
from workers.fleet import Action
from workers.models import Worker, WorkerQueue

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db]


def test_creates_everything_that_the_document_names() -> None:
    assert changed(ACME) == [
        "created organization acme",
        "created temporal_connection acme/cloud",
        "created litellm_connection acme/gateway",
        "created telemetry_settings acme/standard",
        "created environment acme/production",
        "created worker_queue acme/production/default",
        "created worker acme/production/default/w1",
        "created worker acme/production/default/w2",
    ]
    organization = Organization.objects.get()
    assert organization.name == "Acme"
    assert organization.temporal_connection == TemporalConnection.objects.get(name="cloud", namespace="acme.prod")
    assert organization.litellm_connection == LiteLLMConnection.objects.get(api_url="https://llm.acme.example")
    assert organization.telemetry_settings == TelemetrySettings.objects.get(otel_traces_sampler_arg=0.5)
    assert Environment.objects.get().description == "Where it counts"
    assert WorkerQueue.objects.get().heartbeat_interval == 30
    assert {worker.name: worker.is_disabled for worker in Worker.objects.all()} == {"w1": False, "w2": True}


def test_a_worker_keeps_the_id_of_the_document() -> None:
    apply(ACME)
    assert Worker.objects.get(name="w1").pk == uuid.UUID("6f9619ff-8b86-4d01-b42d-00cf4fc964ff")


def test_secrets_are_sealed_and_open_to_what_was_named() -> None:
    apply(ACME)
    assert open_api_key(TemporalConnection.objects.get()) == Secret(TEMPORAL_SECRET)
    assert open_api_key(LiteLLMConnection.objects.get()) == Secret(LITELLM_SECRET)


def test_a_worker_of_an_applied_fleet_starts() -> None:
    apply(ACME)
    key = issue_api_key(Organization.objects.get(), name="all", actor=ACTOR, now=timezone.now()).row
    assert begin(Worker.objects.get(name="w1"), key).temporal_host == "acme.tmprl.cloud:7233"


def test_every_level_can_point_to_connections() -> None:
    text = ACME.replace("description: Where it counts", "temporal_connection: cloud")
    text = text.replace("heartbeat_interval: 30", "litellm_connection: gateway")
    apply(text.replace("w2, is_disabled: true", "w2, telemetry_settings: standard"))
    assert Environment.objects.get().temporal_connection == TemporalConnection.objects.get()
    assert WorkerQueue.objects.get().litellm_connection == LiteLLMConnection.objects.get()
    assert Worker.objects.get(name="w2").telemetry_settings == TelemetrySettings.objects.get()


def test_a_pointer_may_name_a_connection_that_only_the_database_has() -> None:
    apply(ACME)
    text = "organizations: [{id: acme, environments: [{name: staging, temporal_connection: cloud}]}]"
    assert changed(text) == ["created environment acme/staging"]
    assert Environment.objects.get(name="staging").temporal_connection == TemporalConnection.objects.get()


def test_each_object_has_one_audit_event_that_tells_what_was_set() -> None:
    now = timezone.now()
    changes = apply(ACME, now=now)
    events = {event.object_id: event for event in AuditEvent.objects.all()}
    assert AuditEvent.objects.count() == len(changes) == ACME_SIZE
    for change in changes:
        event = events[change.id]
        assert (event.action, event.actor) == (f"{change.kind}.created", "command:apply")
        assert (event.occurred_at, event.organization_id) == (now, "acme")
    assert events["acme"].changes["temporal_connection"] == [None, str(TemporalConnection.objects.get().pk)]
    queue = WorkerQueue.objects.get()
    assert events[str(queue.pk)].changes == audit.difference({}, audit.snapshot(queue))


def test_a_second_run_changes_nothing_and_writes_nothing() -> None:
    apply(ACME)
    before = everything()
    assert apply(ACME) == []
    assert apply(ACME, prune=True) == []
    assert everything() == before


def test_only_what_differs_is_updated() -> None:
    apply(ACME)
    (change,) = apply(ACME.replace("heartbeat_interval: 30", "heartbeat_interval: 45"))
    assert str(change) == "updated worker_queue acme/production/default: heartbeat_interval 30 -> 45"
    event = AuditEvent.objects.get(action="worker_queue.updated")
    assert event.changes == {"heartbeat_interval": [30, 45]}
    assert WorkerQueue.objects.get().heartbeat_interval == 45


def test_fields_that_are_left_out_keep_their_values() -> None:
    apply(ACME)
    text = "organizations: [{id: acme, environments: [{name: production, worker_queues: [{name: default}]}]}]"
    assert apply(text) == []
    assert Organization.objects.get().name == "Acme"
    assert WorkerQueue.objects.get().heartbeat_interval == 30


def test_null_clears_a_pointer() -> None:
    apply(ACME)
    (change,) = apply(ACME.replace("telemetry_settings: standard", "telemetry_settings: null"))
    assert str(change) == 'updated organization acme: telemetry_settings "standard" -> null'
    assert Organization.objects.get().telemetry_settings is None


def test_null_clears_a_field_that_may_be_empty() -> None:
    apply(ACME)
    apply(ACME.replace("otel_traces_sampler_arg: 0.5", "otel_traces_sampler_arg: null"))
    assert TelemetrySettings.objects.get().otel_traces_sampler_arg is None


def test_a_replaced_secret_is_told_by_fingerprint_and_the_same_one_is_not_told() -> None:
    apply(ACME)
    old = TemporalConnection.objects.get()
    (change,) = apply(ACME, environ=ENVIRON | {"TEMPORAL_API_KEY": "another-key"})
    new = TemporalConnection.objects.get()
    assert change.action is Action.UPDATED
    assert change.fields == {"api_key": [old.api_key_fingerprint, new.api_key_fingerprint]}
    assert f"api_key replaced (fingerprint {old.api_key_fingerprint} -> {new.api_key_fingerprint})" in str(change)
    assert open_api_key(new) == Secret("another-key")
    assert new.api_key_version == old.api_key_version + 1


def test_an_update_without_api_key_keeps_the_secret() -> None:
    apply(ACME)
    apply(ACME.replace(", api_key: {env: TEMPORAL_API_KEY}", "").replace("acme.prod", "acme.test"))
    assert TemporalConnection.objects.get().namespace == "acme.test"
    assert open_api_key(TemporalConnection.objects.get()) == Secret(TEMPORAL_SECRET)


def test_a_worker_named_by_id_can_be_renamed_and_moved() -> None:
    apply(ACME)
    moved = """
          - name: other
            workers: [{name: moved, id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff}]
"""
    text = ACME.replace("              - {name: w1, id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff}\n", "").rstrip() + moved
    assert changed(text) == [
        "created worker_queue acme/production/other",
        "updated worker acme/production/other/moved",
    ]
    assert Worker.objects.get(queue__name="other").pk == uuid.UUID("6f9619ff-8b86-4d01-b42d-00cf4fc964ff")
    assert changed(text, prune=True) == []


def test_only_the_fields_that_differ_are_written_so_that_another_edit_meanwhile_is_kept() -> None:
    apply(ACME)
    with CaptureQueriesContext(connection) as queries:
        apply(ACME.replace("heartbeat_interval: 30", "heartbeat_interval: 45"))
    (update,) = [query["sql"] for query in queries if query["sql"].startswith("UPDATE")]
    assert update.startswith('UPDATE "workers_workerqueue" SET "heartbeat_interval" = 45 WHERE ')


def test_a_dry_run_tells_the_same_and_writes_nothing() -> None:
    before = everything()
    dry = told(apply(ACME, is_dry_run=True))
    assert everything() == before
    assert told(apply(ACME)) == dry


def test_a_dry_run_of_an_update_and_a_prune_writes_nothing() -> None:
    apply(ACME)
    before = everything()
    text = ACME.replace("              - {name: w2, is_disabled: true}\n", "").replace("acme.prod", "acme.test")
    changes = apply(text, is_dry_run=True, prune=True, environ=ENVIRON | {"LITELLM_API_KEY": "another-key"})
    assert told(changes) == [
        "updated temporal_connection acme/cloud",
        "updated litellm_connection acme/gateway",
        "deleted worker acme/production/default/w2",
    ]
    assert everything() == before
