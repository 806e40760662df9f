"""What all processes share: about logins for a short time, and which database they serve."""

import uuid
from typing import ClassVar

from django.db import models


class SharedEntry(models.Model):
    """An entry of `SharedMemory`, attempts to log in or a code that was used, or an open invitation.

    JSON, so reading runs nothing.
    """

    key_hash = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of the key, in hexadecimal")
    value = models.JSONField()
    owner = models.UUIDField(default=uuid.uuid4, help_text="who added it, so that of two at once one is first")
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "shared entries"

    def __str__(self) -> str:
        return self.key_hash


class DatabaseMark(models.Model):
    """Which database this is, as the database itself said when the mark was made: in a restored copy it is another.

    One row, made by `migrate` and by `accept_restore`; without it nothing is served.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    identity = models.CharField(max_length=200)
    timeline = models.BigIntegerField(null=True, help_text="PostgreSQL's, which a failover or a recovery changes")
    doubt = models.CharField(max_length=300, help_text="why it is taken for restored although it is the same one")
    marked_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(id=1), name="controlplane_one_database_mark")
        ]

    def __str__(self) -> str:
        return "database"
