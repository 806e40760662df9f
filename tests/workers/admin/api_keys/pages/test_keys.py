"""A key's page: who may see it, issue, rotate and revoke."""

import re
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from environments.encryption import Secret
from environments.models import AuditEvent, Role, TemporalConnection
from environments.sealing.data_keys import seal_api_key
from tests.support import factories
from tests.support.calls import start
from tests.support.console import HOSTILE, everything
from tests.support.factories import ACTOR, Fleet
from tests.support.key_pages import listed, member_of, page, statements, url
from workers.api_keys.issuing import revoke_api_key, rotate_api_key
from workers.models import ApiKey, Refusal, WorkerInstance, WorkerStart

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


def repeat_starts(fleet: Fleet, count: int, **fields: Any) -> None:
    """Many rows of the ledger, each a second older than the one before."""
    first = WorkerStart.objects.latest("started_at")
    values = {field.attname: getattr(first, field.attname) for field in WorkerStart._meta.concrete_fields}
    WorkerStart.objects.bulk_create(
        WorkerStart(
            **values
            | {"id": uuid4(), "started_at": first.started_at - timedelta(seconds=number)}
            | {name: value(number) for name, value in fields.items()}
        )
        for number in range(1, count + 1)
    )


def test_a_viewer_sees_the_pages_but_changes_nothing(fleet: Fleet) -> None:
    viewer, key = member_of(fleet, Role.VIEWER), fleet.api_key.pk
    for address in (url("changelist"), url("change", key), url("calendar"), url("whose")):
        assert viewer.get(address).status_code == 200
    before = everything()
    for address in (url("add"), url("rotate", key), url("revoke", key)):
        assert viewer.get(address).status_code == 403
        assert viewer.post(address, {"name": "k", "grace_hours": 1, "reason": "r"}).status_code == 403
    assert everything() == before
    assert "Revoke" not in page(viewer, url("change", key))


def test_keys_of_other_organizations_do_not_exist_for_an_operator(fleet: Fleet) -> None:
    operator, other = member_of(fleet, Role.OPERATOR), factories.create_fleet()
    factories.issue_key(other.worker, name="key-of-others", lifetime=None, no_expiry_reason="reason-of-others")
    factories.issue_key(other.worker, name="key-that-ends", lifetime=timedelta(days=2))
    other.temporal.api_key_expires_on = timezone.now().date()
    other.temporal.save()
    before = everything()
    for address in (url("rotate", other.api_key.pk), url("revoke", other.api_key.pk)):
        assert operator.get(address).status_code == 404
        assert operator.post(address, {"grace_hours": 1, "reason": "r"}).status_code == 404
    assert operator.get(url("change", other.api_key.pk)).status_code == 302
    response = operator.post(url("add"), {"name": "k", "days": 1, "scope": "worker", "worker": other.worker.pk})
    assert "Select a valid choice" in response.content.decode()
    assert everything() == before
    for address in (url("calendar"), url("changelist"), url("add", worker=other.worker.pk)):
        content = page(operator, address)
        assert other.organization.pk not in content.replace(address, "")
        assert "key-of-others" not in content


def test_an_operator_issues_rotates_and_revokes(fleet: Fleet) -> None:
    operator = member_of(fleet, Role.OPERATOR)
    data = {"name": "fresh", "days": 9, "scope": "queue", "queue": fleet.queue.pk}
    assert 'id="api-key"' in operator.post(url("add"), data).content.decode()
    key = ApiKey.objects.get(name="fresh")
    assert (key.scope, key.queue_id, key.created_by) == ("queue", fleet.queue.pk, "user:operator")
    assert 'id="api-key"' in operator.post(url("rotate", key.pk), {"grace_hours": 1}).content.decode()
    assert operator.post(url("revoke", key.pk), {"reason": "unused"}).status_code == 302
    key.refresh_from_db()
    assert (key.revoke_reason, key.revoked_at is not None) == ("unused", True)


def test_looking_changes_nothing(fleet: Fleet, client: Client) -> None:
    start(fleet)
    key = fleet.api_key.pk
    before = everything()
    for address in (
        *(url("changelist"), url("changelist", state="replaced"), url("calendar"), url("whose", text=fleet.token)),
        *(url("add", worker=fleet.worker.pk), url("change", key)),
        *(url("rotate", key, grace_hours=1), url("revoke", key, reason="r", is_confirmed="on")),
    ):
        page(client, address)
    assert everything() == before


@pytest.mark.parametrize("scope", ["worker", "queue", "environment", "organization"])
def test_a_link_chooses_what_the_key_is_for(scope: str, fleet: Fleet, client: Client) -> None:
    target = getattr(fleet, scope)
    response = client.get(url("add", **{scope: target.pk}))
    form = response.context["adminform"].form
    assert (form["scope"].value(), str(form[scope].value())) == (scope, str(target.pk))
    assert str(target) in response.content.decode()


@pytest.mark.parametrize("given", ["x", "\x00", "a" * 5_000, "' OR 1=1", "00000000-0000-4000-8000-000000000000", "é"])
@pytest.mark.parametrize("scope", ["worker", "organization"])
def test_a_link_with_an_odd_id_opens_the_form(given: str, scope: str, fleet: Fleet, client: Client) -> None:
    assert client.get(url("add", **{scope: given})).status_code == 200


def test_the_scope_says_which_of_the_chosen_objects_counts(fleet: Fleet, client: Client) -> None:
    both = {"name": "k", "days": 1, "worker": fleet.worker.pk, "queue": fleet.queue.pk}
    client.post(url("add"), {**both, "scope": "queue"})
    assert ApiKey.objects.get(name="k").scope == "queue"
    response = client.post(url("add"), {**both, "scope": "environment"})
    assert "Choose the environment, or another scope." in response.content.decode()


def test_a_key_for_an_organization_is_asked_for_again_with_the_number_of_workers(fleet: Fleet, client: Client) -> None:
    for number in range(3):
        factories.create_worker(fleet.queue, f"more-{number}")
    data = {"name": HOSTILE, "days": 9, "scope": "organization", "organization": fleet.organization.pk}
    before = everything()
    content = client.post(url("add"), data).content.decode()
    assert "4 workers can be started with it" in content
    assert escape(HOSTILE) in content
    assert HOSTILE not in content
    other = factories.create_organization("another")
    before = everything()
    client.post(url("add"), {**data, "_confirmed": other.pk})
    assert everything() == before
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', content))
    fields = {name: unescape(value) for name, value in fields.items() if name != "csrfmiddlewaretoken"}
    response = client.post(url("add"), fields)
    assert 'id="api-key"' in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    assert ApiKey.objects.get(scope="organization").organization == fleet.organization


def test_a_key_for_a_queue_comes_with_the_command_that_starts_a_worker(fleet: Fleet, client: Client) -> None:
    data = {"name": "k", "days": 9, "scope": "queue", "queue": fleet.queue.pk}
    content = unescape(client.post(url("add"), data).content.decode())
    assert f"QUEUE_ID={fleet.queue.pk}" in content
    assert f"/api/v1/worker-queues/{fleet.queue.pk}/install-script" in content


def test_a_keys_page_tells_what_it_was_used_for(fleet: Fleet, client: Client) -> None:
    start(fleet, {"system_info": {"hostname": "gpu-box-7"}}, REMOTE_ADDR="127.0.0.9")
    seal_api_key(fleet.temporal, Secret("another"), now=timezone.now())
    fleet.temporal.save()
    revoked = factories.issue_key(fleet.worker, name="unused").row
    content = page(client, url("change", fleet.api_key.pk))
    for text in ("gpu-box-7", "Online", str(fleet.worker), "127.0.0.9", str(fleet.temporal), "api_key.issued"):
        assert text in content
    assert "Replaced by version 2" in content
    assert content.count("Still current") == 1
    assert "all its 1 start." in content
    assert "never" in page(client, url("change", revoked.pk))


def test_a_server_that_takes_no_key_gave_no_credential(fleet: Fleet, client: Client) -> None:
    open_server = TemporalConnection.objects.create(
        organization=fleet.organization,
        name="open",
        host="open.example.com:7233",
        namespace="n",
        requires_api_key=False,
    )
    factories.point(fleet.queue, temporal_connection=open_server)
    assert start(fleet).status_code == 200
    content = page(client, url("change", ApiKey.objects.get().pk))
    assert str(open_server) not in content
    assert content.count("Still current") == 1


def test_the_last_refused_start_is_told(fleet: Fleet, client: Client) -> None:
    Refusal.objects.create(
        id=fleet.api_key.pk,
        organization=fleet.organization,
        api_key=fleet.api_key,
        worker_id=fleet.worker.pk,
        occurred_at=timezone.now(),
        status=409,
        reason=HOSTILE,
        client_address="192.0.2.8",
    )
    content = client.get(url("change", fleet.api_key.pk)).content.decode()
    assert escape(HOSTILE) in content
    assert "192.0.2.8" in content
    Refusal.objects.update(worker_id=uuid4())
    assert "that this organization does not have" in page(client, url("change", fleet.api_key.pk))


def test_a_replaced_key_tells_who_still_uses_it(fleet: Fleet, client: Client) -> None:
    start(fleet)
    successor = rotate_api_key(fleet.api_key.pk, actor=ACTOR, now=timezone.now())
    assert "1 live worker still uses this one" in page(client, url("change", fleet.api_key.pk))
    assert listed(client, state="replaced") == {fleet.api_key.name}
    start(fleet, token=successor.token.reveal())
    WorkerInstance.objects.filter(is_current=False).update(stopped_at=timezone.now())
    assert "no live worker uses this one any more" in page(client, url("change", fleet.api_key.pk))
    assert listed(client, state="replaced") == set()
    assert "Replaces" in page(client, url("change", successor.row.pk))


def test_an_older_process_that_lives_counts_as_well(fleet: Fleet, client: Client) -> None:
    start(fleet, {"system_info": {"hostname": "first", "pid": 1}})
    start(fleet, {"system_info": {"hostname": "second", "pid": 2}}, token=factories.issue_token(fleet.worker))
    content = page(client, url("change", fleet.api_key.pk))
    assert "1 live worker used this key" in content
    assert "first" in content
    assert "second" not in content


def test_whatever_a_worker_or_a_person_told_is_text(fleet: Fleet, client: Client) -> None:
    start(fleet, {"system_info": {"hostname": HOSTILE}})
    row = factories.issue_key(fleet.worker, name=HOSTILE, lifetime=None, no_expiry_reason=HOSTILE).row
    revoke_api_key(row.pk, reason=HOSTILE, actor=ACTOR, now=timezone.now())
    factories.issue_key(fleet.worker, name=HOSTILE, lifetime=None, no_expiry_reason=HOSTILE)
    keys = (fleet.api_key.pk, row.pk)
    for address in (
        *(url(name, key) for key in keys for name in ("change", "rotate", "revoke")),
        *(url("changelist"), url("calendar")),
    ):
        content = client.get(address).content.decode()
        assert escape(HOSTILE) in content, address
        assert "<div x-init=alert" not in content, address


def test_a_key_with_many_starts_is_told_of_its_latest_ones_only(fleet: Fleet, client: Client) -> None:
    start(fleet)
    few = statements(client, url("change", fleet.api_key.pk))
    repeat_starts(
        fleet,
        1_200,
        worker_id=lambda _: uuid4(),
        client_address=lambda number: f"10.0.{number // 250}.{number % 250}",
        temporal_api_key_version=lambda number: number,
    )
    content = page(client, url("change", fleet.api_key.pk))
    assert "its latest 1000 starts; there were more" in content
    assert "And 950 more." in content
    assert content.count("<tr>") < 250
    assert statements(client, url("change", fleet.api_key.pk)) == few == 13


def test_the_page_that_rotates_tells_who_needs_the_new_key(fleet: Fleet, client: Client) -> None:
    assert "No live worker uses it." in page(client, url("rotate", fleet.api_key.pk))
    start(fleet)
    assert "1 live worker runs with it and needs the new key" in page(client, url("rotate", fleet.api_key.pk))


def test_a_used_key_is_revoked_only_when_that_is_confirmed(fleet: Fleet, client: Client) -> None:
    start(fleet)
    address = url("revoke", fleet.api_key.pk)
    assert "1 live worker runs with it" in page(client, address)
    before = everything()
    response = client.post(address, {"reason": "leaked"})
    assert response.context["form"].errors["is_confirmed"]
    assert everything() == before
    assert client.post(address, {"reason": "leaked", "is_confirmed": "on"}).status_code == 302
    assert start(fleet).status_code == 401
    assert AuditEvent.objects.filter(action="api_key.revoked", actor="user:root").count() == 1
