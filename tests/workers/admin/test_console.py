"""The console's pages over HTTP: what they refuse, explain, and never show or change.

Who may see what and that no page holds a secret is in `test_roles`. Which pages there are is taken from the registry, so a page that is added is tested too.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from html import unescape
from random import Random
from threading import Event
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from environments import audit
from environments.encryption import Secret
from environments.fields import SealedField
from environments.models import (
    AuditEvent,
    DataKey,
    Environment,
    LiteLLMConnection,
    Membership,
    Organization,
    Role,
    TelemetrySettings,
    TemporalConnection,
)
from environments.models.organizations import CONNECTION_POINTERS
from environments.sealing.data_keys import open_api_key, seal_api_key
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import (
    REGISTERED,
    Model,
    errors_of,
    everything,
    form_of,
    member,
    pages_of,
    person,
    post_confirmed,
    row_of,
    signed_in,
    status_of,
    url,
)
from tests.support.factories import Fleet
from workers.models import (
    ApiKey,
    InstanceReport,
    Outage,
    Pulse,
    Refusal,
    UpdateLock,
    Worker,
    WorkerInstance,
    WorkerQueue,
    WorkerStart,
)

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

LONG = 20
READ_ONLY = (WorkerStart, WorkerInstance, AuditEvent, DataKey)
CONNECTIONS = (TemporalConnection, LiteLLMConnection)
each_model = pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model._meta.model_name)
each_connection = pytest.mark.parametrize("model", CONNECTIONS, ids=lambda model: model._meta.model_name)


@pytest.fixture
def fleet(db: None) -> Fleet:
    """An organization with a row of every kind."""
    fleet = fresh_fleet()
    return with_every_kind_of_row(fleet)


@pytest.fixture
def committed_fleet(transactional_db: None) -> Fleet:
    return with_every_kind_of_row(fresh_fleet())


def with_every_kind_of_row(fleet: Fleet) -> Fleet:
    factories.create_telemetry(fleet.organization)
    assert start(fleet, {"system_info": {"hostname": "host-of-the-fleet"}}).status_code == 200
    person(is_staff=True, is_superuser=True)
    member(fleet.organization, Role.VIEWER)
    return fleet


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()


# --- Who may see it ------------------------------------------------------------------------------------------------------


def test_every_model_of_ours_has_a_page(db: None) -> None:
    ours = {model for label in ("environments", "workers") for model in apps.get_app_config(label).get_models()}
    # Reports and refusals are on the pages of what they are of; the pulse shows where we were away; a lock expires in minutes.
    assert ours - {InstanceReport, Outage, Pulse, Refusal, UpdateLock} <= set(REGISTERED)


def test_a_superuser_who_is_no_longer_one_is_refused_at_once(fleet: Fleet, client: Client) -> None:
    page = url(Worker, "changelist")
    assert client.get(page).status_code == 200
    User.objects.update(is_superuser=False)
    assert client.get(page).status_code == 403


def test_forms_are_refused_without_the_csrf_token(fleet: Fleet) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person())
    before = everything()
    for page in (url(Organization, "add"), url(ApiKey, "rotate", fleet.api_key.pk)):
        assert client.post(page, {"id": "new", "name": "New", "grace_hours": 1}).status_code == 403
    assert everything() == before


# --- Filters in the address ------------------------------------------------------------------------------------------------


def sensitive_lookups(model: Model, depth: int = 3) -> Iterator[str]:
    """The path of every column with a sealed text, hash or password that can be reached from a model."""
    for field in model._meta.get_fields():
        if isinstance(field, SealedField) or field.name.endswith("_hash") or field.name == "password":
            yield field.name
        elif depth and field.is_relation and field.related_model:
            yield from (f"{field.name}__{path}" for path in sensitive_lookups(field.related_model, depth - 1))


@each_model
def test_no_filter_reaches_a_sealed_or_hashed_column(model: Model, fleet: Fleet, client: Client) -> None:
    model_admin, request = admin.site._registry[model], request_of(client)
    for path in set(sensitive_lookups(model)):
        for suffix in ("", "__startswith", "__regex", "__gt", "__isnull", "__contains__exact"):
            assert not model_admin.lookup_allowed(f"{path}{suffix}", "cp1", request), path


@pytest.mark.parametrize(
    ("model", "lookup"),
    [
        (TemporalConnection, "sealed_api_key__startswith"),
        (TemporalConnection, "organization__active_data_key__wrapped_key__startswith"),
        (LiteLLMConnection, "sealed_api_key__regex"),
        (Organization, "temporal_connection__sealed_api_key__startswith"),
        (Worker, "queue__environment__litellm_connection__sealed_api_key__gt"),
        (Worker, "api_keys__token_hash__startswith"),
        (ApiKey, "token_hash__startswith"),
        (WorkerStart, "api_key__token_hash__startswith"),
        (DataKey, "known_answer__startswith"),
        (DataKey, "fingerprint_key__startswith"),
        (User, "password__startswith"),
        (AuditEvent, "organization__litellm_connection__sealed_api_key__contains"),
    ],
)
def test_an_address_is_no_oracle(model: Model, lookup: str, fleet: Fleet, client: Client) -> None:
    """The answer is the same whether the guess is right or wrong."""
    answers = {client.get(url(model, "changelist"), {lookup: guess}).status_code for guess in ("", "cp1", "zzz", "pbk")}
    assert answers == {400}


def test_a_field_cannot_be_chosen_as_the_key_of_a_popup(fleet: Fleet, client: Client) -> None:
    assert client.get(url(ApiKey, "changelist"), {"_to_field": "token_hash"}).status_code == 400


QUERIES = {
    "NUL in a search": "q=%00",
    "not UTF-8 in a search": "q=%FF%FE",
    "a very long search": f"q={'x' * 8_000}",
    "a search of many words": f"q={'a+' * 200}",
    "a search of quotes": "q=%22%27%22+%5C",
    "an order that is none": "o=999",
    "orders of all kinds": "o=-1.2.99.abc.--",
    "a page beyond": "p=99999",
    "a page of many digits": f"p={'9' * 400}",
    "a negative page": "p=-1",
    "a page that is no number": "p=abc",
    "all": "all=",
    "an error flag": "e=1",
    "a popup": "_popup=1&_to_field=id",
    "a popup of another field": "_popup=x&_to_field=nosuch",
    "facets": "_facets=True",
    "an unknown filter": "nosuch=1",
    "NUL in an id": "pk=%00",
    "NUL in a list of ids": "pk__in=a,b,%00",
    "an empty list of ids": "pk__in=",
    "no UUID": "pk__exact=not-a-uuid",
    "a lookup that is none": "pk__nosuch=1",
    "lookups without end": "pk__pk__pk__in__in=1",
    "only underscores": "__=1",
    "NUL in a name": "%00=1",
    "the same filter twice": "pk=1&pk=2",
    "a regular expression that is none": "name__regex=(",
    "NUL in a name's filter": "name=%00",
    "a time that is none": "created_at__gte=yesterday",
    "a year beyond": f"created_at__year={'9' * 30}",
    "a start that is no time": "started_at__gte=%00",
    "a truth that is none": "organization__isnull=maybe",
    "a truth out of range": "is_disabled__exact=7",
    "NUL in an organization": "organization__id__exact=%00",
    "a number out of range": "heartbeat_interval__gt=99999999999999999999999999",
    "a number that is none": "api_key_version__exact=many",
    "NUL in a choice": "scope__exact=%00",
    "a key of JSON": "system_info__a%00=1",
    "NUL within JSON": "changes__contains=%00",
    "an address that is none": "client_address__exact=%00",
    "NUL in kept filters": "_changelist_filters=%00",
    "2,000 filters": "&".join(f"a{number}=1" for number in range(2_000)),
}


@pytest.mark.sqlite
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_an_odd_list_address_is_never_a_server_error(
    query: str, fleet: Fleet, client: Client, seeded_random: Random
) -> None:
    """Of some lists, others in each run."""
    pages = [url(model, "changelist") for model in seeded_random.sample(REGISTERED, 6)]
    statuses = {page: status_of(client, "get", f"{page}?{query}") for page in pages}
    assert {page: status for page, status in statuses.items() if status >= 500} == {}


IDS = {
    "NUL": "%00",
    "no UUID": "nosuch",
    "5,000 characters": "0" * 5_000,
    "escaped underscore": "_5F_00",
    "not UTF-8": "%FF%FE",
    "a number beyond": "9" * 40,
    "minus one": "-1",
    "dots": "..%2F..%2Fadd",
    "a newline": "%0A",
    "a surrogate": "%ED%A0%80",
    "an unknown UUID": "00000000-0000-4000-8000-000000000000",
}


@pytest.mark.parametrize("identifier", IDS.values(), ids=IDS.keys())
def test_an_odd_id_is_never_a_server_error(
    identifier: str, fleet: Fleet, client: Client, seeded_random: Random
) -> None:
    """Of some models, others in each run."""
    pages = [
        f"{url(model, 'changelist')}{identifier}/{page}"
        for model in seeded_random.sample(REGISTERED, 6)
        for page in ("", "change/", "delete/", "history/")
    ]
    pages += [f"{url(ApiKey, 'changelist')}{identifier}/{page}/" for page in ("rotate", "revoke")]
    pages += [f"{url(User, 'changelist')}{identifier}/password/"]
    before = everything()
    statuses = {page: status_of(client, "post" if "delete" in page else "get", page) for page in pages}
    assert {page: status for page, status in statuses.items() if status >= 500 or status == 200} == {}
    assert everything() == before


@pytest.mark.parametrize(
    "query",
    [
        "term=%00",
        f"term={'x' * 8_000}",
        "page=abc",
        "page=99999",
        "page=0",
        "app_label=%00",
        "model_name=nosuch",
        "field_name=nosuch",
        "field_name=name",
        "field_name=organization__temporal_connection",
    ],
)
def test_an_odd_autocompletion_is_never_a_server_error(query: str, fleet: Fleet, client: Client) -> None:
    valid = "app_label=workers&model_name=worker&field_name=queue&term=a"
    assert status_of(client, "get", f"/admin/autocomplete/?{valid}&{query}") < 500
    assert status_of(client, "get", f"/admin/autocomplete/?{query}") < 500


@pytest.mark.parametrize(
    "query",
    ["s=%00", "s=worker&page=999", "s=worker&page=abc", "s=worker&page=0", f"s={'x' * 8_000}", "s=%FF", "page=abc"],
)
def test_an_odd_search_of_the_site_is_never_a_server_error(query: str, fleet: Fleet, client: Client) -> None:
    assert client.get(f"/admin/search/?{query}").status_code < 500


# --- Odd forms -------------------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(
    "value", ["a\x00b", "x" * 100_000, "9" * 400], ids=["NUL", "100,000 characters", "a huge number"]
)
def test_each_odd_value_alone_is_never_a_server_error(value: str, fleet: Fleet, client: Client) -> None:
    """With everything else as it was, so that the value gets as far as it can."""
    statuses = {}
    for row in (fleet.temporal, fleet.organization, fleet.queue, fleet.worker):
        address = url(type(row), "change", row.pk)
        form = form_of(client, address)
        for name in (*form, "description", "api_key", "temporal_connection"):
            statuses[row, name] = status_of(client, "post", address, {**form, name: value})
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


def request_of(client: Client) -> Any:
    return client.get("/admin/jsi18n/").wsgi_request  # the page that costs least


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
    if model in {Membership, TelemetrySettings, User, Worker}:
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


# --- What cannot be changed ------------------------------------------------------------------------------------------------


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


# --- Mistakes --------------------------------------------------------------------------------------------------------------


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


# --- Secrets -----------------------------------------------------------------------------------------------------------------


@each_connection
def test_a_blank_secret_keeps_the_stored_one(model: Any, fleet: Fleet, client: Client) -> None:
    before = model.objects.get()
    address = url(model, "change", before.pk)
    assert client.post(address, {**form_of(client, address), "name": "renamed"}).status_code == 302
    after = model.objects.get()
    assert after.name == "renamed"
    assert (after.sealed_api_key, after.api_key_fingerprint, after.api_key_version) == (
        before.sealed_api_key,
        before.api_key_fingerprint,
        before.api_key_version,
    )


@each_connection
def test_a_new_secret_is_sealed_and_shows_in_fingerprint_and_version(model: Any, fleet: Fleet, client: Client) -> None:
    before = model.objects.get()
    address = url(model, "change", before.pk)
    assert post_confirmed(client, address, {**form_of(client, address), "api_key": "typed-by-ada"}).status_code == 302
    after = model.objects.get()
    assert open_api_key(after) == Secret("typed-by-ada")
    assert after.api_key_fingerprint != before.api_key_fingerprint
    assert after.api_key_version == before.api_key_version + 1
    assert "typed-by-ada" not in str(everything())
    event = AuditEvent.objects.get(action=f"{audit.kind_of(model())}.updated")
    assert event.actor == "user:ada"
    assert event.changes["api_key_fingerprint"] == [before.api_key_fingerprint, after.api_key_fingerprint]


@each_connection
def test_the_form_never_sends_the_secret_back(model: Any, fleet: Fleet, client: Client) -> None:
    """Not even the one just typed, when another field has to be corrected."""
    row = model.objects.get()
    address = url(model, "change", row.pk)
    response = client.post(address, {**form_of(client, address), "name": "not a slug", "api_key": "typed-by-ada"})
    assert errors_of(response)
    assert "typed-by-ada" not in response.content.decode()


@each_connection
def test_a_connection_without_secret_is_explained(model: Any, fleet: Fleet, client: Client) -> None:
    data = {**new_row_like(model.objects.get()), "name": "new", "api_key": ""}
    assert "takes none" in errors_of(client.post(url(model, "add"), data))
    del data["requires_api_key"]
    assert client.post(url(model, "add"), data).status_code == 302


def test_django_s_own_log_holds_no_secret(fleet: Fleet, client: Client) -> None:
    address = url(TemporalConnection, "change", fleet.temporal.pk)
    post_confirmed(client, address, {**form_of(client, address), "api_key": "typed-by-ada"})
    assert LogEntry.objects.exists()
    assert "typed-by-ada" not in str(list(LogEntry.objects.values()))


def test_a_secret_that_somebody_changes_while_a_form_is_open_is_kept(fleet: Fleet, client: Client) -> None:
    address = url(TemporalConnection, "change", fleet.temporal.pk)
    form = form_of(client, address)
    seal_api_key(fleet.temporal, Secret("changed meanwhile"), now=timezone.now())
    fleet.temporal.save()
    assert post_confirmed(client, address, {**form, "namespace": "edited"}).status_code == 302
    row = TemporalConnection.objects.get()
    assert (row.namespace, open_api_key(row)) == ("edited", Secret("changed meanwhile"))


@pytest.mark.sqlite
def test_a_secret_that_somebody_changes_while_a_form_is_saved_is_kept(committed_fleet: Fleet) -> None:
    """The row is locked from when it is loaded: whoever comes second works on what the first one stored."""
    fleet, client = committed_fleet, signed_in()
    address = url(TemporalConnection, "change", fleet.temporal.pk)
    form = {**form_of(client, address), "name": "renamed"}
    is_loaded, is_changed = Event(), Event()

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith("SELECT") and 'FROM "environments_temporalconnection"' in sql and not is_loaded.is_set():
            is_loaded.set()
            # With the lock the other one waits for us, so this waits in vain; without it, it would be done now.
            is_changed.wait(0.5)
        return result

    def save() -> int:
        try:
            with connection.execute_wrapper(watch):
                return client.post(address, form).status_code
        finally:
            is_loaded.set()
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(save)
        assert is_loaded.wait(LONG)
        with transaction.atomic():
            row = TemporalConnection.objects.select_for_update().get(pk=fleet.temporal.pk)
            seal_api_key(row, Secret("changed meanwhile"), now=timezone.now())
            row.save()
        is_changed.set()
        assert saving.result(LONG) == 302
    row = TemporalConnection.objects.get()
    assert (row.name, open_api_key(row)) == ("renamed", Secret("changed meanwhile"))


# --- People ------------------------------------------------------------------------------------------------------------------


def test_a_new_person_is_on_record_without_the_password(fleet: Fleet, client: Client) -> None:
    password = "correct horse battery staple"
    data = {"username": "grace", "password1": password, "password2": password, "usable_password": "true"}
    assert client.post(url(User, "add"), data).status_code == 302
    event = AuditEvent.objects.get(action="user.created")
    assert (event.actor, event.object_name) == ("user:ada", "grace")
    assert "password" not in event.changes


def test_a_password_that_an_administrator_sets_is_on_record(fleet: Fleet, client: Client) -> None:
    """Whoever sets another's password can act as that person afterwards."""
    grace = person("grace", is_staff=True, is_superuser=True)
    password = "correct horse battery staple"
    data = {"password1": password, "password2": password, "usable_password": "true"}
    address = reverse("admin:auth_user_password_change", args=[grace.pk])
    assert client.post(address, data).status_code == 302
    grace.refresh_from_db()
    assert grace.check_password(password)
    event = AuditEvent.objects.get(object_type="user", object_id=str(grace.pk))
    assert event.actor == "user:ada"
    assert grace.password not in str(event.changes)


def test_a_password_is_not_shown_nor_its_hash(fleet: Fleet, client: Client) -> None:
    user = person()
    user.set_password("correct horse battery staple")
    user.save()
    client.force_login(user)
    page = client.get(url(User, "change", user.pk)).content.decode()
    assert user.password.rpartition("$")[2] not in unescape(page)


# --- The key, once -----------------------------------------------------------------------------------------------------------


def test_a_new_key_is_shown_in_one_answer_that_nobody_may_store(fleet: Fleet, client: Client) -> None:
    response = client.post(url(ApiKey, "add"), {"name": "once", "days": 1, "worker": fleet.worker.pk})
    assert "no-store" in response["Cache-Control"]
    shown = re.search(r'id="api-key"[^>]*>([^<]+)<', response.content.decode())
    assert shown
    assert start(fleet, token=shown[1]).status_code == 200
    cache.clear()
    for model in REGISTERED:
        for page in pages_of(model):
            assert shown[1] not in client.get(page).content.decode()
    with suppress(KeyError):
        assert shown[1] not in str(client.session.items())
    assert shown[1] not in str(everything())


@pytest.mark.parametrize("page", ["rotate", "revoke"])
def test_a_key_is_neither_rotated_nor_revoked_by_a_link(page: str, fleet: Fleet, client: Client) -> None:
    before = everything()
    assert client.get(url(ApiKey, page, fleet.api_key.pk), {"grace_hours": "0", "reason": "x"}).status_code == 200
    assert everything() == before


def test_rotating_a_key_twice_is_explained(fleet: Fleet, client: Client) -> None:
    address = url(ApiKey, "rotate", fleet.api_key.pk)
    assert "no-store" in client.post(address, {"grace_hours": "1"})["Cache-Control"]
    response = client.post(address, {"grace_hours": "1"})
    assert response.status_code == 200
    assert "already rotated" in response.content.decode()
    assert ApiKey.objects.count() == 2


@pytest.mark.parametrize("hours", ["", "-1", "721", "abc", "9" * 400, "\x00"])
def test_an_odd_grace_period_is_explained(hours: str, fleet: Fleet, client: Client) -> None:
    response = client.post(url(ApiKey, "rotate", fleet.api_key.pk), {"grace_hours": hours})
    assert response.status_code == 200
    assert response.context["form"].errors["grace_hours"]
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("reason", ["", " ", "r" * 301, "\x00", "\u00a0"])
def test_an_odd_reason_to_revoke_is_explained(reason: str, fleet: Fleet, client: Client) -> None:
    response = client.post(url(ApiKey, "revoke", fleet.api_key.pk), {"reason": reason})
    assert response.status_code == 200
    assert response.context["form"].errors["reason"]
    assert ApiKey.objects.get().revoked_at is None


@pytest.mark.parametrize("model", ["environment", "temporalconnection", "litellmconnection", "workerqueue", "worker"])
def test_the_text_that_names_a_row_finds_it(model: str, fleet: Fleet, client: Client) -> None:
    rows = [fleet.environment, fleet.temporal, fleet.litellm, fleet.queue, fleet.worker]
    row = next(row for row in rows if row._meta.model_name == model)
    found = client.get(url(type(row), "changelist"), {"q": str(row)}).context["cl"].result_list
    assert list(found) == [row]
