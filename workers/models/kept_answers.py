"""Answers to changes that a client may ask for twice, since it heard of none."""

import uuid
from typing import ClassVar

from django.db import models

from environments.database.tenancy import TenantOwned, same_organization
from workers.models.api_keys import ApiKey


class KeptAnswer(TenantOwned):
    """What a call with an Idempotency-Key was answered; it is there exactly when what it asked for was done."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    api_key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="+")
    key_hash = models.CharField(max_length=64, unique=True, help_text="Of the API key and the Idempotency-Key.")
    body_hash = models.CharField(max_length=64, help_text="Of what was asked for.")
    status = models.PositiveSmallIntegerField(default=0)
    answer = models.TextField(default="", help_text="In JSON, without any secret.")
    version = models.CharField(max_length=12, default="")
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            *same_organization("api_key"),
        ]

    def __str__(self) -> str:
        return self.key_hash
