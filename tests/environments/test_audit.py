from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from environments import audit
from environments.audit import Actor
from environments.fields import SealedField
from environments.models import AuditEvent, TemporalConnection
from tests.support import factories
from tests.support.factories import Fleet
from workers.fleet.kinds import CONNECTIONS, ENVIRONMENT, ORGANIZATION, WORKER, WORKER_QUEUE

pytestmark = pytest.mark.sqlite


def record(subject: Any, **kwargs: Any) -> AuditEvent:
    return audit.record("thing.changed", subject, actor=Actor("user:ann", "203.0.113.7"), now=timezone.now(), **kwargs)


def test_tells_who_did_what_to_which_object(fleet: Fleet) -> None:
    event = AuditEvent.objects.get(pk=record(fleet.worker, changes={"is_disabled": [False, True]}).pk)
    assert (event.actor, event.client_address, event.action) == ("user:ann", "203.0.113.7", "thing.changed")
    assert (event.object_type, event.object_id) == ("worker", str(fleet.worker.pk))
    assert event.object_name == f"{fleet.organization.id}/worker-1"
    assert event.organization_id == fleet.organization.id
    assert event.changes == {"is_disabled": [False, True]}


def test_an_organizations_own_event_belongs_to_it(fleet: Fleet) -> None:
    assert record(fleet.organization).organization_id == fleet.organization.id


def test_an_event_of_no_organization_is_possible(fleet: Fleet) -> None:
    assert record(get_user_model()(username="ann")).organization_id is None


def test_long_names_are_cut_and_not_refused(fleet: Fleet) -> None:
    event = audit.record("a", fleet.worker, actor=Actor("user:" + "x" * 500), now=timezone.now())
    assert len(event.actor) == 200


def test_an_event_vanishes_with_the_transaction_of_what_it_tells_of(fleet: Fleet) -> None:
    before = AuditEvent.objects.count()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        record(fleet.worker)
        _ = 1 / 0
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("column", [field.column for field in AuditEvent._meta.concrete_fields])
def test_the_database_refuses_to_change_an_event(fleet: Fleet, column: str) -> None:
    event = record(fleet.worker)
    before = AuditEvent.objects.filter(pk=event.pk).values().get()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE environments_auditevent SET {column} = {column}")  # noqa: S608
    assert AuditEvent.objects.filter(pk=event.pk).values().get() == before


def test_the_database_refuses_to_change_an_event_through_the_orm(fleet: Fleet) -> None:
    event = record(fleet.worker)
    event.actor = "user:nobody"
    with pytest.raises(IntegrityError), transaction.atomic():
        event.save()


def test_a_snapshot_shows_no_sealed_text_and_no_hash(fleet: Fleet) -> None:
    for row in (fleet.temporal, fleet.litellm, fleet.api_key, get_user_model()(username="ann", password="pbkdf2$x")):
        shown = audit.snapshot(row)
        hidden = [f.name for f in row._meta.concrete_fields if isinstance(f, SealedField)] + ["token_hash", "password"]
        assert not set(hidden) & set(shown)
        assert "cp1." not in str(shown)
    assert audit.snapshot(fleet.temporal)["api_key_fingerprint"] == fleet.temporal.api_key_fingerprint


def test_the_difference_of_two_snapshots_names_what_changed(fleet: Fleet) -> None:
    before = audit.snapshot(fleet.temporal)
    fleet.temporal.host = "elsewhere:7233"
    assert audit.difference(before, audit.snapshot(fleet.temporal)) == {
        "host": ["temporal.example.com:7233", "elsewhere:7233"]
    }


def test_no_event_of_issuing_a_key_holds_the_key_or_its_hash(fleet: Fleet) -> None:
    token = factories.issue_token(fleet.organization, name="all")
    event = AuditEvent.objects.filter(action="api_key.issued").latest("occurred_at")
    assert event.object_name == "all"
    for text in (token, token.split(".")[2], fleet.api_key.token_hash):
        assert text not in str(AuditEvent.objects.values_list())


def test_the_trail_of_a_connection_holds_no_secret(fleet: Fleet) -> None:
    row = TemporalConnection.objects.get(pk=fleet.temporal.pk)
    event = record(row, changes=audit.difference({}, audit.snapshot(row)))
    assert fleet.temporal_secret not in str(event.changes)
    assert row.sealed_api_key not in str(event.changes)


def test_a_kind_has_one_name_whoever_acts() -> None:
    """The console and a fleet's document name an action alike, so that one search finds both."""
    for kind in (ORGANIZATION, ENVIRONMENT, WORKER_QUEUE, WORKER, *CONNECTIONS.values()):
        assert audit.kind_of(kind.model()) == kind.name
