"""Seals and opens the secrets of rows with their organization's data key, which the key ring in the settings wraps."""

import logging
import uuid
from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F

from environments.encryption import (
    SEALS_TO_REFUSE_AT,
    SEALS_TO_WARN_AT,
    CannotOpenError,
    Key,
    KeyRing,
    Place,
    Secret,
    generate_key,
    sealing_key_id,
)
from environments.models import CredentialConnection, DataKey

if TYPE_CHECKING:
    from django.db.models import Model

logger = logging.getLogger(__name__)

KNOWN_ANSWER = Secret("the key ring opens this organization")


class DataKeyExhaustedError(Exception):
    """A data key has sealed as often as random nonces allow: `rotate_encryption --data-keys` makes another."""


def key_ring() -> KeyRing:
    """The ring of key-encryption keys; the first is active."""
    ring: KeyRing = settings.ENCRYPTION_KEYS
    return ring


def place_of(row: "Model", field: str) -> Place:
    """The place that a row's sealed field is bound to."""
    organization: str = row.organization_id  # type: ignore[attr-defined]  # every row with a sealed field has one
    return Place(organization, row._meta.db_table, str(row.pk), field)


def create_data_key(organization_id: str, *, fingerprint_key: Key | None = None) -> tuple[DataKey, Key]:
    """The active data key of an organization that has none, wrapped by the active key of the ring and stored.

    A successor takes over its predecessor's fingerprint key, so that fingerprints, and with them configuration
    revisions, stay as they are.
    """
    row, key = make_data_key(organization_id, fingerprint_key=fingerprint_key)
    row.save(force_insert=True)
    return row, key


def make_data_key(organization_id: str, *, fingerprint_key: Key | None = None) -> tuple[DataKey, Key]:
    """The same without storing it."""
    row = DataKey(organization_id=organization_id, active_for_id=organization_id)
    key = generate_key(str(row.id))
    wrap(row, key)
    row.known_answer = key.seal(KNOWN_ANSWER, place_of(row, "known_answer"))
    fingerprint_key = fingerprint_key or generate_key("fingerprint")
    row.fingerprint_key = key.seal_key(fingerprint_key, place_of(row, "fingerprint_key"))
    return row, key


def fingerprint_key_of(row: DataKey, key: Key) -> Key:
    """The key that makes an organization's fingerprints."""
    return key.open_key(row.fingerprint_key, place_of(row, "fingerprint_key"), "fingerprint")


def wrap(row: DataKey, key: Key) -> None:
    """Wraps a data key with the ring's active key; the caller saves the row."""
    active = key_ring().active
    row.wrapped_key = active.seal_key(key, place_of(row, "wrapped_key"))
    row.wrapped_by = active.id


def unwrap(row: DataKey) -> Key:
    """The data key itself; CannotOpenError naming the ring's key when that is missing or another.

    It stays with the row as it was loaded, since a start opens several secrets with it.
    """
    kept: tuple[str, Key] | None = row.__dict__.get("_unwrapped")
    if kept is None or kept[0] != row.wrapped_key:
        key = key_ring().open_key(row.wrapped_key, place_of(row, "wrapped_key"), str(row.id))
        kept = row.__dict__["_unwrapped"] = row.wrapped_key, key
    return kept[1]


def verify_known_answer(row: DataKey) -> None:
    """CannotOpenError unless the ring unwraps this data key and the key opens its known answer and fingerprint key."""
    key = unwrap(row)
    if key.open(row.known_answer, place_of(row, "known_answer")) != KNOWN_ANSWER:
        reason = "the known answer differs"
        raise CannotOpenError(key_id=row.wrapped_by, place=place_of(row, "known_answer"), reason=reason)
    fingerprint_key_of(row, key)


def seal_api_key(connection: CredentialConnection, secret: Secret, *, now: datetime) -> bool:
    """Seals a connection's API key into the row, which the caller saves; False when it is the same key as before.

    Counts the seal against the data key. The first secret of an organization creates its data key.
    """
    row, key = active_data_key(connection.organization_id)
    if has_api_key(connection, secret, row, key):
        return False
    count_seals(row, 1)
    put_api_key(connection, secret, row, key, now=now)
    return True


def has_api_key(connection: CredentialConnection, secret: Secret, row: DataKey, key: Key) -> bool:
    """Whether this is the API key that the connection has; told by its fingerprint, so nothing is opened."""
    fingerprint = fingerprint_key_of(row, key).fingerprint(secret)
    return bool(connection.sealed_api_key) and connection.api_key_fingerprint == fingerprint


def put_api_key(connection: CredentialConnection, secret: Secret, row: DataKey, key: Key, *, now: datetime) -> None:
    """Seals an API key into the connection with a data key, against which the caller counts the seal."""
    connection.sealed_api_key = key.seal(secret, place_of(connection, "sealed_api_key"))
    connection.api_key_fingerprint = fingerprint_key_of(row, key).fingerprint(secret)
    connection.api_key_version += 1
    connection.api_key_set_at = now


def seal_into(row: "Model", field: str, secret: Secret) -> str:
    """Seals a secret into a field of a row, which the caller saves; its fingerprint. Counts the seal."""
    organization_id: str = row.organization_id  # type: ignore[attr-defined]  # every row with a sealed field has one
    data_key, key = active_data_key(organization_id)
    count_seals(data_key, 1)
    setattr(row, field, key.seal(secret, place_of(row, field)))
    return fingerprint_key_of(data_key, key).fingerprint(secret)


def active_data_key(organization_id: str) -> tuple[DataKey, Key]:
    """The data key that seals an organization's secrets; the first one is made when it is first asked for."""
    row = DataKey.objects.filter(active_for=organization_id).first()
    if row is None:
        try:
            with transaction.atomic():
                return create_data_key(organization_id)
        except IntegrityError:  # another process made the first one in the meantime
            row = DataKey.objects.get(active_for=organization_id)
    return row, unwrap(row)


def open_api_key(connection: CredentialConnection, *, data_key: DataKey | None = None) -> Secret:
    """A connection's API key; "" only where the connection declares that its server takes none.

    `data_key` is the organization's active one if the caller has it at hand; another is looked up while a rotation is
    under way. CannotOpenError for a row that does not open: never "" or None instead.
    """
    if not connection.requires_api_key:
        return Secret("")
    return open_sealed(connection, "sealed_api_key", data_key=data_key)


def open_sealed(row: "Model", field: str, *, data_key: DataKey | None = None) -> Secret:
    """The secret in a sealed column; `data_key` as for `open_api_key`."""
    place = place_of(row, field)
    sealed = getattr(row, field)
    key_id = sealing_key_id(sealed, place)
    if data_key is None or str(data_key.pk) != key_id:
        data_key = _data_key(key_id, place)
    return unwrap(data_key).open(sealed, place)


def count_seals(row: DataKey, number: int) -> None:
    """Counts seals against a data key before they are made; DataKeyExhaustedError when it is used up."""
    require_unexhausted(row)
    DataKey.objects.filter(pk=row.pk).update(seal_count=F("seal_count") + number)


def require_unexhausted(row: DataKey) -> None:
    """DataKeyExhaustedError for a data key that is used up; a warning in the log for one that soon will be."""
    if row.seal_count >= SEALS_TO_REFUSE_AT:
        msg = f"Data key {row.pk} has sealed {row.seal_count} times: run manage.py rotate_encryption --data-keys."
        raise DataKeyExhaustedError(msg)
    if row.seal_count >= SEALS_TO_WARN_AT:
        logger.warning("data key %s has sealed %d times: run rotate_encryption --data-keys", row.pk, row.seal_count)


def _data_key(key_id: str, place: Place) -> DataKey:
    try:
        return DataKey.objects.get(pk=uuid.UUID(key_id), organization_id=place.organization)
    except (ValueError, DataKey.DoesNotExist):
        reason = "this data key does not exist"
        raise CannotOpenError(key_id=key_id, place=place, reason=reason) from None
