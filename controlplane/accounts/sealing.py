"""Seals what second factors keep in the database, seeds of authenticator apps and recovery codes, with the key ring.

People belong to no organization, so no data key fits: the ring's keys seal these few texts themselves, each bound to
its user, so a seed that is copied to another does not open. `rotate_encryption` finds them through `SecondFactors`.
"""

from collections.abc import Iterable

from allauth.mfa.models import Authenticator
from django.contrib.auth.models import User
from django.db import transaction

from environments.encryption import VERSION, CannotOpenError, Place, sealing_key_id
from environments.sealing.data_keys import key_ring

#: What in an authenticator's data is sealed.
SEALED = ("secret", "seed")


def place_of(user_id: int) -> Place:
    """The place that a user's second factors are bound to."""
    return Place("", User._meta.db_table, str(user_id), "second_factor")


def seal_factor(text: str, user_id: int) -> str:
    """The text sealed for a user under the active key of the ring."""
    return key_ring().active.seal_bytes(text.encode(), place_of(user_id))


def open_factor(sealed: str, user_id: int) -> str:
    """What `seal_factor` was given for this user; CannotOpenError for anything else."""
    place = place_of(user_id)
    key_id = sealing_key_id(sealed, place)
    if key_id not in key_ring():
        raise CannotOpenError(key_id=key_id, place=place, reason="this key is not in the key ring")
    return key_ring()[key_id].open_bytes(sealed, place).decode()


class SecondFactors:
    """The sealed second factors, as `environments.sealing.rotation` wants to know them."""

    name = "second factors"

    def rows(self) -> Iterable[Authenticator]:
        rows: Iterable[Authenticator] = Authenticator.objects.exclude(type=Authenticator.Type.WEBAUTHN).order_by("pk")
        return rows

    def is_current(self, row: Authenticator) -> bool:
        prefix = f"{VERSION}.{key_ring().active.id}."
        return all(str(row.data[name]).startswith(prefix) for name in SEALED if name in row.data)

    def rewrap(self, row: Authenticator) -> None:
        """Seals them under the active key; the row is locked lest a recovery code that is just used be used again."""
        with transaction.atomic():
            row = Authenticator.objects.select_for_update(no_key=True).get(pk=row.pk)
            for name in SEALED:
                if name in row.data:
                    row.data[name] = seal_factor(open_factor(row.data[name], row.user_id), row.user_id)
            row.save(update_fields=["data"])

    def verify(self, row: Authenticator) -> None:
        for name in SEALED:
            if name in row.data:
                open_factor(row.data[name], row.user_id)
