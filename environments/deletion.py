"""Deletes rows; each is on record, with all that goes along with it."""

from datetime import datetime

from django.db import models, transaction
from django.db.models.deletion import ProtectedError

from environments import audit
from environments.audit import Actor
from environments.database.removal import Removal


class GoneError(Exception):
    """Somebody else deleted the row meanwhile."""


@transaction.atomic
def delete(row: models.Model, *, actor: Actor, now: datetime) -> None:
    """Deletes a row and what goes along with it, or nothing.

    GoneError when it is gone already, ProtectedError when something stands in the way.
    """
    stored = type(row)._base_manager.select_for_update().filter(pk=row.pk).order_by().first()
    if stored is None:
        raise GoneError
    removal = Removal([stored])
    if removal.barriers:
        msg = f"{row} cannot be deleted, since other rows need it."
        raise ProtectedError(msg, removal.barriers)
    for ended in removal.ended():
        audit.record_deletion(ended, actor=actor, now=now)
    lost = {
        str(kind._meta.verbose_name_plural).lower().replace(" ", "_"): count for kind, count in removal.lost().items()
    }
    audit.record_deletion(stored, actor=actor, now=now, lost=lost)
    removal.delete()
