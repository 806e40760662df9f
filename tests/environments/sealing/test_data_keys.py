import logging
from collections.abc import Callable

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from environments.encryption import (
    SEALS_TO_REFUSE_AT,
    SEALS_TO_WARN_AT,
    CannotOpenError,
    KeyRing,
    Secret,
    generate_key,
)
from environments.fields import SealedField
from environments.models import DataKey, LiteLLMConnection, TemporalConnection
from environments.sealing.data_keys import (
    DataKeyExhaustedError,
    create_data_key,
    open_api_key,
    seal_api_key,
    unwrap,
    verify_known_answer,
    wrap,
)
from tests.support import factories
from tests.support.calls import assert_refused, start
from tests.support.factories import Fleet
from workers.models import WorkerStart

pytestmark = pytest.mark.sqlite

type Damage = Callable[[Fleet], object]


def stored(fleet: Fleet) -> TemporalConnection:
    return TemporalConnection.objects.get(pk=fleet.temporal.pk)


def seal(connection: TemporalConnection, text: str) -> bool:
    return seal_api_key(connection, Secret(text), now=timezone.now())


# --- Storage ---------------------------------------------------------------------------------------------------------


def test_opens_what_is_stored(fleet: Fleet) -> None:
    assert open_api_key(stored(fleet)) == Secret(fleet.temporal_secret)


def test_the_database_holds_no_plain_text(fleet: Fleet) -> None:
    for model in apps.get_models():
        columns = [field.column for field in model._meta.concrete_fields if isinstance(field, SealedField)]
        with connection.cursor() as cursor:
            for column in columns:
                cursor.execute(f"SELECT {column} FROM {model._meta.db_table}")  # noqa: S608
                for (text,) in cursor.fetchall():
                    assert text.startswith("cp1.")
                    assert fleet.temporal_secret not in text
                    assert fleet.litellm_secret not in text


def test_the_database_refuses_plain_text_in_a_sealed_column(fleet: Fleet) -> None:
    for text in ("plain-text", "", "cp2.x.y"):
        with pytest.raises(IntegrityError), transaction.atomic():
            TemporalConnection.objects.update(sealed_api_key=text)
    with pytest.raises(IntegrityError), transaction.atomic():
        DataKey.objects.update(wrapped_key="plain-key")


def test_loading_a_row_decrypts_nothing(fleet: Fleet, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-other")])
    row = stored(fleet)
    assert row.sealed_api_key.startswith("cp1.")
    assert row.shown_fingerprint == fleet.temporal.api_key_fingerprint
    with pytest.raises(CannotOpenError):
        open_api_key(row)


def test_one_data_key_serves_an_organization_and_another_one_the_next(fleet: Fleet) -> None:
    other = factories.create_fleet()
    assert DataKey.objects.get(organization=fleet.organization).active_for_id == fleet.organization.id
    assert (
        DataKey.objects.get(organization=other.organization).pk
        != DataKey.objects.get(organization=fleet.organization).pk
    )


def test_the_data_key_and_not_the_ring_seals_the_secret(fleet: Fleet) -> None:
    data_key = DataKey.objects.get(organization=fleet.organization)
    assert stored(fleet).sealed_api_key.split(".")[1] == str(data_key.pk)
    assert data_key.wrapped_key.split(".")[1] == data_key.wrapped_by == "ek-test1"


def test_a_server_without_key_is_given_an_empty_one(fleet: Fleet) -> None:
    keyless = factories.create_temporal(fleet.organization, "local", requires_api_key=False)
    assert open_api_key(keyless) == Secret("")
    assert keyless.shown_fingerprint == ""


def test_a_connection_that_needs_a_key_cannot_be_stored_without(fleet: Fleet) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        TemporalConnection.objects.create(organization=fleet.organization, name="x", host="h:1", namespace="n")


# --- Fingerprints and versions -----------------------------------------------------------------------------------------


def test_equal_secrets_of_one_organization_have_equal_fingerprints(fleet: Fleet) -> None:
    one = factories.create_temporal(fleet.organization, "one", secret="same")
    two = factories.create_litellm(fleet.organization, "two", secret="same")
    assert one.api_key_fingerprint == two.api_key_fingerprint
    assert one.sealed_api_key != two.sealed_api_key


def test_equal_secrets_of_two_organizations_have_different_fingerprints(fleet: Fleet) -> None:
    other = factories.create_organization("other")
    one = factories.create_temporal(fleet.organization, "one", secret="same")
    two = factories.create_temporal(other, "one", secret="same")
    assert one.api_key_fingerprint != two.api_key_fingerprint


def test_the_same_secret_again_changes_nothing(fleet: Fleet) -> None:
    row = stored(fleet)
    before = (row.sealed_api_key, row.api_key_version)
    assert not seal(row, fleet.temporal_secret)
    assert (row.sealed_api_key, row.api_key_version) == before


def test_a_new_secret_raises_the_version(fleet: Fleet) -> None:
    row = stored(fleet)
    assert seal(row, "rotated")
    assert row.api_key_version == fleet.temporal.api_key_version + 1
    assert open_api_key(row) == Secret("rotated")


# --- Counting seals ----------------------------------------------------------------------------------------------------


def test_counts_every_seal(fleet: Fleet) -> None:
    before = DataKey.objects.get().seal_count
    seal(stored(fleet), "another")
    assert DataKey.objects.get().seal_count == before + 1


@pytest.mark.parametrize(("count", "is_warned"), [(SEALS_TO_WARN_AT - 1, False), (SEALS_TO_WARN_AT, True)])
def test_warns_from_half_of_what_random_nonces_allow(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, count: int, is_warned: bool
) -> None:
    DataKey.objects.update(seal_count=count)
    assert seal(stored(fleet), "another")
    assert ("rotate_encryption" in caplog.text) is is_warned


def test_seals_up_to_nine_tenths_of_what_random_nonces_allow_and_then_refuses(fleet: Fleet) -> None:
    assert SEALS_TO_WARN_AT == 2**31
    assert int(0.9 * 2**32) == SEALS_TO_REFUSE_AT
    row = stored(fleet)
    before = row.sealed_api_key
    DataKey.objects.update(seal_count=SEALS_TO_REFUSE_AT)
    with pytest.raises(DataKeyExhaustedError):
        seal(row, "another")
    assert row.sealed_api_key == before
    DataKey.objects.update(seal_count=SEALS_TO_REFUSE_AT - 1)
    assert seal(row, "another")


# --- Key ring rotation ---------------------------------------------------------------------------------------------------


def test_a_new_key_is_added_behind_the_active_one_and_then_made_active(fleet: Fleet, settings: Settings) -> None:
    old, new = settings.ENCRYPTION_KEYS.active, generate_key("ek-new")
    settings.ENCRYPTION_KEYS = KeyRing([old, new])
    row, _ = create_data_key(factories.create_organization("second").id)
    assert row.wrapped_by == old.id
    settings.ENCRYPTION_KEYS = KeyRing([new, old])
    key = unwrap(row)
    wrap(row, key)
    row.save()
    assert row.wrapped_by == new.id
    settings.ENCRYPTION_KEYS = KeyRing([new])
    assert unwrap(row).material == key.material
    verify_known_answer(row)
    with pytest.raises(CannotOpenError, match=old.id):
        open_api_key(stored(fleet))


def test_an_organization_has_at_most_one_active_data_key(fleet: Fleet) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        create_data_key(fleet.organization.id)
    DataKey.objects.update(active_for=None)
    create_data_key(fleet.organization.id)


def test_opens_what_a_former_data_key_sealed(fleet: Fleet) -> None:
    DataKey.objects.update(active_for=None)
    create_data_key(fleet.organization.id)
    assert open_api_key(stored(fleet)) == Secret(fleet.temporal_secret)
    assert start(fleet).json()["temporal_api_key"] == fleet.temporal_secret


def test_a_data_key_of_another_organization_does_not_serve(fleet: Fleet) -> None:
    other = factories.create_fleet()
    row = stored(fleet)
    row.sealed_api_key = row.sealed_api_key.replace(
        str(DataKey.objects.get(organization=fleet.organization).pk),
        str(DataKey.objects.get(organization=other.organization).pk),
    )
    with pytest.raises(CannotOpenError, match="does not exist"):
        open_api_key(row)


# --- Damage: one start fails closed, all others go on ----------------------------------------------------------------------


def set_sealed(text: str) -> Damage:
    return lambda fleet: TemporalConnection.objects.filter(pk=fleet.temporal.pk).update(sealed_api_key=text)


def flip_a_character(fleet: Fleet) -> None:
    sealed = fleet.temporal.sealed_api_key
    middle = len(sealed) - 20
    flipped = sealed[:middle] + ("A" if sealed[middle] != "A" else "B") + sealed[middle + 1 :]
    set_sealed(flipped)(fleet)


def move_from_another_field_of_the_fleet(fleet: Fleet) -> None:
    set_sealed(fleet.litellm.sealed_api_key)(fleet)


def move_from_another_row(fleet: Fleet) -> None:
    set_sealed(factories.create_temporal(fleet.organization, "second").sealed_api_key)(fleet)


def move_from_another_organization(fleet: Fleet) -> None:
    set_sealed(factories.create_fleet().temporal.sealed_api_key)(fleet)


def delete_the_data_key(fleet: Fleet) -> None:
    DataKey.objects.filter(organization=fleet.organization).delete()


def swap_the_wrapped_data_key(fleet: Fleet) -> None:
    other = DataKey.objects.get(organization=factories.create_fleet().organization)
    DataKey.objects.filter(organization=fleet.organization).update(wrapped_key=other.wrapped_key)


def damage_the_litellm_secret(fleet: Fleet) -> None:
    LiteLLMConnection.objects.filter(pk=fleet.litellm.pk).update(sealed_api_key=fleet.litellm.sealed_api_key + "A")


DAMAGES: dict[str, Damage] = {
    "one character flipped": flip_a_character,
    "truncated": lambda fleet: set_sealed(fleet.temporal.sealed_api_key[:-8])(fleet),
    "only the prefix": set_sealed("cp1."),
    "no payload": set_sealed("cp1.some-key."),
    "plain text behind the prefix": set_sealed("cp1.plain-text"),
    "a key id that is no UUID": set_sealed(f"cp1.nonsense.{'A' * 60}"),
    "moved from another table": move_from_another_field_of_the_fleet,
    "moved from another row": move_from_another_row,
    "moved from another organization": move_from_another_organization,
    "data key deleted": delete_the_data_key,
    "data key of another organization": swap_the_wrapped_data_key,
    "only the LiteLLM secret": damage_the_litellm_secret,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_secret_fails_its_start_with_503_and_no_other(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, damage: Damage
) -> None:
    other = factories.create_fleet()
    damage(fleet)
    caplog.clear()
    response = start(fleet)
    assert_refused(response, 503)
    assert int(response["Retry-After"]) > 0
    lines = [record for record in caplog.records if record.name == "controlplane.api.errors"]
    assert [line.levelno for line in lines] == [logging.ERROR]
    for text in (caplog.text, response.content.decode()):
        assert fleet.temporal_secret not in text
        assert fleet.litellm_secret not in text
        assert fleet.temporal.sealed_api_key.split(".")[2] not in text
    assert start(other).status_code == 200
    assert [row.organization_id for row in WorkerStart.objects.all()] == [other.organization.id]


def test_the_log_line_names_key_id_table_and_row(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    flip_a_character(fleet)
    start(fleet)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "controlplane.api.errors"]
    assert str(DataKey.objects.get().pk) in line
    assert "environments_temporalconnection" in line
    assert str(fleet.temporal.pk) in line


def test_a_key_missing_in_the_ring_fails_starts_with_503_naming_it_in_the_log(
    fleet: Fleet, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    ring = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-other")])
    assert_refused(start(fleet), 503)
    assert "ek-test1" in caplog.text
    settings.ENCRYPTION_KEYS = ring
    assert start(fleet).status_code == 200


def test_a_damaged_secret_that_the_worker_is_not_given_does_no_harm(fleet: Fleet) -> None:
    narrower = factories.create_temporal(fleet.organization, "narrower", secret="narrow")
    factories.point(fleet.worker, temporal_connection=narrower)
    flip_a_character(fleet)
    assert start(fleet).json()["temporal_api_key"] == "narrow"


def test_no_key_was_ever_declared_is_no_excuse_for_a_sealed_one_that_does_not_open(fleet: Fleet) -> None:
    """Switching the requirement off gives "", switching it on again gives the secret: neither guesses."""
    TemporalConnection.objects.update(requires_api_key=False)
    assert start(fleet).json()["temporal_api_key"] == ""
    TemporalConnection.objects.update(requires_api_key=True)
    assert start(fleet).json()["temporal_api_key"] == fleet.temporal_secret
