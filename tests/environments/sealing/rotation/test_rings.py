"""Rotation to a new key of the ring, and what a verification finds."""

from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from environments.encryption import KeyRing, generate_key
from environments.fields import SealedField
from environments.models import AuditEvent, DataKey, TemporalConnection
from environments.sealing import rotation
from environments.sealing.rotation import (
    Progress,
    RowsCannotOpenError,
    reseal_secrets,
    rewrap_data_keys,
    sealed_columns,
    verify_all,
)
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import ACTOR, Fleet
from tests.support.rotations import SEALED_MODELS, expected_secrets, replace, rewrap, rows, secrets_of
from workers.models import NotificationTarget

pytestmark = pytest.mark.sqlite


@pytest.fixture
def fleets(fleet: Fleet) -> list[Fleet]:
    """Five organizations; listed before `new_ring`, since the ring's active key wraps what is made."""
    return [fleet, *(factories.create_fleet() for _ in range(4))]


def test_finds_every_sealed_column_by_itself() -> None:
    found = {(column.model, column.field) for column in sealed_columns()}
    of_targets = {(NotificationTarget, "sealed_url"), (NotificationTarget, "sealed_secret")}
    assert found == {(model, "sealed_api_key") for model in SEALED_MODELS} | of_targets
    assert all(isinstance(model._meta.get_field(field), SealedField) for model, field in found)


def test_has_nothing_to_do_in_an_empty_database(db: None) -> None:
    assert rewrap() == replace() == list(reseal_secrets()) == list(verify_all()) == []


def test_rewraps_every_data_key_under_the_active_key(fleets: list[Fleet], new_ring: KeyRing) -> None:
    assert rewrap() == [Progress(5, 5)]
    assert set(DataKey.objects.values_list("wrapped_by", flat=True)) == {"ek-new"}
    assert [secrets_of(fleet) for fleet in fleets] == [expected_secrets(fleet) for fleet in fleets]


def test_rewrapping_leaves_the_secrets_as_they_are(fleet: Fleet, new_ring: KeyRing) -> None:
    before = [list(model._default_manager.values()) for model in SEALED_MODELS]
    rewrap()
    assert [list(model._default_manager.values()) for model in SEALED_MODELS] == before


def test_rewrapping_again_does_nothing(fleet: Fleet, new_ring: KeyRing) -> None:
    rewrap()
    before = rows()
    assert rewrap() == []
    assert rows() == before


def test_rewrapping_is_in_the_audit_trail(fleet: Fleet, new_ring: KeyRing) -> None:
    rewrap()
    event = AuditEvent.objects.get(action="data_key.rewrapped")
    assert (event.organization, event.object_id) == (fleet.organization, str(DataKey.objects.get().pk))
    assert event.changes == {"wrapped_by": ["ek-test1", "ek-new"]}


def test_a_worker_starts_before_during_and_after_a_change_of_the_ring(fleet: Fleet, settings: Settings) -> None:
    """Two phases: the new key is added to every process as the last, then made the first, then the old one goes."""
    old, new = settings.ENCRYPTION_KEYS.active, generate_key("ek-new")
    settings.ENCRYPTION_KEYS = KeyRing([old, new])
    assert start(fleet).status_code == 200
    settings.ENCRYPTION_KEYS = KeyRing([new, old])
    assert start(fleet).status_code == 200
    rewrap()
    settings.ENCRYPTION_KEYS = KeyRing([old, new])  # a process that has not been restarted yet
    assert start(fleet).status_code == 200
    settings.ENCRYPTION_KEYS = KeyRing([new])
    answer = start(fleet)
    assert answer.status_code == 200
    assert answer.json()["temporal_api_key"] == fleet.temporal_secret


def test_without_rewrapping_the_old_key_is_still_needed(fleet: Fleet, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-new")])
    assert start(fleet).status_code == 503


def test_a_rewrap_that_is_stopped_is_finished_by_the_next(
    fleets: list[Fleet], new_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)
    step = rewrap_data_keys(actor=ACTOR, now=timezone.now())
    assert next(step) == Progress(2, 5)
    step.close()
    assert DataKey.objects.filter(wrapped_by="ek-new").count() == 2
    assert [secrets_of(each) for each in fleets] == [expected_secrets(each) for each in fleets]
    assert rewrap() == [Progress(2, 3), Progress(3, 3)]
    assert AuditEvent.objects.filter(action="data_key.rewrapped").count() == 5
    assert [secrets_of(each) for each in fleets] == [expected_secrets(each) for each in fleets]


def test_a_rewrap_without_the_old_key_changes_nothing(fleet: Fleet, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-other")])
    before = rows()
    with pytest.raises(RowsCannotOpenError, match="ek-test1"):
        rewrap()
    assert rows() == before


def test_verification_opens_everything(fleet: Fleet) -> None:
    assert list(verify_all()) == [None, None, None]


@pytest.mark.parametrize("model", SEALED_MODELS)
def test_verification_names_the_row_that_does_not_open(model: type[Any], fleet: Fleet) -> None:
    row = model.objects.get()
    model.objects.update(sealed_api_key=f"{row.sealed_api_key[:-8]}{'A' * 8}")
    (failure,) = filter(None, verify_all())
    assert f"{model._meta.db_table} row {row.pk} field sealed_api_key" in str(failure)
    assert row.sealed_api_key[-40:-10] not in str(failure)


@pytest.mark.parametrize("field", ["wrapped_key", "known_answer", "fingerprint_key"])
def test_verification_names_a_data_key_that_is_damaged(field: str, fleet: Fleet) -> None:
    row = DataKey.objects.get()
    DataKey.objects.update(**{field: f"{getattr(row, field)[:-8]}{'A' * 8}"})
    failures = [str(failure) for failure in verify_all() if failure]
    assert any(f"environments_datakey row {row.pk} field {field}" in failure for failure in failures)


def test_verification_goes_on_after_a_failure(fleet: Fleet) -> None:
    factories.create_fleet()
    TemporalConnection.objects.filter(pk=fleet.temporal.pk).update(sealed_api_key="cp1.x.y")
    results = list(verify_all())
    assert len(results) == 6
    assert len(list(filter(None, results))) == 1


def test_verification_finds_a_secret_that_was_moved_to_another_row(fleet: Fleet) -> None:
    other = factories.create_temporal(fleet.organization, "other", secret="other")
    TemporalConnection.objects.filter(pk=other.pk).update(sealed_api_key=fleet.temporal.sealed_api_key)
    (failure,) = filter(None, verify_all())
    assert str(other.pk) in str(failure)
