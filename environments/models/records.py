"""Data keys, and the audit trail."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from environments.database.tenancy import TenantOwned
from environments.encryption import VERSION
from environments.fields import SealedField
from environments.models.organizations import Organization


class DataKey(TenantOwned):
    """The key that seals one organization's secrets, itself wrapped by a key of the key ring.

    The active one is its organization's `active_data_key`; former ones stay to open what is still sealed with them.
    Deleting all data keys of an organization makes its secrets unreadable for good.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    active_for = models.OneToOneField(
        Organization, on_delete=models.PROTECT, null=True, related_name="active_data_key", editable=False
    )
    wrapped_key = SealedField()
    wrapped_by = models.CharField("wrapped by", max_length=64, editable=False, help_text="Id of the key in the ring.")
    known_answer = SealedField()
    fingerprint_key = SealedField()
    seal_count = models.PositiveBigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.CheckConstraint(
                condition=Q(active_for=None) | Q(active_for=models.F("organization")),
                name="environments_datakey_active_for_own_organization",
            ),
            models.CheckConstraint(
                condition=Q(wrapped_key__startswith=f"{VERSION}."), name="environments_datakey_is_wrapped"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["wrapped_by"], name="environments_datakey_ring"),  # readiness, rotate_encryption
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.id}"


class AuditEvent(models.Model):
    """Who did what to which object; written in the transaction of what it tells of, and never changed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, null=True, related_name="+")
    occurred_at = models.DateTimeField()
    actor = models.CharField(max_length=200)  # user:<name>, command:<name> or key:<id>
    client_address = models.GenericIPAddressField(null=True)
    action = models.CharField(max_length=64)  # such as worker.disabled
    object_type = models.CharField(max_length=64)
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=300)
    changes = models.JSONField(default=dict, help_text="Field -> [before, after]; of secrets their fingerprints only.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-occurred_at"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-occurred_at"], name="environments_audit_newest"),  # the console's list
            models.Index(fields=["object_id", "-occurred_at"], name="environments_audit_object"),  # an object's page
            models.Index(fields=["organization", "-occurred_at"], name="environments_audit_tenant"),  # a member's list
            models.Index(fields=["actor", "-occurred_at"], name="environments_audit_actor"),  # when a key was used
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_name}"
