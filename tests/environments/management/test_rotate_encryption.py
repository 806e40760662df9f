"""The command rotate_encryption: counts on stdout, progress and problems on stderr, and an exit code that tells."""

import json
import re
from io import StringIO
from typing import Any, NamedTuple

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from pytest_django import Settings

from environments.encryption import KeyRing, generate_key
from environments.models import AuditEvent, DataKey, LiteLLMConnection, TemporalConnection
from environments.sealing import rotation
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import Fleet
from tests.support.servers import ControlPlane

pytestmark = pytest.mark.sqlite


class Done(NamedTuple):
    """What the command wrote."""

    stdout: str
    stderr: str


class InterruptedStream(StringIO):
    """Breaks the command off, as Ctrl-C does, when it reports progress."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def write(self, text: str) -> int:
        if text.startswith(self.at):
            raise KeyboardInterrupt
        return super().write(text)


@pytest.fixture
def fleets(fleet: Fleet) -> list[Fleet]:
    """Three organizations; listed before `new_ring`, since the ring's active key wraps what is made."""
    return [fleet, factories.create_fleet(), factories.create_fleet()]


@pytest.fixture
def new_ring(settings: Settings) -> KeyRing:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-new"), settings.ENCRYPTION_KEYS.active])
    return settings.ENCRYPTION_KEYS


def rotate(*arguments: str) -> Done:
    stdout, stderr = StringIO(), StringIO()
    call_command("rotate_encryption", *arguments, stdout=stdout, stderr=stderr)
    return Done(stdout.getvalue(), stderr.getvalue())


def rotate_as_json(*arguments: str) -> dict[str, int]:
    counts: dict[str, int] = json.loads(rotate(*arguments, "--format", "json").stdout)
    return counts


STEPS = (("data keys", "rewrap"), ("second factors", "rewrap"), ("data keys", "replace"), ("secrets", "reseal"))


def rows() -> list[dict[str, Any]]:
    models = (DataKey, TemporalConnection, LiteLLMConnection, AuditEvent)
    return [row for model in models for row in model._default_manager.order_by("pk").values()]


def test_does_nothing_when_everything_is_on_the_active_key(fleet: Fleet) -> None:
    before = rows()
    assert rotate() == Done(
        "data keys rewrapped: 0\nsecond factors rewrapped: 0\ndata keys replaced: 0\nsecrets resealed: 0\n", ""
    )
    assert rows() == before


def test_counts_what_it_did(fleets: list[Fleet], new_ring: KeyRing) -> None:
    done = rotate()
    assert (
        done.stdout
        == "data keys rewrapped: 3\nsecond factors rewrapped: 0\ndata keys replaced: 0\nsecrets resealed: 0\n"
    )
    assert done.stderr == "data keys rewrapped: 3 of 3\n"


def test_counts_new_data_keys_as_json(fleets: list[Fleet], new_ring: KeyRing) -> None:
    counts = rotate_as_json("--data-keys")
    assert counts.pop("second factors rewrapped") == 0
    assert counts == {"data keys rewrapped": 3, "data keys replaced": 3, "secrets resealed": 6}
    assert start(fleets[0]).json()["temporal_api_key"] == fleets[0].temporal_secret


@pytest.mark.parametrize("arguments", [(), ("--data-keys",)])
def test_a_dry_run_counts_the_same_and_changes_nothing(
    arguments: tuple[str, ...], fleets: list[Fleet], new_ring: KeyRing
) -> None:
    before = rows()
    planned = rotate_as_json("--dry-run", *arguments)
    assert rows() == before
    assert list(planned) == [f"{kind} to {verb}" for kind, verb in STEPS]
    assert planned["data keys to rewrap"] == 3
    assert list(planned.values()) == list(rotate_as_json(*arguments).values())


def test_a_rewrap_that_was_broken_off_is_finished_by_running_it_again(
    fleets: list[Fleet], new_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH", 1)
    with pytest.raises(KeyboardInterrupt):
        call_command("rotate_encryption", stdout=StringIO(), stderr=InterruptedStream("data keys rewrapped: 2"))
    assert DataKey.objects.filter(wrapped_by="ek-new").count() == 2
    assert [start(fleet).status_code for fleet in fleets] == [200, 200, 200]
    assert rotate_as_json()["data keys rewrapped"] == 1
    assert not DataKey.objects.exclude(wrapped_by="ek-new").exists()


@pytest.mark.parametrize("at", ["data keys replaced: 1", "secrets resealed: 1"])
def test_new_data_keys_that_were_broken_off_are_finished_with_the_printed_options(
    at: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.create_fleet()
    monkeypatch.setattr(rotation, "BATCH", 1)
    stderr = InterruptedStream(at)
    with pytest.raises(KeyboardInterrupt):
        call_command("rotate_encryption", "--data-keys", stdout=StringIO(), stderr=stderr)
    resume = re.search(r"--data-keys --made-before \S+", stderr.getvalue())
    assert resume
    assert start(fleet).status_code == 200
    rotate(*resume[0].split())
    assert DataKey.objects.count() == 4  # each organization's old and new one, none replaced twice
    assert rotation.count_secrets_to_reseal() == 0
    assert rotate_as_json("--verify")["failed"] == 0
    assert start(fleet).json()["litellm_api_key"] == fleet.litellm_secret


def test_a_plain_run_finishes_resealing_that_was_broken_off(fleet: Fleet) -> None:
    with pytest.raises(KeyboardInterrupt):
        call_command(
            "rotate_encryption", "--data-keys", stdout=StringIO(), stderr=InterruptedStream("data keys replaced")
        )
    counts = rotate_as_json()
    assert counts.pop("second factors rewrapped") == 0
    assert counts == {"data keys rewrapped": 0, "data keys replaced": 0, "secrets resealed": 2}


@pytest.mark.parametrize("arguments", [(), ("--data-keys",)])
def test_a_row_that_does_not_open_stops_it_with_a_message(
    arguments: tuple[str, ...], fleet: Fleet, settings: Settings
) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-other")])
    before = rows()
    with pytest.raises(CommandError, match=r"environments_datakey row .* ek-test1.*run the command again") as caught:
        rotate(*arguments)
    assert caught.value.returncode == 1
    assert rows() == before


def test_a_damaged_organization_does_not_keep_the_others_on_the_old_key(fleets: list[Fleet], new_ring: KeyRing) -> None:
    """One broken row must not force everybody to keep a key that is to be retired."""
    damaged = DataKey.objects.order_by("pk").first()
    assert damaged
    DataKey.objects.filter(pk=damaged.pk).update(wrapped_key=f"{damaged.wrapped_key[:-8]}{'A' * 8}")
    with pytest.raises(CommandError, match=str(damaged.pk)):
        rotate()
    assert list(DataKey.objects.exclude(wrapped_by="ek-new")) == [damaged]


def test_a_row_that_is_locked_for_too_long_stops_it_with_a_message(fleet: Fleet, new_ring: KeyRing) -> None:
    """An `apply` of a large document holds what it has changed until it ends."""

    def refuse(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith('UPDATE "environments_temporalconnection"'):
            reason = "canceling statement due to lock timeout"
            raise OperationalError(reason)
        return execute(sql, *arguments)

    with connection.execute_wrapper(refuse), pytest.raises(CommandError, match=r"again.*lock timeout") as caught:
        rotate("--data-keys")
    assert caught.value.returncode == 1
    assert rotate_as_json("--dry-run")["secrets to reseal"] == 2
    assert rotate_as_json()["secrets resealed"] == 2


def test_verify_counts_what_opens_and_changes_nothing(fleet: Fleet) -> None:
    before = rows()
    assert rotate("--verify") == Done("opened: 3\nfailed: 0\n", "opened: 1 of 3\nopened: 3 of 3\n")
    assert rotate_as_json("--verify") == {"opened": 3, "failed": 0}
    assert rows() == before


def test_verify_fails_and_names_table_and_row_of_what_does_not_open(fleet: Fleet) -> None:
    sealed = fleet.temporal.sealed_api_key
    TemporalConnection.objects.update(sealed_api_key=f"{sealed[:-8]}{'A' * 8}")
    stdout, stderr = StringIO(), StringIO()
    with pytest.raises(CommandError, match="1 cannot be opened") as caught:
        call_command("rotate_encryption", "--verify", "--format", "json", stdout=stdout, stderr=stderr)
    assert caught.value.returncode == 1
    assert json.loads(stdout.getvalue()) == {"opened": 2, "failed": 1}
    assert f"environments_temporalconnection row {fleet.temporal.pk}" in stderr.getvalue()
    assert sealed[-40:-10] not in stderr.getvalue()
    assert fleet.temporal_secret not in stderr.getvalue()


def test_refuses_a_time_that_is_none(fleet: Fleet) -> None:
    before = rows()
    with pytest.raises(CommandError, match="--made-before: expected a time such as"):
        rotate("--data-keys", "--made-before", "yesterday")
    assert rows() == before


def test_a_running_control_plane_serves_on_while_everything_is_rotated(control_plane: ControlPlane) -> None:
    path = f"/api/v1/workers/{control_plane.worker_id}/start"
    headers = {"Authorization": f"Bearer {control_plane.api_key}"}
    before = control_plane.request("POST", path, json={}, headers=headers)
    done = control_plane.manage("rotate_encryption", "--data-keys", "--format", "json")
    # The demo's one, for its Temporal takes no key, and those of whoever used this control plane before.
    assert json.loads(done.stdout)["secrets resealed"] >= 1
    after = control_plane.request("POST", path, json={}, headers=headers)
    assert (after[0], after[2]) == (200, before[2])
    assert json.loads(control_plane.manage("rotate_encryption", "--verify", "--format", "json").stdout)["failed"] == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--made-before=2026-03-31"], "--made-before needs --data-keys"),
        (["--verify", "--dry-run"], "--verify changes nothing and goes alone"),
        (["--verify", "--data-keys"], "--verify changes nothing and goes alone"),
    ],
)
def test_refuses_options_that_contradict_each_other(db: None, arguments: list[str], reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        rotate(*arguments)
