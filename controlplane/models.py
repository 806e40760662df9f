"""What all processes share about logins for a short time."""

import uuid

from django.db import models


class SharedEntry(models.Model):
    """One entry of `SharedMemory`: attempts to log in, or a code that was used. JSON, so reading runs nothing."""

    key_hash = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of the key, in hexadecimal")
    value = models.JSONField()
    owner = models.UUIDField(default=uuid.uuid4, help_text="who added it, so that of two at once one is first")
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "shared entries"

    def __str__(self) -> str:
        return self.key_hash
