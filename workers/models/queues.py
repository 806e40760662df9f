"""Worker queues, and the lock by which their workers' updates take turns."""

import uuid
from typing import TYPE_CHECKING, ClassVar, Self

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from environments.database.tenancy import TenantOwned, same_organization
from environments.models import Environment, HasConnections
from environments.models.connections import CONNECTION_POINTERS
from environments.models.fields import SlugField, slug_check
from environments.models.json_fields import ObjectField, TagsField
from environments.models.organizations import LONGEST_DESCRIPTION, SETTINGS_HELP, HasSettings, settings_hash
from workers.models.queue_settings import check_queue_settings
from workers.models.states import HasState, state_check, state_ends_at, state_reason

if TYPE_CHECKING:
    from workers.models.api_keys import ApiKey

#: More would be a mistake; the database's integer ends soon after.
MOST_WORKERS = 1_000_000


class DuplicatePolicy(models.TextChoices):
    """What a start does while another process of the same worker is still online."""

    ALLOW = "allow", "Allow and flag"
    REJECT = "reject", "Reject the start"
    TAKE_OVER = "take_over", "Take over: the older process is told to end"


class WorkerQueueQuerySet(models.QuerySet["WorkerQueue"]):
    """Queues with what a reader needs of their chain."""

    def with_chain(self) -> Self:
        """With every level's connections and the organization's data key, in one statement."""
        levels = ("", "environment__", "organization__")
        pointers = [f"{level}{pointer}" for level in levels for pointer in CONNECTION_POINTERS]
        return self.select_related("environment", "organization__active_data_key", *pointers)

    def covered_by(self, key: "ApiKey") -> Self:
        """The queues within the key's scope; the same rule as `ApiKey.covers`, so none for a worker's key."""
        rows = self.filter(organization=key.organization_id)
        if key.worker_id:
            return rows.none()
        return rows.filter(
            Q(environment=key.environment_id) if key.environment_id else Q(),
            Q(pk=key.queue_id) if key.queue_id else Q(),
        )


class WorkerQueue(HasConnections, HasSettings, HasState, TenantOwned):
    """A group of workers that poll one Temporal task queue."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="worker_queues")
    name = SlugField()
    display_name = models.CharField(max_length=200, blank=True, default="")
    description = models.CharField(max_length=LONGEST_DESCRIPTION, blank=True)
    tags = TagsField()
    settings = ObjectField(validators=[check_queue_settings], help_text=SETTINGS_HELP)
    settings_hash = settings_hash()
    heartbeat_interval = models.PositiveIntegerField(
        default=60,
        validators=[MinValueValidator(5), MaxValueValidator(3600)],
        help_text="Seconds between two heartbeats of a worker.",
    )
    max_workers = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MOST_WORKERS)],
        help_text="Live worker instances at a time; empty for no limit.",
    )
    duplicate_policy = models.CharField(
        max_length=9,
        choices=DuplicatePolicy,
        default=DuplicatePolicy.ALLOW,
        help_text="What happens to a start while another process of the same worker is online.",
    )
    is_draining = models.BooleanField(
        "draining", default=False, help_text="Running workers go on and finish; nothing new starts."
    )
    is_disabled = models.BooleanField(
        "disabled",
        default=False,
        help_text="A disabled queue's workers cannot start, and running ones are told to end.",
    )
    state_reason = state_reason()
    state_ends_at = state_ends_at()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = WorkerQueueQuerySet.as_manager()

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
            models.CheckConstraint(condition=~Q(max_workers=0), name="workers_workerqueue_max_workers_is_positive"),
            models.CheckConstraint(
                condition=Q(duplicate_policy__in=DuplicatePolicy.values), name="workers_workerqueue_duplicate_policy"
            ),
            state_check(),
            *same_organization("environment", *CONNECTION_POINTERS),
        ]

    def __str__(self) -> str:
        return self.task_queue_name

    @property
    def task_queue_name(self) -> str:
        """The queue's name on Temporal; needs `environment` to be loaded."""
        return f"{self.organization_id}.{self.environment.name}.{self.name}"


class UpdateLock(TenantOwned):
    """Held by whoever may update the workers of a queue now; past its expiry it is as if there were none."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    queue = models.OneToOneField(WorkerQueue, on_delete=models.CASCADE, related_name="update_lock")
    holder = models.CharField(max_length=200, help_text="The worker as the caller names it.")
    api_key_id = models.UUIDField(null=True, help_text="The key that it was taken with.")
    process_digest = models.CharField(
        max_length=12, blank=True, default="", db_default="", help_text="Of what its holder told of its process."
    )
    acquired_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            *same_organization("queue"),
        ]

    def __str__(self) -> str:
        return f"{self.holder} until {self.expires_at:%Y-%m-%d %H:%M:%S}"
