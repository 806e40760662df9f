"""Forms of the console: odd ones, what they cannot change, and how mistakes are explained."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client

from environments.models import (
    AuditEvent,
    DataKey,
    Environment,
    LiteLLMConnection,
    Membership,
    Organization,
    TelemetrySettings,
    TemporalConnection,
)
from environments.models.connections import CONNECTION_POINTERS
from tests.support import factories
from tests.support.console import REGISTERED, Model, errors_of, everything, form_of, row_of, status_of, url
from tests.support.console_rows import each_model, new_row_like, request_of
from tests.support.factories import Fleet
from workers.models import (
    ApiKey,
    Incident,
    NotificationDelivery,
    NotificationTarget,
    Worker,
    WorkerInstance,
    WorkerQueue,
    WorkerStart,
)

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


READ_ONLY = (WorkerStart, WorkerInstance, AuditEvent, DataKey, Incident, NotificationDelivery)
VALUES = {
    "NUL": "a\x00b",
    "100,000 characters": "x" * 100_000,
    "a huge number": "9" * 400,
    "not a number": "nan",
    "infinity": "1e999",
    "markup": "<script>alert(1)</script>",
    "bidirectional marks": "\u202egnp.exe\u2066",
    "a newline": "a\nb",
}


@pytest.mark.sqlite
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_odd_values_in_new_rows_are_never_a_server_error(value: str, fleet: Fleet, client: Client) -> None:
    statuses = {}
    for model in [model for model in REGISTERED if model not in READ_ONLY]:
        fields = admin.site._registry[model].get_form(request_of(client)).base_fields
        statuses[model._meta.label] = status_of(client, "post", url(model, "add"), dict.fromkeys(fields, value))
    assert {label: status for label, status in statuses.items() if status >= 500} == {}


def test_each_odd_value_alone_is_never_a_server_error(fleet: Fleet, client: Client) -> None:
    """With everything else as it was, so that the value gets as far as it can.

    A field that several kinds of rows have alike takes each value in one of them, and in the others one of the values.
    """
    odd = [VALUES[name] for name in ("NUL", "100,000 characters", "a huge number")]
    statuses, tried = {}, set()
    for number, row in enumerate((fleet.temporal, fleet.organization, fleet.queue, fleet.worker)):
        address = url(type(row), "change", row.pk)
        form = form_of(client, address)
        kinds = {field.name: type(field) for field in type(row)._meta.concrete_fields}
        for name in {*form, "description", "api_key", "temporal_connection"}:
            field = name, kinds.get(name)
            for value in odd[number % 3 :][:1] if field in tried else odd:
                statuses[row, name, value[:3]] = status_of(client, "post", address, {**form, name: value})
            tried.add(field)
    assert len(statuses) > 60
    assert {place: status for place, status in statuses.items() if status >= 500} == {}


@each_model
def test_an_empty_form_is_explained(model: Model, fleet: Fleet, client: Client) -> None:
    if model in READ_ONLY:
        pytest.skip("has no form")
    before = everything()
    assert errors_of(client.post(url(model, "add"), {}))
    assert everything() == before


@pytest.mark.parametrize(("model", "parent"), [(WorkerQueue, "environment"), (Worker, "queue")])
@pytest.mark.parametrize("value", ["", "00000000-0000-4000-8000-000000000000"], ids=["none", "unknown"])
def test_a_row_without_its_parent_is_explained(
    model: Model, parent: str, value: str, fleet: Fleet, client: Client
) -> None:
    data = {"name": "new", "heartbeat_interval": 60, parent: value}
    response = client.post(url(model, "add"), data)
    assert errors_of(response)
    assert parent in response.context["adminform"].form.errors


@each_model
def test_odd_selections_of_the_delete_action_are_never_a_server_error(
    model: Model, fleet: Fleet, client: Client
) -> None:
    before = everything()
    for selected in ("\x00", "nosuch", "9" * 400, "00000000-0000-4000-8000-000000000000"):
        data = {"action": "delete_selected", "_selected_action": selected, "post": "yes"}
        assert status_of(client, "post", url(model, "changelist"), data) < 500
    assert everything() == before


@pytest.mark.sqlite
@each_model
def test_deleting_a_row_that_others_need_is_refused_with_a_page(model: Model, fleet: Fleet, client: Client) -> None:
    if model in {Membership, NotificationTarget, TelemetrySettings, User, Worker}:
        pytest.skip("nothing needs it")
    row = row_of(model)
    response = client.post(url(model, "delete", row.pk), {"post": "yes"})
    assert response.status_code in {200, 403}
    assert model._default_manager.filter(pk=row.pk).exists()


def test_a_row_that_nobody_needs_can_be_deleted_and_that_is_on_record(fleet: Fleet, client: Client) -> None:
    telemetry = TelemetrySettings.objects.get()
    assert client.post(url(TelemetrySettings, "delete", telemetry.pk), {"post": "yes"}).status_code == 302
    event = AuditEvent.objects.get(action="telemetry_settings.deleted")
    assert (event.actor, event.object_id) == ("user:ada", str(telemetry.pk))


@pytest.mark.parametrize("model", [*READ_ONLY, ApiKey], ids=lambda model: model._meta.model_name)
def test_what_is_on_record_cannot_be_changed_or_deleted(model: Model, fleet: Fleet, client: Client) -> None:
    row = row_of(model)
    before = everything()
    change = url(model, "change", row.pk)
    page = client.get(change).content.decode()
    assert 'name="_save"' not in page
    assert client.post(change, {"name": "changed", "_save": "Save"}).status_code == 403
    assert client.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    client.post(url(model, "changelist"), {"action": "delete_selected", "_selected_action": str(row.pk), "post": "yes"})
    if model is not ApiKey:
        assert client.post(url(model, "add"), {}).status_code == 403
    assert everything() == before


def test_an_organization_s_id_cannot_be_changed(fleet: Fleet, client: Client) -> None:
    address = url(Organization, "change", fleet.organization.pk)
    assert client.post(address, {**form_of(client, address), "id": "other", "name": "Renamed"}).status_code == 302
    assert list(Organization.objects.values_list("id", "name")) == [(fleet.organization.id, "Renamed")]


@pytest.mark.parametrize("kind", ["environment", "temporal", "litellm"])
def test_a_row_cannot_be_moved_to_another_organization(kind: str, fleet: Fleet, client: Client) -> None:
    row = getattr(fleet, kind)
    other = factories.create_organization("other")
    address = url(type(row), "change", row.pk)
    client.post(address, {**form_of(client, address), "organization": other.pk})
    row.refresh_from_db()
    assert row.organization == fleet.organization


def test_a_worker_cannot_be_moved_to_another_organization(fleet: Fleet, client: Client) -> None:
    other = factories.create_queue(factories.create_environment(factories.create_organization("other")))
    address = url(Worker, "change", fleet.worker.pk)
    assert "organization" in errors_of(client.post(address, {**form_of(client, address), "queue": other.pk}))
    fleet.worker.refresh_from_db()
    assert fleet.worker.queue == fleet.queue


NAMED = (Organization, Environment, TemporalConnection, LiteLLMConnection, TelemetrySettings, WorkerQueue, Worker)


@pytest.mark.sqlite
@pytest.mark.parametrize("model", NAMED, ids=lambda model: model._meta.model_name)
def test_a_name_that_is_taken_is_explained(model: Model, fleet: Fleet, client: Client) -> None:
    before = everything()
    assert "already exists" in errors_of(client.post(url(model, "add"), new_row_like(row_of(model))))
    assert everything() == before


@pytest.mark.parametrize("model", NAMED[1:], ids=lambda model: model._meta.model_name)
def test_renaming_to_a_name_that_is_taken_is_explained(model: Model, fleet: Fleet, client: Client) -> None:
    taken = row_of(model)
    data = new_row_like(taken)
    # A new worker's answer is a page that shows how to start it.
    assert client.post(url(model, "add"), {**data, "name": "second"}).status_code == (200 if model is Worker else 302)
    second = model._default_manager.get(name="second")
    address = url(model, "change", second.pk)
    assert "already exists" in errors_of(client.post(address, {**form_of(client, address), "name": data["name"]}))


@pytest.mark.parametrize("pointer", CONNECTION_POINTERS)
@pytest.mark.parametrize("level", ["organization", "environment", "queue", "worker"])
def test_a_pointer_to_another_organization_is_explained(level: str, pointer: str, fleet: Fleet, client: Client) -> None:
    foreign = factories.create_fleet()
    theirs = {
        "temporal_connection": foreign.temporal,
        "litellm_connection": foreign.litellm,
        "telemetry_settings": factories.create_telemetry(foreign.organization),
    }[pointer]
    row = getattr(fleet, level)
    address = url(type(row), "change", row.pk)
    before = everything()
    message = errors_of(client.post(address, {**form_of(client, address), pointer: theirs.pk}))
    assert message == "This belongs to another organization."
    assert everything() == before


@pytest.mark.parametrize("level", ["environment", "queue"])
def test_a_new_row_that_points_to_another_organization_is_explained(level: str, fleet: Fleet, client: Client) -> None:
    foreign = factories.create_fleet()
    data = {**new_row_like(getattr(fleet, level)), "name": "new", "temporal_connection": foreign.temporal.pk}
    assert "another organization" in errors_of(client.post(url(type(getattr(fleet, level)), "add"), data))


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (Organization, "id", "Capital"),
        (Organization, "id", "a.b"),
        (Environment, "name", "-a"),
        (WorkerQueue, "name", "a_b"),
        (WorkerQueue, "heartbeat_interval", "4"),
        (WorkerQueue, "heartbeat_interval", "3601"),
        (Worker, "name", "a b"),
        (TemporalConnection, "host", "https://temporal.example.com"),
        (LiteLLMConnection, "api_url", "javascript:alert(1)"),
        (TelemetrySettings, "otel_traces_sampler", "sometimes"),
        (TelemetrySettings, "otel_traces_sampler_arg", "1.1"),
    ],
)
def test_a_value_that_breaks_a_rule_is_explained(
    model: Model, field: str, value: str, fleet: Fleet, client: Client
) -> None:
    data = {**new_row_like(row_of(model)), "name": "new", field: value}
    data |= {"id": data.get("id") if field == "id" else "new"} if model is Organization else {}
    response = client.post(url(model, "add"), data)
    assert errors_of(response)
    assert field in response.context["adminform"].form.errors


def test_a_key_needs_exactly_one_target(fleet: Fleet, client: Client) -> None:
    both = {"name": "k", "days": 90, "worker": fleet.worker.pk, "queue": fleet.queue.pk}
    assert "exactly one" in errors_of(client.post(url(ApiKey, "add"), both))
    assert "exactly one" in errors_of(client.post(url(ApiKey, "add"), {"name": "k", "days": 90}))


def test_a_key_of_a_whole_organization_needs_a_confirmation(fleet: Fleet, client: Client) -> None:
    data = {"name": "k", "days": 90, "organization": fleet.organization.pk}
    before = everything()
    assert "1 worker can be started with it" in client.post(url(ApiKey, "add"), data).content.decode()
    assert everything() == before
    assert client.post(url(ApiKey, "add"), {**data, "_confirmed": fleet.organization.pk}).status_code == 200
    assert ApiKey.objects.get(name="k").scope == "organization"


def test_a_key_without_expiry_needs_a_reason(fleet: Fleet, client: Client) -> None:
    data = {"name": "k", "worker": fleet.worker.pk, "days": ""}
    assert "reason" in errors_of(client.post(url(ApiKey, "add"), data))
    for blank in (" ", "\u00a0"):
        assert "reason" in errors_of(client.post(url(ApiKey, "add"), {**data, "no_expiry_reason": blank}))


def test_a_key_without_a_name_is_explained(fleet: Fleet, client: Client) -> None:
    data = {"name": "\u00a0", "worker": fleet.worker.pk, "days": 1}
    assert errors_of(client.post(url(ApiKey, "add"), data))
