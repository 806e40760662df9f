"""Idempotency-Key: what a client asks for twice, since it heard of no answer, is done once."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments.models import AuditEvent, Environment
from tests.support import documents, factories
from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.managing import Manager, at_once
from workers.models import KeptAnswer, KeyRole

MADE: dict[str, dict[str, Any]] = {
    "/environments": {"name": "made"},
    "/environments/{environment}/worker-queues": {"name": "made", "settings": {"a": 1.0}},
    "/registered-workers": {"name": "made", "queue_id": "{queue}"},
    "/temporal-connections": {"name": "made", "host": "t:7233", "namespace": "n", "api_key": "a-secret-of-theirs"},
    "/litellm-connections": {"name": "made", "api_url": "https://l.example", "api_key": "a-secret-of-theirs"},
    "/telemetry-settings": {"name": "made"},
    "/api-keys/{key}/revoke": {"reason": "leaked"},
}


def filled(fleet: Fleet, path: str) -> tuple[str, dict[str, Any]]:
    ids = {"environment": fleet.environment.pk, "queue": fleet.queue.pk, "key": fleet.api_key.pk}
    body = {name: value.format(**ids) if isinstance(value, str) else value for name, value in MADE[path].items()}
    return path.format(**ids), body


@pytest.mark.sqlite
@pytest.mark.parametrize("path", MADE)
def test_the_same_call_is_answered_the_same_and_done_once(fleet: Fleet, path: str) -> None:
    manager = Manager(fleet.organization)
    path, body = filled(fleet, path)
    first = manager.ask("POST", path, body, idempotency_key="k")
    assert first.status_code in {200, 201}, first.content
    assert "Idempotency-Replayed" not in first
    before = documents.everything()
    again = manager.ask("POST", path, dict(reversed(body.items())), idempotency_key="k")
    assert (again.status_code, again.content, again["ETag"]) == (first.status_code, first.content, first["ETag"])
    assert again["Idempotency-Replayed"] == "true"
    another = manager.ask("POST", path, body | {"reason" if "reason" in body else "name": "else"}, idempotency_key="k")
    assert another.status_code == 422
    assert [error["loc"] for error in another.json()["detail"]] == [["header", "Idempotency-Key"]]
    assert documents.everything() == before
    kept = KeptAnswer.objects.get()
    assert "a-secret-of-theirs" not in str(vars(kept))


@pytest.mark.sqlite
def test_an_issued_key_is_told_once(fleet: Fleet) -> None:
    manager = Manager(fleet.organization)
    for path, body in (("/api-keys", {"name": "made"}), (f"/api-keys/{fleet.api_key.pk}/rotate", {})):
        first = manager.told("POST", path, body, status=201, idempotency_key="k")
        before = documents.everything()
        again = manager.ask("POST", path, body, idempotency_key="k")
        assert again.status_code == 409
        assert first["id"] in again.json()["detail"]
        assert documents.everything() == before
        assert first["api_key"] not in str([vars(row) for row in KeptAnswer.objects.all()])
        KeptAnswer.objects.all().delete()


def test_what_was_refused_is_asked_for_anew(fleet: Fleet) -> None:
    manager = Manager(fleet.organization)
    for status, body in ((409, {"name": "production"}), (422, {"name": "NO"}), (201, {"name": "made"})):
        assert manager.ask("POST", "/environments", body, idempotency_key="k").status_code == status
    assert Environment.objects.filter(name="made").count() == 1


def test_each_key_has_names_of_its_own_and_only_what_was_done_is_kept(fleet: Fleet) -> None:
    managers = [
        Manager(fleet.organization),
        Manager(fleet.organization),
        Manager(factories.create_fleet().organization),
    ]
    statuses = [
        manager.ask("POST", "/environments", {"name": "made"}, idempotency_key="k").status_code for manager in managers
    ]
    assert statuses == [201, 409, 201]
    worker = Manager(fleet.organization, role=KeyRole.WORKER)
    assert worker.ask("POST", "/environments", {"name": "other"}, idempotency_key="k").status_code == 403
    dry = managers[1].ask("POST", "/environments?dry_run=true", {"name": "other"}, idempotency_key="k")
    assert dry.status_code == 200
    assert KeptAnswer.objects.count() == 2


def test_an_answer_is_kept_for_a_day(fleet: Fleet) -> None:
    manager = Manager(fleet.organization)
    for _ in range(2):
        manager.told("POST", "/environments", {"name": "made"}, status=201, idempotency_key="k")
    manager.told("POST", "/environments", {"name": "other"}, status=201, idempotency_key="l")
    KeptAnswer.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    manager.told("POST", "/environments", {"name": "third"}, status=201, idempotency_key="k")
    assert KeptAnswer.objects.get().expires_at > timezone.now() + timedelta(hours=23)


@pytest.mark.parametrize("header", ["", " ", "a b", "ä", "a" * 256, "a\tb", "\x7f"])
def test_what_is_no_name_is_refused(fleet: Fleet, header: str) -> None:
    manager, before = Manager(fleet.organization), Environment.objects.count()
    refused = manager.ask("POST", "/environments", {"name": "made"}, idempotency_key=header)
    assert refused.status_code == 422
    assert [error["loc"] for error in refused.json()["detail"]] == [["header", "Idempotency-Key"]]
    assert Environment.objects.count() == before


def test_a_call_without_one_pays_nothing(fleet: Fleet) -> None:
    manager = Manager(fleet.organization)
    with CaptureQueriesContext(connection) as captured:
        manager.told("POST", "/environments", {"name": "made"}, status=201)
    assert not [query for query in captured if "keptanswer" in query["sql"]]


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_one_is_made_and_both_are_told_of_it() -> None:
    fleet = fresh_fleet()
    manager = Manager(fleet.organization)
    for number in range(4):
        body = {"name": f"made-{number}"}
        call = lambda body=body, number=number: manager.ask(  # noqa: E731  # what both do
            "POST", "/environments", body, idempotency_key=f"k{number}"
        )
        answers = at_once(call, call)
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].content == answers[1].content
        assert sorted("Idempotency-Replayed" in answer for answer in answers) == [False, True]
        assert AuditEvent.objects.filter(action="environment.created", object_name__endswith=body["name"]).count() == 1
