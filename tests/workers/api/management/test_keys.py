"""API keys that a key issues, rotates and revokes: none has more than the one that makes it."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from environments.models import AuditEvent
from tests.support import documents, factories
from tests.support.factories import Fleet
from tests.support.managing import Manager
from tests.support.reading import call
from workers.models import ApiKey, KeyRole, Worker

SCOPES = ("organization", "environment", "queue", "worker")


def body_for(fleet: Fleet, scope: str, **more: Any) -> dict[str, Any]:
    target = {} if scope == "organization" else {f"{scope}_id": str(getattr(fleet, scope).pk)}
    return {"name": "made", **target, **more}


@pytest.mark.sqlite
def test_a_key_makes_no_key_with_more_than_it_has(fleet: Fleet) -> None:
    other = factories.create_fleet()
    far = factories.create_queue(factories.create_environment(fleet.organization, "far"))
    for own in SCOPES[:3]:
        manager = Manager(getattr(fleet, own))
        for scope in SCOPES:
            for role in KeyRole.values:
                is_within = SCOPES.index(scope) >= SCOPES.index(own)
                is_nothing = (scope, role) == ("worker", "manager")
                for query in ("?dry_run=true", ""):
                    made = manager.ask("POST", f"/api-keys{query}", body_for(fleet, scope, role=role))
                    expected = 422 if is_nothing else (200 if query else 201) if is_within else 403
                    assert made.status_code == expected, (own, scope, role)
                if made.status_code == 201:
                    row = ApiKey.objects.get(pk=made.json()["id"])
                    assert (row.scope, row.role, row.created_by) == (scope, role, f"key:{manager.key.pk}")
                    assert manager.ask("POST", f"/api-keys/{row.pk}/rotate", {}).status_code == 201
        assert manager.ask("POST", "/api-keys", body_for(other, "queue")).status_code == 404
        reaches_far = 201 if own == "organization" else 403
        assert manager.ask("POST", "/api-keys", {"name": "made", "queue_id": str(far.pk)}).status_code == reaches_far
        wide = factories.issue_key(far, role=KeyRole.MANAGER).row
        for action, body in (("rotate", {}), ("revoke", {"reason": "leaked"})):
            reached = manager.ask("POST", f"/api-keys/{wide.pk}/{action}", body).status_code
            assert (reached in {200, 201}) == (own == "organization")
            reached = manager.ask("POST", f"/api-keys/{other.api_key.pk}/{action}", body).status_code
            assert reached == 404


def test_a_key_that_expires_makes_none_that_never_does(fleet: Fleet) -> None:
    endless = {"lifetime_days": None, "no_expiry_reason": "a reason"}
    manager = Manager(fleet.organization)
    mine = factories.issue_key(fleet.queue, lifetime=None, no_expiry_reason="a reason").row
    for query in ("", "?dry_run=true"):
        assert manager.ask("POST", f"/api-keys{query}", body_for(fleet, "queue", **endless)).status_code == 409
        assert manager.ask("POST", f"/api-keys/{mine.pk}/rotate{query}", {}).status_code == 409
    eternal = Manager(fleet.organization, lifetime=None, no_expiry_reason="a reason")
    made = eternal.told("POST", "/api-keys", body_for(fleet, "queue", **endless), status=201)
    assert (made["expires_at"], made["no_expiry_reason"]) == (None, "a reason")


@pytest.mark.sqlite
def test_a_managers_key_was_used_when_it_changed_something(fleet: Fleet) -> None:
    manager = Manager(fleet.organization)
    own = f"/api-keys/{manager.key.pk}"
    assert manager.told("GET", own)["last_used_at"] is None  # reading is not noted
    manager.told("POST", "/api-keys", body_for(fleet, "queue"), status=201)
    changed = AuditEvent.objects.get(actor=f"key:{manager.key.pk}").occurred_at
    assert timezone.datetime.fromisoformat(manager.told("GET", own)["last_used_at"]) == changed


@pytest.mark.sqlite
def test_an_issued_key_works_as_it_was_asked_for(fleet: Fleet) -> None:
    manager = Manager(fleet.environment)
    made = manager.told("POST", "/api-keys", body_for(fleet, "worker", lifetime_days=7), status=201)
    lived = timezone.datetime.fromisoformat(made["expires_at"]) - timezone.now()
    assert timedelta(days=6) < lived < timedelta(days=7)
    assert (made["state"], made["last_used_at"], made["role"]) == ("usable", None, "worker")
    fleet.token = made["api_key"]
    call(fleet, "start")
    shown = manager.told("GET", f"/api-keys/{made['id']}")
    assert shown.keys() == made.keys() - {"api_key"}
    assert shown["last_used_at"] is not None
    successor = manager.told("POST", f"/api-keys/{made['id']}/rotate", {"grace_hours": 0}, status=201)
    assert manager.told("GET", f"/api-keys/{made['id']}")["replaced_by"] == successor["id"]
    assert manager.told("GET", f"/api-keys/{made['id']}")["state"] == "expired"
    revoked = manager.told("POST", f"/api-keys/{successor['id']}/revoke", {"reason": "leaked"})
    assert (revoked["state"], revoked["revoke_reason"]) == ("revoked", "leaked")
    again = manager.told("POST", f"/api-keys/{successor['id']}/revoke", {"reason": "another"})
    assert again["revoke_reason"] == "leaked"
    told = {event.action for event in AuditEvent.objects.filter(actor=f"key:{manager.key.pk}")}
    assert told == {"api_key.issued", "api_key.rotated", "api_key.revoked"}
    assert made["api_key"] not in str(list(AuditEvent.objects.values_list("changes", flat=True)))


def test_a_key_rotates_and_revokes_itself(fleet: Fleet) -> None:
    manager = Manager(fleet.queue)
    successor = manager.told("POST", f"/api-keys/{manager.key.pk}/rotate", {}, status=201)
    assert (successor["scope"], successor["role"]) == ("queue", "manager")
    manager.told("POST", f"/api-keys/{manager.key.pk}/revoke", {"reason": "replaced"})
    assert manager.ask("GET", "/api-keys").status_code == 401


REFUSED: dict[str, dict[str, Any]] = {
    "name": {"name": ""},
    "name of blanks": {"name": "  "},
    "name too long": {"name": "x" * 201},
    "no role": {"role": "owner"},
    "two targets": {"queue_id": "{queue}"},
    "no id": {"worker_id": "x"},
    "no lifetime": {"lifetime_days": 0},
    "too long": {"lifetime_days": 731},
    "a text": {"lifetime_days": "7"},
    "no reason": {"lifetime_days": None},
    "blank reason": {"lifetime_days": None, "no_expiry_reason": " "},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_key_can_be_is_refused(fleet: Fleet, name: str) -> None:
    manager = Manager(fleet.organization)
    body = body_for(fleet, "worker") | REFUSED[name]
    if name == "two targets":
        body["queue_id"] = str(fleet.queue.pk)
    before = documents.everything()
    assert manager.ask("POST", "/api-keys", body).status_code == 422
    path = f"/api-keys/{fleet.api_key.pk}"
    for bad in ({"grace_hours": -1}, {"grace_hours": 721}, {"grace_hours": "1"}, {"grace_hours": None}):
        assert manager.ask("POST", f"{path}/rotate", bad).status_code == 422
    for bad in ({}, {"reason": ""}, {"reason": " "}, {"reason": "x" * 301}, {"reason": 1}):
        assert manager.ask("POST", f"{path}/revoke", bad).status_code == 422
    assert documents.everything() == before


def test_a_key_that_has_ended_has_no_successor(fleet: Fleet) -> None:
    manager, path = Manager(fleet.organization), f"/api-keys/{fleet.api_key.pk}"
    manager.told("POST", f"{path}/rotate", {}, status=201)
    assert "already rotated" in manager.told("POST", f"{path}/rotate", {}, status=409)["detail"]
    manager.told("POST", f"{path}/revoke", {"reason": "leaked"})
    for query in ("", "?dry_run=true"):
        assert manager.ask("POST", f"{path}/rotate{query}", {}).status_code == 409
    assert manager.told("POST", f"{path}/revoke?dry_run=true", {"reason": "again"})["changes"] == {}


@pytest.mark.sqlite
def test_workers_are_made_moved_and_deleted_within_the_scope(fleet: Fleet) -> None:
    near = factories.create_queue(fleet.environment, "near")
    far = factories.create_queue(factories.create_environment(fleet.organization, "far"))
    manager = Manager(fleet.environment)
    for queue, status in ((near, 201), (far, 403), (factories.create_fleet().queue, 404)):
        body = {"name": "made", "queue_id": str(queue.pk), "labels": "gpu, eu"}
        made = manager.told("POST", "/registered-workers", body, status=status)
        path = f"/registered-workers/{fleet.worker.pk}"
        assert manager.ask("PATCH", f"{path}?dry_run=true", {"queue_id": str(queue.pk)}).status_code in {200, status}
        if status == 201:
            assert (made["liveness"], made["labels"], made["task_queue_name"]) == (
                "Never started",
                "gpu, eu",
                near.task_queue_name,
            )
            manager.told("POST", "/registered-workers", body, status=409)
            manager.told("DELETE", f"/registered-workers/{made['id']}", status=204)
    call(fleet, "start")
    refused = manager.told("PATCH", path, {"queue_id": str(near.pk)}, status=409)
    assert "1 live process of it polls" in refused["detail"]
    refused = manager.told("DELETE", path, status=409)
    assert refused["detail"] == "It cannot be deleted: 1 process of it is live, and 1 usable API key is for it."
    call(fleet, "disconnect")
    assert manager.told("PATCH", path, {"queue_id": str(near.pk)})["queue_id"] == str(near.pk)
    manager.told("PATCH", path, {"is_disabled": True})
    with pytest.raises(AssertionError, match="This worker is disabled"):
        call(fleet, "start")
    manager.told("PATCH", path, {"is_disabled": False})
    manager.told("POST", f"/api-keys/{fleet.api_key.pk}/revoke", {"reason": "gone"})
    manager.told("DELETE", path, status=204)
    assert not Worker.objects.filter(pk=fleet.worker.pk).exists()
