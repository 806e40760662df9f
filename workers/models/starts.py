"""The ledger of starts."""

import uuid
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Value
from django.db.models.functions import Concat

from environments.models import Organization
from workers.models.workers import Worker


def version_column(kind: Any) -> str:
    """The column that tells which version of its API key a connection of this kind had."""
    return f"{kind.POINTER.removesuffix('_connection')}_api_key_version"


class StartQuerySet(models.QuerySet["WorkerStart"]):
    """Starts as those who tell one worker's or one key's history ask for them."""

    def owned_by(self, organization: Any) -> Self:
        """Those of the organization with this id, asked so that its own index cannot answer.

        Who names a worker or a key finds its starts by that one's index. By the organization's, which databases now and
        then take for as good, all of its starts are read where there is none of that worker or key.
        """
        return self.alias(owner=Concat("organization_id", Value(""))).filter(owner=organization)


class WorkerStart(models.Model):
    """The append-only ledger of starts: who started with which key from where, and what it was given.

    A row states facts: what it names are ids without a foreign key in the database, so that the row outlives worker and
    key, and no start locks the one row of its organization that all of them name. A trigger refuses updates.
    """

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    worker = models.ForeignKey(
        Worker, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="starts"
    )
    api_key = models.ForeignKey(
        "workers.ApiKey", on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="starts"
    )
    started_at = models.DateTimeField()
    worker_name = models.CharField(max_length=63)
    task_queue_name = models.CharField(max_length=200)
    client_address = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=300, blank=True)
    system_info = models.JSONField(default=dict)
    configuration_revision = models.CharField(max_length=12)
    displaced_instance_id = models.UUIDField(
        "displaced instance", null=True, help_text="The process of this worker that was still online at this start."
    )
    temporal_connection_id = models.UUIDField("Temporal connection")
    temporal_api_key_version = models.PositiveIntegerField("Temporal API key version")
    litellm_connection_id = models.UUIDField("LiteLLM connection")
    litellm_api_key_version = models.PositiveIntegerField("LiteLLM API key version")
    telemetry_settings_id = models.UUIDField("telemetry settings", null=True)

    objects = StartQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["-started_at"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-started_at"], name="workers_start_newest"),  # the console's list
            models.Index(fields=["organization", "-started_at"], name="workers_start_of_tenant"),  # a member's list
            models.Index(fields=["worker", "-started_at"], name="workers_start_of_worker"),  # a worker's page
            models.Index(fields=["api_key", "-started_at"], name="workers_start_of_key"),  # a key's last use
        ]

    def __str__(self) -> str:
        return f"{self.worker_name} {self.started_at:%Y-%m-%d %H:%M:%S}"
