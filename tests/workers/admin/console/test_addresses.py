"""Who may see the console, and what its addresses may ask."""

from collections.abc import Iterator
from random import Random

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client

from environments.fields import SealedField
from environments.models import AuditEvent, DataKey, LiteLLMConnection, Organization, TemporalConnection
from tests.support.console import REGISTERED, Model, everything, person, status_of, url
from tests.support.console_rows import each_model, request_of
from tests.support.factories import Fleet
from workers.models import (
    ApiKey,
    InstanceReport,
    KeptAnswer,
    Lookout,
    Outage,
    ProcessObservation,
    Pulse,
    QueueObservation,
    Refusal,
    RefusedStart,
    Sweep,
    UpdateLock,
    Worker,
    WorkerStart,
)

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


def test_every_model_of_ours_has_a_page(db: None) -> None:
    ours = {model for label in ("environments", "workers") for model in apps.get_app_config(label).get_models()}
    # Reports, refusals and observations are on the pages of what they are of; the pulse shows where we were away; a lock
    # expires in minutes, and a kept answer in a day.
    of_others = {InstanceReport, ProcessObservation, QueueObservation, Refusal, RefusedStart}
    assert ours - of_others - {KeptAnswer, Lookout, Outage, Pulse, Sweep, UpdateLock} <= set(REGISTERED)


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
    "a truth out of range": "is_ephemeral__exact=7",
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
