"""New data keys lose nothing, whatever interrupts them or happens beside them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from environments.encryption import KeyRing, Secret, generate_key, sealing_key_id
from environments.models import AuditEvent, DataKey, LiteLLMConnection, TemporalConnection
from environments.sealing import rotation
from environments.sealing.data_keys import open_api_key, place_of, seal_api_key
from environments.sealing.rotation import (
    Progress,
    RowsCannotOpenError,
    count_secrets_to_reseal,
    replace_data_keys,
    reseal_secrets,
    rewrap_data_keys,
)
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import ACTOR, Fleet
from tests.support.rotations import SEALED_MODELS, expected_secrets, replace, rewrap, secrets_of
from workers.models import WorkerStart

pytestmark = pytest.mark.sqlite


LONG = 20


@pytest.fixture
def committed_fleet(transactional_db: None) -> Fleet:
    return fresh_fleet()


def rotate_data_keys() -> None:
    replace()
    list(reseal_secrets())


def active_key_id(fleet: Fleet) -> str:
    return str(DataKey.objects.get(active_for=fleet.organization).pk)


def sealed_with(row: TemporalConnection | LiteLLMConnection) -> str:
    row.refresh_from_db()
    return sealing_key_id(row.sealed_api_key, place_of(row, "sealed_api_key"))


def revision_of_a_start(fleet: Fleet) -> str:
    assert start(fleet).status_code == 200
    return WorkerStart.objects.filter(worker=fleet.worker).latest("started_at").configuration_revision


def test_replaces_the_data_key_and_reseals_under_the_new_one(fleet: Fleet) -> None:
    old = active_key_id(fleet)
    rotate_data_keys()
    assert active_key_id(fleet) != old
    assert sealed_with(fleet.temporal) == sealed_with(fleet.litellm) == active_key_id(fleet)
    assert secrets_of(fleet) == expected_secrets(fleet)


def test_secrets_open_with_the_old_data_key_until_they_are_resealed(fleet: Fleet) -> None:
    old = active_key_id(fleet)
    assert replace() == [Progress(1, 1)]
    assert sealed_with(fleet.temporal) == old
    assert count_secrets_to_reseal() == 2
    assert start(fleet).json()["temporal_api_key"] == fleet.temporal_secret


def test_the_old_data_key_is_not_needed_once_everything_is_resealed(fleet: Fleet) -> None:
    rotate_data_keys()
    DataKey.objects.filter(active_for=None).delete()
    assert start(fleet).json()["litellm_api_key"] == fleet.litellm_secret


def test_replaces_only_data_keys_made_before_the_time(fleet: Fleet) -> None:
    between = timezone.now()
    newer = factories.create_fleet()
    expected = active_key_id(newer)
    old = active_key_id(fleet)
    list(replace_data_keys(made_before=between, actor=ACTOR, now=timezone.now()))
    assert active_key_id(newer) == expected
    assert active_key_id(fleet) != old


def test_neither_rotation_changes_fingerprints_versions_or_the_revision(fleet: Fleet, new_ring: KeyRing) -> None:
    shown = ("api_key_fingerprint", "api_key_version", "api_key_set_at")
    before = [model._default_manager.values(*shown).get() for model in SEALED_MODELS]
    revision = revision_of_a_start(fleet)
    rewrap()
    assert revision_of_a_start(fleet) == revision
    rotate_data_keys()
    assert revision_of_a_start(fleet) == revision
    assert [model._default_manager.values(*shown).get() for model in SEALED_MODELS] == before


def test_the_same_secret_has_the_same_fingerprint_after_a_rotation(fleet: Fleet) -> None:
    rotate_data_keys()
    row = TemporalConnection.objects.get(pk=fleet.temporal.pk)
    assert not seal_api_key(row, Secret(fleet.temporal_secret), now=timezone.now())


def test_each_organization_keeps_to_its_own_data_key(fleet: Fleet) -> None:
    other = factories.create_fleet()
    rotate_data_keys()
    assert sealed_with(fleet.temporal) == active_key_id(fleet)
    assert sealed_with(other.temporal) == active_key_id(other)
    assert secrets_of(other) == expected_secrets(other)


def test_a_reseal_is_counted_against_the_new_data_key(fleet: Fleet) -> None:
    rotate_data_keys()
    assert DataKey.objects.get(active_for=fleet.organization).seal_count == 2


def test_a_replacement_is_in_the_audit_trail(fleet: Fleet) -> None:
    old = active_key_id(fleet)
    replace()
    event = AuditEvent.objects.get(action="data_key.replaced")
    assert event.object_id == old
    assert event.changes == {"successor": [None, active_key_id(fleet)]}


def test_a_reseal_that_is_stopped_is_finished_by_the_next(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        factories.create_temporal(fleet.organization, f"more-{number}", secret=f"more-{number}")
    monkeypatch.setattr(rotation, "BATCH", 2)
    replace()
    step = reseal_secrets()
    assert next(step) == Progress(2, 6)
    step.close()
    assert count_secrets_to_reseal() == 4
    assert secrets_of(fleet) == expected_secrets(fleet)
    assert list(reseal_secrets())[-1] == Progress(4, 4)
    assert count_secrets_to_reseal() == 0
    opened = [open_api_key(row) for row in TemporalConnection.objects.filter(name__startswith="more-").order_by("name")]
    assert opened == [Secret(f"more-{number}") for number in range(4)]


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_a_row_that_does_not_open_stays_as_it_is_and_the_others_are_resealed(
    batch: int, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = factories.create_temporal(fleet.organization, "damaged")
    TemporalConnection.objects.filter(pk=damaged.pk).update(sealed_api_key=f"{damaged.sealed_api_key[:-8]}{'A' * 8}")
    factories.create_temporal(fleet.organization, "another")
    damaged.refresh_from_db()
    monkeypatch.setattr(rotation, "BATCH", batch)
    replace()
    with pytest.raises(RowsCannotOpenError, match=str(damaged.pk)) as caught:
        list(reseal_secrets())
    assert len(caught.value.errors) == 1
    assert count_secrets_to_reseal() == 1
    assert TemporalConnection.objects.get(pk=damaged.pk).sealed_api_key == damaged.sealed_api_key
    assert secrets_of(fleet) == expected_secrets(fleet)
    assert sealed_with(fleet.temporal) == active_key_id(fleet)


def run_beside(step: Any, table: str, edit: Any) -> None:
    """Runs the step in a thread and commits the edit after the step has read from the table and before it writes.

    The edit's transaction is open before, so on SQLite the step cannot begin to write until it is committed.
    """
    has_read, may_read = Event(), Event()

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith("SELECT") and f'FROM "{table}"' in sql and "LIMIT" in sql:
            has_read.set()
        return result

    def run() -> None:
        assert may_read.wait(LONG)
        try:
            with connection.execute_wrapper(watch):
                list(step)
        finally:
            has_read.set()
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            with transaction.atomic():
                edit()
                may_read.set()
                assert has_read.wait(LONG)
        finally:
            may_read.set()
        running.result(LONG)


def test_a_secret_that_is_changed_beside_a_reseal_is_kept(committed_fleet: Fleet) -> None:
    fleet = committed_fleet
    replace()

    def edit() -> None:
        row = TemporalConnection.objects.select_for_update().get(pk=fleet.temporal.pk)
        seal_api_key(row, Secret("the new one"), now=timezone.now())
        row.save()

    run_beside(reseal_secrets(), "environments_temporalconnection", edit)
    assert secrets_of(fleet) == (Secret("the new one"), Secret(fleet.litellm_secret))
    assert count_secrets_to_reseal() == 0
    row = TemporalConnection.objects.get(pk=fleet.temporal.pk)
    assert row.api_key_version == 2


def test_an_edit_that_ends_on_the_old_data_key_is_resealed_in_a_later_pass(committed_fleet: Fleet) -> None:
    """A process that took the old data key just before the replacement stores what it sealed just after."""
    fleet = committed_fleet
    late = TemporalConnection.objects.get(pk=fleet.temporal.pk)
    seal_api_key(late, Secret("sealed with the old data key"), now=timezone.now())
    replace()
    run_beside(reseal_secrets(), "environments_temporalconnection", late.save)
    assert secrets_of(fleet)[0] == Secret("sealed with the old data key")
    assert count_secrets_to_reseal() == 0


def test_another_field_that_is_changed_beside_a_reseal_is_kept(committed_fleet: Fleet) -> None:
    fleet = committed_fleet
    replace()
    rename = TemporalConnection.objects.filter(pk=fleet.temporal.pk)
    run_beside(reseal_secrets(), "environments_temporalconnection", lambda: rename.update(namespace="edited"))
    assert rename.get().namespace == "edited"
    assert secrets_of(fleet) == expected_secrets(fleet)
    assert count_secrets_to_reseal() == 0


def wait_until_it_waits_for_this() -> None:
    """Returns when another session waits for what this one has locked; on SQLite it does from its first write on."""
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    deadline = time.monotonic() + LONG
    while connection.vendor == "postgresql" and time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute(query)
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    assert connection.vendor == "sqlite"


def run_while_held(step: Callable[[], object], hold: Callable[[], object], edit: Callable[[], object]) -> None:
    """Runs the step in a thread against an edit that holds something, and goes on once the step waits for that."""

    def run() -> None:
        try:
            step()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            hold()
            running = pool.submit(run)
            wait_until_it_waits_for_this()
            edit()
        running.result(LONG)


def test_while_a_reseal_waits_for_an_edit_it_holds_nothing_that_the_edit_wants(committed_fleet: Fleet) -> None:
    """An edit in the console locks its row and then counts its seal; one by `apply` has several rows."""
    fleet = committed_fleet
    factories.create_temporal(fleet.organization, "second", secret="second")
    replace()
    first, second = TemporalConnection.objects.order_by("pk")

    def edit() -> None:
        for row in (first, second):
            seal_api_key(row, Secret(f"edited {row.name}"), now=timezone.now())
            row.save()

    run_while_held(
        lambda: list(reseal_secrets()), lambda: TemporalConnection.objects.select_for_update().get(pk=second.pk), edit
    )
    opened = [open_api_key(row) for row in TemporalConnection.objects.order_by("pk")]
    assert opened == [Secret(f"edited {row.name}") for row in (first, second)]
    assert count_secrets_to_reseal() == 0


def test_while_a_rewrap_waits_for_an_edit_it_holds_nothing_that_the_edit_wants(
    committed_fleet: Fleet, settings: Settings
) -> None:
    """`apply` counts the seals of several organizations in one transaction."""
    factories.create_fleet()
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-new"), settings.ENCRYPTION_KEYS.active])
    first, second = DataKey.objects.order_by("pk")
    count = {"seal_count": 7}
    run_while_held(
        rewrap,
        lambda: DataKey.objects.filter(pk=second.pk).update(**count),
        lambda: DataKey.objects.filter(pk=first.pk).update(**count),
    )
    assert set(DataKey.objects.values_list("wrapped_by", "seal_count")) == {("ek-new", 7)}


def test_two_rewraps_at_a_time_count_and_record_each_data_key_once(committed_fleet: Fleet, new_ring: KeyRing) -> None:
    run_beside(rewrap_data_keys(actor=ACTOR, now=timezone.now()), "environments_datakey", rewrap)
    assert AuditEvent.objects.filter(action="data_key.rewrapped").count() == 1
    assert secrets_of(committed_fleet) == expected_secrets(committed_fleet)
