"""Seals the secrets that a document names, before anything is locked or written."""

from collections import Counter
from datetime import datetime
from typing import Any

from environments.encryption import Key, Secret
from environments.models import CredentialConnection, DataKey
from environments.sealing.data_keys import (
    count_seals,
    has_api_key,
    make_data_key,
    put_api_key,
    require_unexhausted,
    unwrap,
)


class Seals:
    """The data keys of one run by organization, and how often each has sealed."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[DataKey, Key]] = {}
        self._made: list[DataKey] = []
        self._counts: Counter[Any] = Counter()

    def put(self, connection: CredentialConnection, secret: Secret, *, now: datetime) -> None:
        """Seals an API key into the connection unless it is the one there.

        CannotOpenError when the data key does not open, DataKeyExhaustedError when it is used up.
        """
        row, key = self._key_of(connection.organization_id)
        if has_api_key(connection, secret, row, key):
            return
        require_unexhausted(row)
        put_api_key(connection, secret, row, key, now=now)
        self._counts[row.pk] += 1

    def make(self) -> None:
        """Stores the data keys that were made."""
        for row in self._made:
            row.save(force_insert=True)

    def count(self) -> None:
        """Counts the seals; after the connections, as the console does."""
        for row, _ in sorted(self._keys.values(), key=lambda kept: str(kept[0].pk)):
            if self._counts[row.pk]:
                count_seals(row, self._counts[row.pk])

    def _key_of(self, organization_id: str) -> tuple[DataKey, Key]:
        if organization_id not in self._keys:
            row = DataKey.objects.filter(active_for=organization_id).first()
            if row is None:
                self._keys[organization_id] = made = make_data_key(organization_id)
                self._made.append(made[0])
            else:
                self._keys[organization_id] = row, unwrap(row)
        return self._keys[organization_id]
