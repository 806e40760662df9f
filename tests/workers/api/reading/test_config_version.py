"""A version changes when what a worker is given changes, and tells no secret."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from environments.encryption import KeyRing, Secret, generate_key
from environments.models import DataKey, Sampler
from environments.sealing.data_keys import fingerprint_key_of, seal_api_key, unwrap
from environments.sealing.rotation import replace_data_keys, reseal_secrets, rewrap_data_keys
from tests.support import factories
from tests.support.factories import ACTOR, Fleet
from tests.support.reading import READINGS, ask, call, change, online, read
from workers.models import DuplicatePolicy


@pytest.fixture
def configured(fleet: Fleet) -> Fleet:
    """A fleet with all three connections at the organization."""
    factories.point(fleet.organization, telemetry_settings=factories.create_telemetry(fleet.organization))
    return fleet


def version(fleet: Fleet) -> str:
    found = read(fleet, "worker-queues/{queue}/config")["config_version"]
    assert isinstance(found, str)
    assert len(found) >= 8
    return found


def set_secret(row: Any, secret: str) -> None:
    seal_api_key(row, Secret(secret), now=timezone.now())
    row.save()


def telemetry_of(fleet: Fleet) -> Any:
    fleet.organization.refresh_from_db()
    return fleet.organization.telemetry_settings


def settled(row: Any, **values: Any) -> None:
    """Saves a row as a form does."""
    row.refresh_from_db()
    for name, value in values.items():
        setattr(row, name, value)
    row.save()


def elsewhere(fleet: Fleet, level: str, kind: str) -> None:
    """Points a level to a connection of its own."""
    made = {
        "temporal_connection": lambda: factories.create_temporal(fleet.organization, "elsewhere"),
        "litellm_connection": lambda: factories.create_litellm(fleet.organization, "elsewhere"),
        "telemetry_settings": lambda: factories.create_telemetry(
            fleet.organization, "elsewhere", otel_service_name="elsewhere"
        ),
    }
    change(getattr(fleet, level), **{kind: made[kind]()})


GIVEN: dict[str, Callable[[Fleet], None]] = {
    "Temporal host": lambda fleet: change(fleet.temporal, host="other.example.com:7233"),
    "Temporal namespace": lambda fleet: change(fleet.temporal, namespace="other"),
    "Temporal key rotated": lambda fleet: set_secret(fleet.temporal, "rotated"),
    "Temporal key no longer given": lambda fleet: change(fleet.temporal, requires_api_key=False),
    "LiteLLM URL": lambda fleet: change(fleet.litellm, api_url="https://other.example.com"),
    "LiteLLM key rotated": lambda fleet: set_secret(fleet.litellm, "rotated"),
    "LiteLLM key no longer given": lambda fleet: change(fleet.litellm, requires_api_key=False),
    "telemetry off": lambda fleet: change(telemetry_of(fleet), otel_enabled=False),
    "OTLP endpoint": lambda fleet: change(telemetry_of(fleet), otel_exporter_otlp_endpoint="https://o.example.com"),
    "service name": lambda fleet: change(telemetry_of(fleet), otel_service_name="other"),
    "sampler": lambda fleet: change(telemetry_of(fleet), otel_traces_sampler=Sampler.ALWAYS_OFF),
    "sampler argument": lambda fleet: change(telemetry_of(fleet), otel_traces_sampler_arg=0.5),
    "sampler argument zero": lambda fleet: change(telemetry_of(fleet), otel_traces_sampler_arg=0.0),
    "heartbeat interval": lambda fleet: change(fleet.queue, heartbeat_interval=30),
    "settings of the queue": lambda fleet: settled(fleet.queue, settings={"region": "eu"}),
    "settings of the environment": lambda fleet: settled(fleet.environment, settings={"region": "eu"}),
    "execution environment": lambda fleet: settled(fleet.environment, execution_environment={"env_vars": {"A": "1"}}),
    "queue renamed": lambda fleet: change(fleet.queue, name="renamed"),
    "environment renamed": lambda fleet: change(fleet.environment, name="renamed"),
    "no Temporal connection any more": lambda fleet: change(fleet.organization, temporal_connection=None),
    "no LiteLLM connection any more": lambda fleet: change(fleet.organization, litellm_connection=None),
    **{
        f"another {kind} at the {level}": lambda fleet, level=level, kind=kind: elsewhere(fleet, level, kind)  # type: ignore[misc]
        for level in ("queue", "environment", "organization")
        for kind in ("temporal_connection", "litellm_connection", "telemetry_settings")
    },
}


@pytest.mark.parametrize("step", GIVEN.values(), ids=GIVEN)
def test_the_version_changes_when_what_a_worker_is_given_changes(
    configured: Fleet, step: Callable[[Fleet], None]
) -> None:
    before = version(configured)
    step(configured)
    after = version(configured)
    assert after != before
    assert version(configured) == after


def test_the_version_changes_with_the_control_planes_url(configured: Fleet, settings: Settings) -> None:
    before = version(configured)
    settings.CONTROL_PLANE_URL = "https://moved.example.com"
    assert version(configured) != before


def test_every_change_has_a_version_of_its_own(configured: Fleet) -> None:
    versions = [version(configured)]
    for name in ("heartbeat interval", "Temporal host", "Temporal key rotated", "LiteLLM key rotated", "sampler"):
        GIVEN[name](configured)
        versions.append(version(configured))
    assert len(set(versions)) == len(versions)


def shadowed(fleet: Fleet, edit: Callable[[Fleet], None]) -> Callable[[], None]:
    """Lets the queue have its own connections, and returns an edit of the organization's."""
    for kind in ("temporal_connection", "litellm_connection", "telemetry_settings"):
        elsewhere(fleet, "queue", kind)
    return lambda: edit(fleet)


SHADOWED = (
    "Temporal host",
    "Temporal key rotated",
    "LiteLLM URL",
    "LiteLLM key rotated",
    "sampler",
    "no Temporal connection any more",
    "another litellm_connection at the environment",
)


def lone(name: str) -> Callable[[Fleet], None]:
    """Gives the organization another connection's rows that nothing of this queue points to."""

    def step(fleet: Fleet) -> None:
        factories.create_temporal(fleet.organization, "unrelated")
        sibling = factories.create_queue(fleet.environment, "sibling")
        change(sibling, litellm_connection=factories.create_litellm(fleet.organization, "of-the-sibling"))

    step.__name__ = name
    return step


def equal_connection(fleet: Fleet) -> None:
    """Another connection with the same content wins."""
    same = {"host": fleet.temporal.host, "namespace": fleet.temporal.namespace}
    twin = factories.create_temporal(fleet.organization, "twin", secret=fleet.temporal_secret, **same)
    change(fleet.queue, temporal_connection=twin)


def telemetry_at_its_defaults(fleet: Fleet) -> None:
    change(fleet.organization, telemetry_settings=None)


def own_connection_of_a_worker(fleet: Fleet) -> None:
    change(fleet.worker, temporal_connection=factories.create_temporal(fleet.organization, "own"))


def other_organization(fleet: Fleet) -> None:
    other = factories.create_fleet()
    set_secret(other.temporal, "rotated")


NOT_GIVEN: dict[str, Callable[[Fleet], None]] = {
    "queue described": lambda fleet: change(fleet.queue, description="x", display_name="y", tags=["a", "b"]),
    "environment described": lambda fleet: change(
        fleet.environment, description="x", display_name="y", tags=["a", "b"]
    ),
    "organization's name": lambda fleet: change(fleet.organization, name="Other"),
    "limit": lambda fleet: change(fleet.queue, max_workers=7),
    "policy": lambda fleet: change(fleet.queue, duplicate_policy=DuplicatePolicy.REJECT),
    "draining": lambda fleet: change(fleet.queue, is_draining=True),
    "disabled": lambda fleet: change(fleet.queue, is_disabled=True),
    "connection renamed": lambda fleet: change(fleet.temporal, name="renamed"),
    "TLS": lambda fleet: change(fleet.temporal, is_tls_enabled=False),
    "the same secret again": lambda fleet: set_secret(fleet.temporal, fleet.temporal_secret),
    "unrelated connections": lone("unrelated"),
    "a connection of the same content": equal_connection,
    "telemetry back to its defaults": telemetry_at_its_defaults,
    "a worker's own connection": own_connection_of_a_worker,
    "another organization": other_organization,
    "a start": online,
    "a new key": lambda fleet: factories.issue_token(fleet.queue) and None,
}


@pytest.mark.parametrize("step", NOT_GIVEN.values(), ids=NOT_GIVEN)
def test_the_version_stays_when_what_a_worker_is_given_stays(configured: Fleet, step: Callable[[Fleet], None]) -> None:
    before = version(configured)
    step(configured)
    assert version(configured) == before


@pytest.mark.parametrize("name", SHADOWED)
def test_the_version_stays_when_a_shadowed_connection_changes(configured: Fleet, name: str) -> None:
    edit = shadowed(configured, GIVEN[name]) if "another" not in name else shadowed(configured, environments_own)
    before = version(configured)
    edit()
    assert version(configured) == before


def environments_own(fleet: Fleet) -> None:
    row = factories.create_litellm(fleet.organization, "of-the-environment")
    change(fleet.environment, litellm_connection=row)


def test_the_version_comes_back_with_the_secret(configured: Fleet) -> None:
    before = version(configured)
    set_secret(configured.temporal, "rotated")
    set_secret(configured.temporal, configured.temporal_secret)
    assert version(configured) == before


def test_the_version_stays_through_rotation_of_encryption_and_data_keys(configured: Fleet, settings: Settings) -> None:
    before = version(configured)
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-new"), settings.ENCRYPTION_KEYS.active])
    list(rewrap_data_keys(actor=ACTOR, now=timezone.now()))
    assert version(configured) == before
    list(replace_data_keys(made_before=timezone.now(), actor=ACTOR, now=timezone.now()))
    assert version(configured) == before
    list(reseal_secrets())
    assert version(configured) == before
    set_secret(configured.temporal, "rotated")
    assert version(configured) != before
    set_secret(configured.temporal, configured.temporal_secret)
    assert version(configured) == before


def test_an_incomplete_configuration_has_a_version_that_changes_when_it_is_complete(configured: Fleet) -> None:
    complete = version(configured)
    change(configured.organization, temporal_connection=None, litellm_connection=None)
    versions = {complete, version(configured)}
    change(configured.organization, temporal_connection=configured.temporal)
    versions.add(version(configured))
    change(configured.organization, litellm_connection=configured.litellm)
    assert version(configured) == complete
    assert len(versions) == 3


def test_the_version_reveals_nothing(configured: Fleet) -> None:
    for row in (configured.temporal, configured.litellm):
        row.refresh_from_db()
    data_key = DataKey.objects.get(organization=configured.organization)
    secrets = [configured.temporal_secret, configured.litellm_secret]
    found = version(configured)
    for hashed in (hashlib.sha256, hashlib.sha1, hashlib.md5):
        assert not [secret for secret in secrets if hashed(secret.encode()).hexdigest().startswith(found)]
    fingerprint_key = fingerprint_key_of(data_key, unwrap(data_key))
    assert found not in {fingerprint_key.fingerprint(Secret(secret)) for secret in secrets}
    assert found not in {configured.temporal.api_key_fingerprint, configured.litellm.api_key_fingerprint}


@pytest.mark.parametrize("path", READINGS)
def test_no_answer_holds_a_secret(configured: Fleet, settings: Settings, path: str) -> None:
    call(configured, "start", system_info={"hostname": "build-7"})
    for row in (configured.temporal, configured.litellm, configured.api_key):
        row.refresh_from_db()
    response = ask(configured, path)
    assert response.status_code == 200, response.content[:500]
    text = response.content.decode() + repr(response.headers)
    for secret in (
        configured.temporal_secret,
        configured.litellm_secret,
        configured.token,
        configured.token.rpartition(".")[2],
        configured.temporal.sealed_api_key,
        configured.temporal.api_key_fingerprint,
        configured.litellm.api_key_fingerprint,
        configured.api_key.token_hash,
        settings.SECRET_KEY,
    ):
        assert secret not in text
    assert "cp1." not in text
