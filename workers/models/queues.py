"""Worker queues."""

import uuid
from typing import ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from environments.models import CONNECTION_POINTERS, Environment, HasConnections, SlugField, slug_check
from environments.tenancy import TenantOwned, same_organization


class WorkerQueue(HasConnections, TenantOwned):
    """A group of workers that poll one Temporal task queue."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="worker_queues")
    name = SlugField()
    description = models.CharField(max_length=300, blank=True)
    heartbeat_interval = models.PositiveIntegerField(
        default=60,
        validators=[MinValueValidator(5), MaxValueValidator(3600)],
        help_text="Seconds between two heartbeats of a worker.",
    )
    is_disabled = models.BooleanField("disabled", default=False, help_text="A disabled queue's workers cannot start.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["organization", "environment__name", "name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            slug_check("name"),
            models.UniqueConstraint(fields=["environment", "name"], name="workers_workerqueue_name_once"),
            models.CheckConstraint(
                condition=Q(heartbeat_interval__gte=5, heartbeat_interval__lte=3600),
                name="workers_workerqueue_heartbeat_interval_range",
            ),
            *same_organization("environment", *CONNECTION_POINTERS),
        ]

    def __str__(self) -> str:
        return self.task_queue_name

    @property
    def task_queue_name(self) -> str:
        """The queue's name on Temporal; needs `environment` to be loaded."""
        return f"{self.organization_id}.{self.environment.name}.{self.name}"
