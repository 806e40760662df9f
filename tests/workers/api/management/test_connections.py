"""Connections over HTTP: secrets go in and never come out, and only a key for the organization says who is given them."""

import json
from typing import Any

import pytest
from pytest_django import Settings

from environments.connections.asking import MOST_PER_MINUTE, VERIFYING
from environments.models import AuditEvent, Membership, Role
from tests.support import documents, factories
from tests.support.console import member
from tests.support.endpoints import KEY
from tests.support.factories import Fleet
from tests.support.gateways import Gateway
from tests.support.managing import Manager
from tests.support.verifying import with_gateway
from workers.models import KeptAnswer

SECRET = "a-secret-of-theirs"
NEW: dict[str, dict[str, Any]] = {
    "temporal-connections": {"host": "t.example:7233", "namespace": "n", "is_tls_enabled": False, "api_key": SECRET},
    "litellm-connections": {"api_url": "https://l.example", "api_key": SECRET, "api_key_expires_on": "2030-01-31"},
    "telemetry-settings": {"otel_exporter_otlp_endpoint": "https://o.example", "otel_traces_sampler_arg": 0.5},
}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("temporal-connections", {"name": "NO"}, "name"),
    ("temporal-connections", {"host": "https://t.example"}, "host"),
    ("temporal-connections", {"is_tls_enabled": "true"}, "is_tls_enabled"),
    ("temporal-connections", {"is_tls_enabled": 1}, "is_tls_enabled"),
    ("temporal-connections", {"api_key": ""}, "api_key"),
    ("temporal-connections", {"api_key": None}, "api_key"),
    ("temporal-connections", {"api_key": " padded "}, "api_key"),
    ("temporal-connections", {"api_key": "a\nb"}, "api_key"),
    ("temporal-connections", {"api_key": 7}, "api_key"),
    ("temporal-connections", {"api_key_expires_on": "tomorrow"}, "api_key_expires_on"),
    ("temporal-connections", {"api_key_expires_on": 7}, "api_key_expires_on"),
    ("litellm-connections", {"api_url": "ftp://l.example"}, "api_url"),
    ("litellm-connections", {"api_url": "https://user:password@l.example"}, "api_url"),
    ("telemetry-settings", {"otel_traces_sampler": "sometimes"}, "otel_traces_sampler"),
    ("telemetry-settings", {"otel_traces_sampler_arg": 2}, "otel_traces_sampler_arg"),
    ("telemetry-settings", {"otel_traces_sampler_arg": "0.5"}, "otel_traces_sampler_arg"),
    ("telemetry-settings", {"otel_enabled": None}, "otel_enabled"),
]


@pytest.mark.sqlite
@pytest.mark.parametrize("kind", NEW)
def test_a_connection_is_made_read_changed_and_deleted(fleet: Fleet, kind: str) -> None:
    manager = Manager(fleet.organization)
    made = manager.told("POST", f"/{kind}", {"name": "made", **NEW[kind]}, status=201)
    path = f"/{kind}/{made['id']}"
    assert manager.told("GET", path) == made
    assert {name: made[name] for name in NEW[kind] if name != "api_key"} == {
        name: value for name, value in NEW[kind].items() if name != "api_key"
    }
    if "api_key" in NEW[kind]:
        again = manager.told("PATCH", path, {"api_key": SECRET})
        assert again["api_key_version"] == made["api_key_version"] == 1  # it is the same
        changed = manager.told("PATCH", path, {"api_key": "another-secret"})
        assert changed["api_key_version"] == 2
        assert len({made["api_key_fingerprint"], changed["api_key_fingerprint"]}) == 2
        refused = manager.ask("POST", f"/{kind}", {"name": "other"} | {**NEW[kind], "api_key": None})
        assert refused.status_code == 422
        bare = {name: value for name, value in NEW[kind].items() if name != "api_key"}
        refused = manager.told("POST", f"/{kind}", {"name": "other"} | bare, status=422)
        assert refused["detail"][0]["loc"] == ["body", "api_key"]
        open_one = manager.told("POST", f"/{kind}", {"name": "other", "requires_api_key": False} | bare, status=201)
        assert (open_one["api_key_fingerprint"], open_one["api_key_version"]) == ("", 0)
    assert manager.told("POST", f"/{kind}", {"name": "made", **NEW[kind]}, status=409)["detail"].endswith(
        "of this organization has this name."
    )
    pointer = f"{kind.removesuffix('s')}_id".replace("-", "_").replace("setting_id", "settings_id")
    manager.told("PATCH", f"/worker-queues/{fleet.queue.pk}", {pointer: made["id"]})
    refused = manager.told("DELETE", path, status=409)
    assert refused["detail"] == "It cannot be deleted: 1 worker queue needs it."
    assert manager.told("PATCH", f"/worker-queues/{fleet.queue.pk}", {pointer: None})[pointer] is None
    manager.told("DELETE", path, status=204)
    manager.told("GET", path, status=404)
    recorded = json.dumps(list(AuditEvent.objects.values("changes", "object_name")), default=str)
    assert SECRET not in recorded
    assert "cp1." not in recorded


@pytest.mark.parametrize(("kind", "body", "name"), REFUSED)
def test_what_no_connection_can_be_is_refused(fleet: Fleet, kind: str, body: dict[str, Any], name: str) -> None:
    manager = Manager(fleet.organization)
    telemetry = factories.create_telemetry(fleet.organization)
    stored = {"temporal-connections": fleet.temporal, "litellm-connections": fleet.litellm}.get(kind, telemetry)
    before = documents.everything()
    for method, path, sent in (
        ("POST", f"/{kind}", {"name": "made", **NEW[kind]} | body),
        ("PATCH", f"/{kind}/{stored.pk}", body),
    ):
        refused = manager.ask(method, path, sent)
        assert refused.status_code == 422, refused.content
        assert {tuple(error["loc"][:2]) for error in refused.json()["detail"]} == {("body", name)}
        assert SECRET not in refused.content.decode()
    assert documents.everything() == before


@pytest.mark.sqlite
def test_who_is_given_a_credential_a_key_for_the_organization_says(fleet: Fleet) -> None:
    """Whoever has a key for one queue may start workers in it, and would be given what the connection holds."""
    other = factories.create_temporal(fleet.organization, "other")
    foreign = factories.create_fleet()
    paths = {
        "environment": f"/environments/{fleet.environment.pk}",
        "queue": f"/worker-queues/{fleet.queue.pk}",
        "worker": f"/registered-workers/{fleet.worker.pk}",
    }
    for level, path in paths.items():
        narrow, wide = Manager(getattr(fleet, "queue" if level == "worker" else level)), Manager(fleet.organization)
        assert narrow.told("PATCH", path, {"temporal_connection_id": None})["temporal_connection_id"] is None
        for query in ("", "?dry_run=true"):
            assert narrow.ask("PATCH", f"{path}{query}", {"temporal_connection_id": str(other.pk)}).status_code == 403
            for unknown in (foreign.temporal.pk, fleet.litellm.pk):
                refused = wide.told("PATCH", f"{path}{query}", {"temporal_connection_id": str(unknown)}, status=422)
                assert refused["detail"][0]["loc"] == ["body", "temporal_connection_id"]
        wide.told("PATCH", path, {"temporal_connection_id": str(other.pk)})
        assert narrow.told("PATCH", path, {"temporal_connection_id": str(other.pk)})  # which changes nothing
        assert narrow.ask("PATCH", path, {"temporal_connection_id": None}).status_code == 403
    body = {"name": "made", "temporal_connection_id": str(other.pk)}
    assert (
        Manager(fleet.queue).ask("POST", "/registered-workers", body | {"queue_id": str(fleet.queue.pk)}).status_code
        == 403
    )
    made = Manager(fleet.organization).told("POST", "/environments", body, status=201)
    assert made["temporal_connection_id"] == str(other.pk)


@pytest.mark.parametrize(
    ("kind", "name", "elsewhere"),
    [
        ("temporal-connections", "host", "other.example:7233"),
        ("temporal-connections", "namespace", "other"),
        ("temporal-connections", "is_tls_enabled", False),
        ("litellm-connections", "api_url", "https://other.example"),
    ],
)
def test_a_stored_secret_is_sent_nowhere_else(fleet: Fleet, kind: str, name: str, elsewhere: Any) -> None:
    """Who manages reads no secret: not either by a server of their own, to which it is sent."""
    manager = Manager(fleet.organization)
    path = f"/{kind}/{(fleet.temporal if kind.startswith('temporal') else fleet.litellm).pk}"
    refusal = "The stored API key would go to another host: give api_key with it."

    def refuse(member: str, body: dict[str, Any]) -> None:
        before = documents.everything()
        for query in ("", "?dry_run=true"):
            (error,) = manager.told("PATCH", f"{path}{query}", body, status=422)["detail"]
            assert (error["loc"], error["msg"]) == (["body", member], refusal)
        assert documents.everything() == before

    refuse(name, {name: elsewhere})
    manager.told("PATCH", path, {name: manager.told("GET", path)[name]})
    manager.told("PATCH", path, {name: elsewhere, "requires_api_key": False})
    refuse("requires_api_key", {"requires_api_key": True})
    manager.told("PATCH", path, {"requires_api_key": True, "api_key": "another-secret"})
    assert manager.told("PATCH", path, {name: elsewhere, "api_key": "another-secret"})[name] == elsewhere


def test_a_verification_really_connects_as_the_console_does(fleet: Fleet, settings: Settings) -> None:
    settings.CONNECTION_HOSTS = ()
    gateway = Gateway()
    try:
        manager = Manager(with_gateway(fleet, gateway).organization)
        path = f"/litellm-connections/{fleet.litellm.pk}"
        version = manager.ask("GET", path)["ETag"]
        assert manager.told("POST", f"{path}/verify?dry_run=true")["changes"] == {}
        assert gateway.shown == []
        told = manager.told("POST", f"{path}/verify")
        assert (told["is_ok"], told["problem"], told["is_kept"]) == (True, "", True)
        assert "1.80.5" in told["details"]
        assert gateway.shown[-1] == KEY
        shown = manager.ask("GET", path)
        assert shown.json()["verified_at"] is not None
        assert shown["ETag"] == version
        gateway.keys.clear()
        failed = manager.told("POST", f"{path}/verify", idempotency_key="anew")
        assert not failed["is_ok"]
        assert manager.told("GET", path)["verification_problem"] == failed["problem"] != ""
        assert KEY not in json.dumps([told, failed, shown.json()])
        assert not KeptAnswer.objects.exists()
        events = AuditEvent.objects.filter(action="litellm_connection.verified")
        assert [event.actor for event in events] == [f"key:{manager.key.pk}"] * 2
        changed = manager.told("PATCH", path, {"api_url": "https://elsewhere.example", "api_key": KEY})
        assert (changed["verified_at"], changed["verification_problem"]) == (None, "")
    finally:
        gateway.stop()


def test_verifications_take_turns_with_the_console_and_are_bounded(fleet: Fleet) -> None:
    manager = Manager(fleet.organization)
    path = f"/telemetry-settings/{factories.create_telemetry(fleet.organization).pk}/verify"
    with VERIFYING.of("somebody"):
        refused = manager.ask("POST", path)
        assert (refused.status_code, refused["Retry-After"]) == (503, "3")
    for _ in range(MOST_PER_MINUTE):
        manager.told("POST", path)
    refused = manager.ask("POST", path)
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 60


def test_members_are_read_and_nothing_else(fleet: Fleet) -> None:
    ada = member(fleet.organization, Role.OPERATOR, "ada")
    member(factories.create_fleet().organization, Role.VIEWER, "bob")
    manager = Manager(fleet.organization)
    (shown,) = manager.told("GET", "/members")["items"]
    assert (shown["username"], shown["role"]) == ("ada", "operator")
    for method in ("POST", "PATCH", "DELETE"):
        assert manager.ask(method, "/members", {"username": "eve", "role": "administrator"}).status_code == 405
    assert Membership.objects.get(organization=fleet.organization).user == ada
