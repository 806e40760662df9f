"""An id on record may be another organization's by now: what is told by it stays within the organization of the record."""

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from environments import audit
from environments.audit import Actor
from environments.models import (
    AuditEvent,
    CredentialConnection,
    Environment,
    LiteLLMConnection,
    Membership,
    Role,
    TelemetrySettings,
    TemporalConnection,
)
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import REGISTERED, member, person, routes_of, signed_in, url
from tests.support.factories import Fleet
from workers.api_keys.usage import history_of, last_used, reach_of
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue, WorkerStart

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

#: Words that no page has of its own: the one before, and the one that has its ids now.
MAUVE, OCHRE = "mauve", "ochre"
TAKEN = (
    WorkerInstance,
    Worker,
    ApiKey,
    WorkerQueue,
    Environment,
    TemporalConnection,
    LiteLLMConnection,
    TelemetrySettings,
)


@pytest.fixture
def fleets(db: None) -> dict[str, Fleet]:
    """Of the one, only records and a key are left; the other has all the ids that these records name."""
    fresh_fleet()
    fleets = {MAUVE: build(MAUVE)}
    taken = {model: first_of(model, MAUVE) for model in TAKEN}
    remove_all_but_records(fleets[MAUVE])
    fleets[OCHRE] = build(OCHRE, taken)
    for model, pk in taken.items():
        assert model._default_manager.get(pk=pk).organization_id == OCHRE  # type: ignore[attr-defined]  # each has one
    return fleets


def first_of(model: Any, organization_id: str) -> Any:
    """The id of the first row of an organization; of keys, of the worker's own."""
    rows = model._default_manager.filter(organization=organization_id)
    return (rows.exclude(worker=None) if model is ApiKey else rows).order_by("pk").values_list("pk", flat=True)[0]


def build(name: str, ids: dict[Any, Any] | None = None) -> Fleet:
    """An organization in whose rows' texts its name is, with these ids, whose worker has started with a key of its own."""

    def own(model: Any) -> dict[str, Any]:
        return {"id": ids[model]} if ids else {}

    organization = factories.create_organization(name)
    temporal = factories.create_temporal(organization, f"{name}-temporal", **own(TemporalConnection))
    litellm = factories.create_litellm(organization, f"{name}-litellm", **own(LiteLLMConnection))
    telemetry = factories.create_telemetry(organization, f"{name}-telemetry", **own(TelemetrySettings))
    environment = factories.create_environment(organization, f"{name}-production", **own(Environment))
    queue = factories.create_queue(environment, f"{name}-queue", **own(WorkerQueue))
    worker = factories.create_worker(queue, f"{name}-worker", **own(Worker))
    factories.point(
        organization, temporal_connection=temporal, litellm_connection=litellm, telemetry_settings=telemetry
    )
    issued = factories.issue_key(worker, name=f"{name}-worker-key")
    if ids:
        ApiKey.objects.filter(pk=issued.row.pk).update(id=ids[ApiKey])
        issued.row.pk = ids[ApiKey]
    fleet = Fleet(
        organization, environment, queue, worker, temporal, litellm, "", "", issued.row, issued.token.reveal()
    )
    for row in (organization, environment, queue, worker, temporal, litellm, telemetry, issued.row):
        told(row, name)
    run(fleet, ids)
    return fleet


def told(row: Any, name: str) -> None:
    """What a person of the organization did to the row, in our trail and in Django's log."""
    audit.record(f"{audit.kind_of(row)}.updated", row, actor=Actor(f"user:{name}-person"), now=timezone.now())
    LogEntry.objects.create(
        user=person(f"{name}-person", is_staff=True),
        content_type=ContentType.objects.get_for_model(row),
        object_id=str(row.pk),
        object_repr=f"{name}-entry",
        action_flag=CHANGE,
        change_message=f"{name}-message",
    )


def run(fleet: Fleet, ids: dict[Any, Any] | None) -> None:
    """Two starts, the second one by a key that stays; with the ids of the records if they are given."""
    organization = fleet.organization
    if not ids:
        lasting = factories.issue_key(organization, name=f"{organization.pk}-lasting-key")
        assert start(fleet, {"system_info": {"hostname": f"{organization.pk}-host"}}).status_code == 200
        assert start(fleet, token=lasting.token.reveal()).status_code == 200
        return
    now = timezone.now()
    WorkerInstance.objects.create(
        id=ids[WorkerInstance],
        organization=organization,
        worker=fleet.worker,
        queue=fleet.queue,
        hostname=f"{organization.pk}-host",
        api_key_id=fleet.api_key.pk,
        started_at=now,
        last_heartbeat_at=now,
    )


def remove_all_but_records(fleet: Fleet) -> None:
    """As their deletion leaves it, whose order does not matter here."""
    organization = fleet.organization
    factories.point(organization, temporal_connection=None, litellm_connection=None, telemetry_settings=None)
    WorkerInstance.objects.filter(organization=organization).delete()
    fleet.api_key.delete()
    for model in TAKEN[1:]:
        if model is not ApiKey:
            model._default_manager.filter(organization=organization).delete()


def text_of(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code in {200, 302, 403, 404}, address
    return unescape(response.content.decode()) if response.status_code == 200 else ""


def pages_about(organization_id: str) -> list[str]:
    """Every page of a row, whose organization this is."""
    found = []
    for model in REGISTERED:
        path = getattr(model, "organization_id", None) and ("pk" if model is factories.Organization else "organization")
        rows = model._default_manager.filter(**{path: organization_id}) if path else []
        named = {name: count for name, count in routes_of(model).items() if count == 1 and "bulk" not in name}
        found += [reverse(f"admin:{name}", args=[row.pk]) for row in rows for name in named if "verify" not in name]
    return found


@pytest.mark.parametrize(("mine", "foreign"), [(MAUVE, OCHRE), (OCHRE, MAUVE)])
def test_no_page_of_one_organization_tells_of_another_by_an_id(
    mine: str, foreign: str, fleets: dict[str, Fleet]
) -> None:
    """Looked at by whoever sees the first only, and by whoever sees both."""
    viewer, both = (member(fleets[mine].organization, Role.VIEWER, name) for name in ("viewer", "both"))
    Membership.objects.create(organization=fleets[foreign].organization, user=both, role=Role.VIEWER)
    lists = [url(model, "changelist") for model in REGISTERED]
    pages = pages_about(mine)
    assert len(pages) > (20 if mine == MAUVE else 40)
    leaks = [
        f"{page}: {text[max(found.start() - 80, 0) : found.end() + 40]}"
        for client, addresses in ((signed_in(viewer), [*pages, *lists]), (signed_in(both), pages))
        for page in addresses
        for text in [text_of(client, page)]
        for found in re.finditer(foreign, text)
    ]
    assert leaks == []


@pytest.mark.parametrize("model", [AuditEvent, WorkerStart, ApiKey])
def test_no_record_links_to_what_has_its_id_now(model: type[models.Model], fleets: dict[str, Fleet]) -> None:
    """For a superuser, too, who may see both."""
    client = signed_in(person(is_staff=True, is_superuser=True))
    rows: Any = model._default_manager.filter(organization=MAUVE)
    pages = [url(model, "change", row.pk) for row in rows]
    assert pages
    taken: list[Any] = [row for kind in TAKEN for row in kind._default_manager.filter(organization=OCHRE)]
    foreign = {url(type(row), "change", row.pk) for row in taken}
    for page in pages:
        assert foreign & set(re.findall(r'href="([^"?#]+)', text_of(client, page))) == set(), page


def test_a_list_links_no_event_to_what_has_its_id_now(fleets: dict[str, Fleet]) -> None:
    client = signed_in(person(is_staff=True, is_superuser=True))
    rows = client.get(url(AuditEvent, "changelist"), {"organization": MAUVE}).context["cl"].result_list
    linked = {row.object_type for row in rows if row.page}
    assert linked == {"organization", "apikey"}  # which are there still
    assert {row.object_type for row in rows} > linked


def test_the_use_of_a_key_is_told_within_its_organization(fleets: dict[str, Fleet]) -> None:
    now = timezone.now()
    key = ApiKey.objects.get(name=f"{MAUVE}-lasting-key")
    history = history_of(key, now)
    assert [(use.name, use.worker) for use in history.workers.rows] == [(f"{MAUVE}-worker", None)]
    assert len(history.credentials.rows) == 2
    assert {use.connection for use in history.credentials.rows} == {None}
    taken = ApiKey.objects.get(name=f"{OCHRE}-worker-key")
    assert history_of(taken, now).starts == 0
    assert last_used([taken.pk])[taken.pk] == reach_of(taken, now).last_heartbeat_at
    assert CredentialConnection.__subclasses__() == [TemporalConnection, LiteLLMConnection]


def test_who_made_a_queue_is_told_within_its_organization(fleets: dict[str, Fleet]) -> None:
    queue = fleets[OCHRE].queue
    event = AuditEvent(organization_id=MAUVE, action="worker_queue.created", actor="user:mauve-person")
    event.object_type, event.object_id, event.occurred_at = "workerqueue", str(queue.pk), timezone.now()
    event.save()
    key = factories.issue_token(fleets[OCHRE].organization)
    answers = [
        Client().get(f"/api/v1/{path}", HTTP_AUTHORIZATION=f"Bearer {key}")
        for path in ("worker-queues", f"worker-queues/{queue.pk}", "environments")
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert MAUVE not in str([answer.content for answer in answers])
