"""One start: what is answered and recorded, and at what cost."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import jsonschema
import pytest
from django.utils import timezone
from pytest_django import Settings

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import assert_nothing_recorded, assert_refused, start
from tests.support.contract import SCHEMAS
from tests.support.factories import ACTOR, Fleet
from workers.api_keys.access import UnknownObjectError
from workers.api_keys.issuing import revoke_api_key
from workers.configuration.effective import revision_of, sections_of, show_configuration
from workers.lifecycle import Client as LifecycleClient
from workers.lifecycle import start_worker
from workers.lifecycle.starts import Attempt
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite


def test_answers_the_contracts_17_fields(fleet: Fleet) -> None:
    telemetry = factories.create_telemetry(
        fleet.organization,
        otel_enabled=False,
        otel_exporter_otlp_endpoint="https://otel.example.com:4317",
        otel_service_name="svc",
        otel_traces_sampler="traceidratio",
        otel_traces_sampler_arg=0.25,
    )
    factories.point(fleet.organization, telemetry_settings=telemetry)
    WorkerQueue.objects.update(heartbeat_interval=45)
    response = start(fleet)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    assert response.json() == {
        "worker_id": str(fleet.worker.pk),
        "worker_queue_name": "default",
        "environment_name": "production",
        "task_queue_name": f"{fleet.organization.id}.production.default",
        "temporal_namespace": f"{fleet.organization.id}-temporal",
        "temporal_host": "temporal.example.com:7233",
        "temporal_api_key": fleet.temporal_secret,
        "organization_id": fleet.organization.id,
        "control_plane_url": "http://127.0.0.1:8000",
        "heartbeat_interval": 45,
        "litellm_api_url": "https://litellm.example.com",
        "litellm_api_key": fleet.litellm_secret,
        "otel_enabled": False,
        "otel_exporter_otlp_endpoint": "https://otel.example.com:4317",
        "otel_service_name": "svc",
        "otel_traces_sampler": "traceidratio",
        "otel_traces_sampler_arg": 0.25,
    }


def test_the_answer_has_exactly_the_contracts_fields_in_its_types(fleet: Fleet) -> None:
    answer = start(fleet).json()
    schema = SCHEMAS["WorkerConfigResponse"]
    assert list(answer) == list(schema["properties"])
    assert len(answer) == 17
    jsonschema.validate(answer, schema)
    assert all(answer[name] for name in schema["required"])
    assert type(answer["heartbeat_interval"]) is int


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"system_info": 1}', b""])
def test_a_422_is_the_contracts_validation_error(fleet: Fleet, body: bytes) -> None:
    answer = start(fleet, body).json()
    strict = json.loads(json.dumps(SCHEMAS).replace("#/components/schemas/", "#/$defs/"))
    for schema in strict.values():
        schema["additionalProperties"] = False
    jsonschema.validate(answer, {"$ref": "#/$defs/HTTPValidationError", "$defs": strict})
    assert answer["detail"]


def test_the_control_plane_url_comes_from_the_settings_and_never_from_the_host(
    fleet: Fleet, settings: Settings
) -> None:
    assert start(fleet, HTTP_HOST="localhost:1234").json()["control_plane_url"] == "http://127.0.0.1:8000"
    settings.CONTROL_PLANE_URL = "https://controlplane.example.com"
    spoofed = start(fleet, HTTP_X_FORWARDED_HOST="evil.example.com")
    assert spoofed.json()["control_plane_url"] == "https://controlplane.example.com"


def test_the_ledger_tells_who_started_with_what_from_where_and_what_it_was_given(fleet: Fleet) -> None:
    telemetry = factories.create_telemetry(fleet.organization)
    factories.point(fleet.organization, telemetry_settings=telemetry)
    info = {"hostname": "a", "cpu_count": 8, "runtimes": ["x", None], "disk": {"used": 0.5}}
    before = timezone.now()
    start(fleet, {"system_info": info}, HTTP_USER_AGENT="worker/1.0 (Linux)")
    row = WorkerStart.objects.get()
    assert (row.organization_id, row.worker_id, row.api_key_id) == (
        fleet.organization.id,
        fleet.worker.pk,
        fleet.api_key.pk,
    )
    assert before <= row.started_at <= timezone.now()
    assert (row.worker_name, row.task_queue_name) == ("worker-1", f"{fleet.organization.id}.production.default")
    assert (row.client_address, row.user_agent) == ("127.0.0.1", "worker/1.0 (Linux)")
    assert row.system_info == info
    worker = Worker.objects.with_chain().get()
    assert row.configuration_revision == revision_of(show_configuration(worker, sections_of(worker)), worker.queue)
    assert (row.temporal_connection_id, row.temporal_api_key_version) == (fleet.temporal.pk, 1)
    assert (row.litellm_connection_id, row.litellm_api_key_version) == (fleet.litellm.pk, 1)
    assert row.telemetry_settings_id == telemetry.pk


def test_no_secret_is_on_record(fleet: Fleet) -> None:
    start(fleet, {"system_info": {"a": 1}})
    text = str(list(WorkerStart.objects.values())) + str(list(AuditEvent.objects.values()))
    for secret in (fleet.temporal_secret, fleet.litellm_secret, fleet.token):
        assert secret not in text


def test_a_start_gets_no_second_audit_record(fleet: Fleet) -> None:
    before = AuditEvent.objects.count()
    start(fleet)
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, ""),
        ("", ""),
        ("a\x00b\x1b[31mc\r\nd\x7f", "a\ufffdb\ufffd[31mc\ufffd\ufffdd\ufffd"),
        ("x" * 10_000, "x" * 300),
        ("a\u0085b\u00adc", "a\ufffdb\ufffdc"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("caf\u00e9", "caf\u00e9"),
        ("\udcff\ud800", "\ufffd\ufffd"),
    ],
    ids=["absent", "empty", "control characters", "long", "invisible", "markup", "latin-1", "surrogates"],
)
def test_the_user_agent_is_kept_without_control_characters(fleet: Fleet, sent: str | None, kept: str) -> None:
    environ = {} if sent is None else {"HTTP_USER_AGENT": sent}
    assert start(fleet, **environ).status_code == 200
    assert WorkerStart.objects.get().user_agent == kept


def test_a_start_makes_its_instance_the_current_one_in_place_of_the_one_before(fleet: Fleet) -> None:
    start(fleet)
    start(fleet)
    newest, oldest = WorkerStart.objects.order_by("-started_at")
    current = WorkerInstance.objects.get(is_current=True)
    assert current.pk == newest.pk
    assert (current.worker_id, current.organization_id) == (fleet.worker.pk, fleet.organization.id)
    assert current.started_at == current.last_heartbeat_at == newest.started_at
    assert WorkerInstance.objects.get(pk=oldest.pk).is_current is False


def test_the_ledger_says_which_key_each_start_used(fleet: Fleet) -> None:
    second = factories.issue_key(fleet.queue)
    start(fleet)
    start(fleet, token=second.token.reveal())
    assert {row.api_key_id for row in WorkerStart.objects.all()} == {fleet.api_key.pk, second.row.pk}


def test_starting_one_worker_leaves_the_others_alone(fleet: Fleet) -> None:
    other = factories.create_fleet()
    start(other)
    start(fleet)
    assert WorkerInstance.objects.filter(is_current=True).count() == 2


def test_a_disabled_worker_is_403(fleet: Fleet) -> None:
    Worker.objects.update(is_disabled=True)
    assert_refused(start(fleet), 403)
    Worker.objects.update(is_disabled=False)
    assert start(fleet).status_code == 200


def test_a_worker_of_a_disabled_queue_is_409(fleet: Fleet) -> None:
    WorkerQueue.objects.update(is_disabled=True)
    assert_refused(start(fleet), 409)


SCOPES: dict[str, Callable[[Fleet], Any]] = {
    "another worker": lambda fleet: factories.create_worker(fleet.queue, "sibling"),
    "another queue": lambda fleet: factories.create_queue(fleet.environment, "elsewhere"),
    "another environment": lambda fleet: factories.create_environment(fleet.organization, "staging"),
}


@pytest.mark.parametrize("target", SCOPES.values(), ids=SCOPES)
def test_a_key_for_something_else_of_the_organization_is_403_insufficient_scope(
    fleet: Fleet, target: Callable[[Fleet], Any]
) -> None:
    response = start(fleet, token=factories.issue_token(target(fleet)))
    assert_refused(response, 403)
    assert response["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'


@pytest.mark.parametrize("level", ["worker", "queue", "environment", "organization"])
def test_a_key_of_any_level_above_the_worker_starts_it(fleet: Fleet, level: str) -> None:
    assert start(fleet, token=factories.issue_token(getattr(fleet, level))).status_code == 200


def test_a_disabled_worker_does_not_show_to_a_key_that_is_not_for_it(fleet: Fleet) -> None:
    token = factories.issue_token(factories.create_queue(fleet.environment, "elsewhere"))
    enabled = start(fleet, token=token)
    Worker.objects.update(is_disabled=True)
    WorkerQueue.objects.update(is_disabled=True)
    assert start(fleet, token=token).content == enabled.content


def call(fleet: Fleet, worker_id: Any, now: datetime) -> Any:
    client = LifecycleClient("203.0.113.7", "test")
    key = factories.presented(ApiKey.objects.get(pk=fleet.api_key.pk))
    return start_worker(worker_id, Attempt(key, {}, client, now))


def test_takes_the_time_that_it_is_given(fleet: Fleet) -> None:
    now = timezone.now() - timedelta(days=400)
    call(fleet, fleet.worker.pk, now)
    assert WorkerStart.objects.get().started_at == WorkerInstance.objects.get().last_heartbeat_at == now


def test_knows_no_worker_of_another_organization(fleet: Fleet) -> None:
    with pytest.raises(UnknownObjectError):
        call(fleet, factories.create_fleet().worker.pk, timezone.now())
    assert_nothing_recorded()


def test_a_revoked_key_no_longer_starts_after_it_did(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=timezone.now())
    assert start(fleet).status_code == 401
    assert WorkerStart.objects.count() == 1
