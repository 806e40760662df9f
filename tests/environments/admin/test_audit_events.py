"""The trail in the console: who did what, found by filters that scale, with links that respect roles, and escaped."""

from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from environments import audit
from environments.audit import Actor
from environments.models import AuditEvent, Organization, Role
from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.console import everything, member, person, signed_in, url
from tests.support.factories import Fleet

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

LIST = "/admin/environments/auditevent/"
HOSTILE = '</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\u202egpj"'


@pytest.fixture
def fleet(db: None) -> Fleet:
    """With nothing on record but its key."""
    return fresh_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def record(subject: Any, action: str = "worker.updated", actor: str = "user:ann", **kwargs: Any) -> AuditEvent:
    return audit.record(action, subject, actor=Actor(actor, "203.0.113.7"), **{"now": timezone.now(), **kwargs})


def found(client: Client, query: str) -> list[str]:
    """The actions of the events that the list shows."""
    response = client.get(f"{LIST}{query}")
    assert response.status_code == 200, (query, response.status_code)
    return [row.action for row in response.context["cl"].result_list]


def text_of(client: Client, event: AuditEvent) -> str:
    response = client.get(url(AuditEvent, "change", event.pk))
    assert response.status_code == 200
    return str(response.content.decode())


# --- The list --------------------------------------------------------------------------------------------------------------


def test_the_list_tells_who_did_what_from_where_to_which_object_with_which_fields(client: Client, fleet: Fleet) -> None:
    record(fleet.worker, changes={"is_disabled": [False, True], "labels": ["", "gpu"]})
    page = client.get(f"{LIST}?by=user").content.decode()
    for told in ("user:ann", "worker.updated", str(fleet.worker), fleet.organization.pk, "203.0.113.7"):
        assert told in page
    assert "is disabled, labels" in page
    assert f'href="{url(type(fleet.worker), "change", fleet.worker.pk)}"' in page


@pytest.mark.parametrize(
    ("query", "actions"),
    [
        ("", ["worker.updated", "api_key.rotated", "user.logged_in", "worker_queue.deleted", "api_key.issued"]),
        ("?did=changed", ["worker.updated"]),
        ("?did=keys", ["api_key.rotated", "api_key.issued"]),
        ("?did=removed", ["worker_queue.deleted"]),
        ("?did=person", ["user.logged_in"]),
        ("?of=workerqueue", ["worker_queue.deleted"]),
        ("?by=command", ["worker_queue.deleted", "api_key.issued"]),
        ("?by=key", ["api_key.rotated"]),
        ("?period=24h", ["worker.updated", "api_key.rotated", "user.logged_in", "api_key.issued"]),
        ("?period=7d&by=command", ["worker_queue.deleted", "api_key.issued"]),
        ("?q=ann", ["worker.updated", "user.logged_in"]),
        ("?actor=user:ann&action=worker.updated", ["worker.updated"]),
    ],
)
def test_filters_and_search_find(client: Client, fleet: Fleet, query: str, actions: list[str]) -> None:
    record(fleet.queue, "worker_queue.deleted", "command:apply", now=timezone.now() - timedelta(days=3))
    record(person(), "user.logged_in")
    record(fleet.api_key, "api_key.rotated", f"key:{fleet.api_key.pk}")
    record(fleet.worker)
    assert sorted(found(client, query)) == sorted(actions)


def test_an_object_is_found_by_its_id_by_filter_and_by_search(client: Client, fleet: Fleet) -> None:
    record(fleet.worker)
    for query in ("object_id={}", "object_id__exact={}", "q={}"):
        assert found(client, f"?{query.format(fleet.worker.pk)}") == ["worker.updated"]
    assert found(client, f"?q={str(fleet.worker.pk).upper()}") == ["worker.updated"]


@pytest.mark.parametrize(
    "query",
    [
        "changes__is_disabled=1",
        "changes__contains=x",
        "object_id__startswith=6",
        "organization__name__contains=x",
        "organization__active_data_key__wrapped_key=x",
        "id__regex=.",
        "nonsense=1",
    ],
)
def test_nothing_else_can_be_asked(client: Client, fleet: Fleet, query: str) -> None:
    assert client.get(f"{LIST}?{query}").status_code == 400


@pytest.mark.parametrize(
    "query", ["period=x", "did=%00", "of='", "by=%", "object_id=%00", "q=%00", "period=7d&period=x"]
)
def test_odd_values_are_no_error(client: Client, fleet: Fleet, query: str) -> None:
    assert client.get(f"{LIST}?{query}").status_code in {200, 302, 400}


def test_the_lists_of_records_are_linked_with_the_same_period(client: Client, fleet: Fleet) -> None:
    page = client.get(f"{LIST}?period=7d").content.decode()
    for path in ("/admin/workers/workerstart/", "/admin/workers/workerinstance/", LIST):
        assert f'href="{path}?period=7d"' in page
    assert 'href="/admin/workers/workerstart/"' in client.get(LIST).content.decode()


def test_a_page_of_many_events_takes_as_many_statements_as_one_of_few(
    client: Client, fleet: Fleet, django_assert_max_num_queries: Any
) -> None:
    for number in range(60):
        record(factories.create_worker(fleet.queue, f"w-{number}"))
        record(fleet.queue, "worker_queue.updated")
    with django_assert_max_num_queries(6):
        client.get(LIST)


# --- Roles -----------------------------------------------------------------------------------------------------------------


def test_a_member_sees_the_events_of_their_organization_alone(fleet: Fleet) -> None:
    other = fresh_fleet()
    mine, foreign = record(fleet.worker), record(other.worker)
    general = record(person(), "user.logged_in")
    viewer = signed_in(member(fleet.organization, Role.VIEWER))
    assert "worker.updated" in found(viewer, "")
    assert {row.organization_id for row in viewer.get(LIST).context["cl"].result_list} == {fleet.organization.pk}
    assert found(viewer, f"?object_id={other.worker.pk}") == []
    assert viewer.get(url(AuditEvent, "change", mine.pk)).status_code == 200
    for event in (foreign, general):
        assert viewer.get(url(AuditEvent, "change", event.pk)).status_code in {302, 404}


def test_an_object_is_linked_only_while_it_is_there_and_only_for_who_may_see_it(fleet: Fleet) -> None:
    data_key = fleet.organization.active_data_key
    gone = factories.create_worker(fleet.queue, "gone")
    record(gone)
    record(data_key, "data_key.rewrapped")
    address, key_address = url(type(gone), "change", gone.pk), url(type(data_key), "change", data_key.pk)
    gone.delete()
    viewer, administrator = (signed_in(member(fleet.organization, role)) for role in (Role.VIEWER, Role.ADMINISTRATOR))
    pages = [client.get(LIST).content.decode() for client in (viewer, administrator)]
    assert [address in page for page in pages] == [False, False]
    assert [key_address in page for page in pages] == [False, True]


def test_odd_objects_are_no_error(client: Client, fleet: Fleet) -> None:
    for kind in ("worker", "user", "organization", "nonsense", ""):
        AuditEvent.objects.create(
            occurred_at=timezone.now(),
            actor="?",
            action="odd",
            object_type=kind,
            object_id="'\u202e",
            object_name=HOSTILE,
        )
    assert found(client, "?action=odd") == ["odd"] * 5
    for event in AuditEvent.objects.filter(action="odd"):
        text_of(client, event)


# --- One event -------------------------------------------------------------------------------------------------------------


def test_an_event_shows_each_field_before_and_after(client: Client, fleet: Fleet) -> None:
    page = text_of(
        client,
        record(
            fleet.worker,
            changes={"is_disabled": [False, True], "description": [None, "new"], "rules": [{"a": 1}, [HOSTILE]]},
        ),
    )
    rows = page[page.index('id="changes"') :]
    assert "<bdi>is disabled</bdi>" in rows
    assert "<bdi>no</bdi>" in rows
    assert "<bdi>yes</bdi>" in rows
    assert "<bdi>new</bdi>" in rows
    assert "{\n  &quot;a&quot;: 1\n}" in rows


def test_hostile_names_and_values_are_text(client: Client, fleet: Fleet) -> None:
    event = record(fleet.worker, changes={HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}], "x": "odd"})
    AuditEvent.objects.bulk_create(
        [AuditEvent(occurred_at=timezone.now(), actor=HOSTILE, action="x", object_name=HOSTILE, object_id="1")]
    )
    for page in (text_of(client, event), client.get(LIST).content.decode()):
        assert "<img" not in page
        assert HOSTILE in unescape(page).replace('\\"', '"')


def test_a_long_value_and_many_fields_stay_a_page(client: Client, fleet: Fleet) -> None:
    changes = {f"field-{number}": ["x" * 50_000, "y"] for number in range(300)}
    page = text_of(client, record(fleet.worker, changes=changes))
    assert len(page) < 600_000
    assert "and 48000 more" in page
    assert "and 295 more" in client.get(LIST).content.decode()


def test_nobody_changes_the_trail(client: Client, fleet: Fleet) -> None:
    event = record(fleet.worker)
    before = everything()
    for page in ("change", "delete"):
        assert client.post(url(AuditEvent, page, event.pk), {"post": "yes"}).status_code == 403
    client.get(LIST)
    assert everything() == before


def test_an_organization_s_own_event_links_to_it(client: Client, fleet: Fleet) -> None:
    record(fleet.organization, "organization.updated")
    assert f'href="{url(Organization, "change", fleet.organization.pk)}"' in client.get(LIST).content.decode()
