"""Workers: registered identities."""

import uuid
from typing import TYPE_CHECKING, ClassVar, Self

from django.db import models
from django.utils import timezone

from environments.models import CONNECTION_POINTERS, HasConnections, SlugField, slug_check
from environments.tenancy import TenantOwned, same_organization
from workers.models.queues import WorkerQueue

if TYPE_CHECKING:
    from workers.models.api_keys import ApiKey


class WorkerQuerySet(models.QuerySet["Worker"]):
    """Workers with what a reader needs of their chain."""

    def with_chain(self) -> Self:
        """With every level's connections and the organization's data key, in one statement."""
        levels = ("", "queue__", "queue__environment__", "organization__")
        pointers = [f"{level}{pointer}" for level in levels for pointer in CONNECTION_POINTERS]
        return self.select_related("queue__environment", "organization__active_data_key", *pointers)

    def within(self, key: "ApiKey") -> Self:
        """The workers of the key's organization: the one predicate that isolates tenants."""
        return self.filter(organization=key.organization_id)


class Worker(HasConnections, TenantOwned):
    """A registered identity, created once; its process is a `WorkerInstance`."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    queue = models.ForeignKey(WorkerQueue, on_delete=models.PROTECT, related_name="workers")
    name = SlugField()
    description = models.CharField(max_length=300, blank=True)
    is_disabled = models.BooleanField("disabled", default=False, help_text="A disabled worker cannot start.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["organization", "name", "id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            slug_check("name"),
            models.UniqueConstraint(fields=["queue", "name"], name="workers_worker_name_once"),
            *same_organization("queue", *CONNECTION_POINTERS),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.name}"
