"""ETag and If-Match: nobody's change is lost to somebody who has not seen it."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.support import documents, factories
from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.managing import Manager, at_once
from tests.support.reading import call
from workers.models import Worker, WorkerQueue

CHANGES: dict[str, dict[str, Any]] = {
    "/organization": {"name": "changed"},
    "/environments/{environment}": {"description": "changed"},
    "/worker-queues/{queue}": {"description": "changed"},
    "/registered-workers/{worker}": {"description": "changed"},
    "/temporal-connections/{temporal}": {"api_key": "changed"},
    "/litellm-connections/{litellm}": {"api_url": "https://changed.example", "api_key": "changed"},
    "/telemetry-settings/{telemetry}": {"otel_enabled": False},
}
NO_VERSIONS = ("", "abc", '"abc', 'abc"', '"a""b"', '"a" "b"', "W/", 'w/"a"', '"a\tb"', ",", "*,*", '*, "a"')
NO_VERSIONS += (f'"{"a" * 2000}"', f'"a"{" ," * 900} x')
REVOCATION: Any = {"reason": "leaked"}


def filled(fleet: Fleet, path: str) -> str:
    names = ("environment", "queue", "worker", "temporal", "litellm")
    telemetry = factories.create_telemetry(fleet.organization).pk if "telemetry" in path else ""
    return path.format(telemetry=telemetry, **{name: getattr(fleet, name).pk for name in names})


@pytest.mark.sqlite
@pytest.mark.parametrize("path", CHANGES)
def test_a_change_is_made_of_the_version_that_was_read_or_not_at_all(fleet: Fleet, path: str) -> None:
    manager, body, path = Manager(fleet.organization), CHANGES[path], filled(fleet, path)
    read = manager.ask("GET", path)["ETag"]
    assert manager.ask("GET", path)["ETag"] == manager.ask("PATCH", path, {})["ETag"] == read
    for versions in (read, f'"other", {read}', f' ,, {read} , W/"a"', "*", " * "):
        assert manager.ask("PATCH", f"{path}?dry_run=true", body, if_match=versions).status_code == 200
    changed = manager.ask("PATCH", path, body, if_match=read)
    assert changed.status_code == 200
    assert changed["ETag"] == manager.ask("GET", path)["ETag"] != read
    before = documents.everything()
    for stale in (read, f"W/{changed['ETag']}", '"other"', f'{read}, "other"', '""'):
        refused = manager.ask("PATCH", path, body, if_match=stale)
        assert (refused.status_code, refused.json()) == (412, {"detail": "It has changed since: read it again."})
        assert manager.ask("PATCH", f"{path}?dry_run=true", body, if_match=stale).status_code == 412
        if path != "/organization":
            assert manager.ask("DELETE", path, if_match=stale).status_code == 412
    assert documents.everything() == before


def test_what_processes_do_changes_no_version(fleet: Fleet) -> None:
    """Counts, liveness and verifications are told beside what was set up."""
    manager = Manager(fleet.organization)
    paths = [f"/worker-queues/{fleet.queue.pk}", f"/registered-workers/{fleet.worker.pk}"]
    before = [manager.ask("GET", path)["ETag"] for path in paths]
    call(fleet, "start")
    call(fleet, "heartbeat")
    assert [manager.ask("GET", path)["ETag"] for path in paths] == before


@pytest.mark.sqlite
def test_a_decision_that_ends_by_itself_changes_the_version(fleet: Fleet) -> None:
    manager, path = Manager(fleet.organization), f"/registered-workers/{fleet.worker.pk}"
    ends_at = timezone.now() + timedelta(hours=1)
    body = {"is_disabled": True, "state_reason": "Moved", "state_ends_at": ends_at.isoformat()}
    read = manager.ask("PATCH", path, body)
    assert (read.json()["state"], read.json()["state_reason"]) == ("Disabled", "Moved")
    Worker.objects.filter(pk=fleet.worker.pk).update(state_ends_at=ends_at - timedelta(hours=2))
    ended = manager.ask("GET", path)
    now_holds = {"state": "Enabled", "is_disabled": False, "state_reason": "", "state_ends_at": None}
    listed = manager.told("GET", "/registered-workers")["items"]
    for shown in (ended.json(), *listed, manager.told("PATCH", path, {"is_disabled": False})):
        assert {name: shown[name] for name in now_holds} == now_holds
    assert manager.ask("PATCH", path, {"is_disabled": ended.json()["is_disabled"]})["ETag"] == ended["ETag"]
    assert manager.told("PATCH", f"{path}?dry_run=true", {"is_disabled": False})["changes"] == {}
    assert ended["ETag"] == manager.ask("PATCH", path, {}, if_match=ended["ETag"])["ETag"] != read["ETag"]
    assert manager.ask("PATCH", path, {"is_draining": True}, if_match=read["ETag"]).status_code == 412
    drained = manager.told("PATCH", path, {"is_draining": True}, if_match=ended["ETag"])
    assert (drained["state"], drained["state_reason"], drained["state_ends_at"]) == ("Draining", "", None)
    for refused in ({"state_ends_at": "2020-01-01T00:00:00Z"}, {"state_ends_at": 7}, {"state_reason": "a\nb"}):
        assert manager.ask("PATCH", path, refused).status_code == 422
    assert manager.ask("PATCH", path, {"is_draining": False, "state_reason": "Why"}).status_code == 422


def test_a_key_is_rotated_and_revoked_as_it_was_read(fleet: Fleet) -> None:
    manager, path = Manager(fleet.organization), f"/api-keys/{fleet.api_key.pk}"
    read = manager.ask("GET", path)["ETag"]
    assert manager.ask("POST", f"{path}/rotate", {}, if_match='"other"').status_code == 412
    assert manager.ask("POST", f"{path}/rotate", {}, if_match=read).status_code == 201
    for query in ("", "?dry_run=true"):
        assert manager.ask("POST", f"{path}/revoke{query}", REVOCATION, if_match=read).status_code == 412
    revoked = manager.ask("POST", f"{path}/revoke", REVOCATION, if_match=manager.ask("GET", path)["ETag"])
    assert revoked.json()["state"] == "revoked"
    assert revoked["ETag"] == manager.ask("GET", path)["ETag"]


def test_what_is_new_has_no_version(fleet: Fleet) -> None:
    manager = Manager(fleet.organization)
    made = manager.ask("POST", "/environments", {"name": "made"}, if_match='"other"')
    assert made.status_code == 201
    assert made["ETag"] == manager.ask("GET", f"/environments/{made.json()['id']}")["ETag"]


@pytest.mark.parametrize("header", NO_VERSIONS)
def test_what_is_no_version_is_refused(fleet: Fleet, header: str) -> None:
    manager = Manager(fleet.organization)
    before = documents.everything()
    path = f"/worker-queues/{fleet.queue.pk}"
    for method, body in (("PATCH", {"description": "changed"}), ("DELETE", None)):
        refused = manager.ask(method, path, body, if_match=header)
        assert refused.status_code == 422
        assert [error["loc"] for error in refused.json()["detail"]] == [["header", "If-Match"]]
    assert documents.everything() == before


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_of_two_that_have_read_the_same_version_one_changes_it() -> None:
    fleet = fresh_fleet()
    manager, path = Manager(fleet.organization), f"/worker-queues/{fleet.queue.pk}"
    for number in range(4):
        read = manager.ask("GET", path)["ETag"]
        answers = at_once(
            *[
                lambda text=f"{number}{letter}", read=read: manager.ask(
                    "PATCH", path, {"description": text}, if_match=read
                )
                for letter in "ab"
            ]
        )
        assert sorted(answer.status_code for answer in answers) == [200, 412]
        (made,) = [answer.json()["description"] for answer in answers if answer.status_code == 200]
        assert WorkerQueue.objects.get(pk=fleet.queue.pk).description == made
