"""Worker queues, workers, their running instances, the ledger of starts, and API keys."""

import uuid
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Self

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from environments.models import (
    CONNECTION_POINTERS,
    Environment,
    HasConnections,
    Organization,
    SlugField,
    slug_check,
)
from environments.tenancy import TenantOwned, same_organization

#: Multiples of the heartbeat interval after which silence is Late, then Offline, and the least silence for Offline.
LATE_AFTER_INTERVALS = 1.5
OFFLINE_AFTER_INTERVALS = 3
OFFLINE_AFTER_AT_LEAST = timedelta(seconds=90)

#: Days before an API key's expiry at which the console and the log begin to warn, each more urgent.
EXPIRY_WARNING_DAYS = (30, 20, 10, 3, 1)


class Liveness(StrEnum):
    """What is known of a worker's process, computed when read and stored nowhere."""

    NEVER_STARTED = "Never started"
    ONLINE = "Online"
    LATE = "Late"
    OFFLINE = "Offline"
    STOPPED = "Stopped"


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


class WorkerInstance(TenantOwned):
    """One process of a worker: narrow, and all that a heartbeat writes. Its id is that of the start it began with."""

    id = models.UUIDField("ID", primary_key=True, editable=False)
    worker = models.ForeignKey(Worker, on_delete=models.CASCADE, related_name="instances")
    is_current = models.BooleanField(default=True)
    started_at = models.DateTimeField()
    last_heartbeat_at = models.DateTimeField(help_text="The start counts as the first.")
    stopped_at = models.DateTimeField(null=True)
    stop_reason = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["-started_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["worker"], condition=Q(is_current=True), name="workers_workerinstance_one_current"
            ),
            *same_organization("worker"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    def liveness(self, *, heartbeat_interval: int, now: datetime) -> Liveness:
        """Liveness of this process; `heartbeat_interval` in seconds, the queue's."""
        if self.stopped_at is not None:
            return Liveness.STOPPED
        silence = now - self.last_heartbeat_at
        interval = timedelta(seconds=heartbeat_interval)
        if silence > max(interval * OFFLINE_AFTER_INTERVALS, OFFLINE_AFTER_AT_LEAST):
            return Liveness.OFFLINE
        return Liveness.LATE if silence > interval * LATE_AFTER_INTERVALS else Liveness.ONLINE


class WorkerStart(models.Model):
    """The append-only ledger of starts: who started with which key from where, and what it was given.

    A row states facts: `worker` and `api_key` are kept as ids without a foreign key in the database, so that the row
    outlives them. A trigger refuses updates.
    """

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+", db_index=False)
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
    temporal_connection_id = models.UUIDField("Temporal connection")
    temporal_api_key_version = models.PositiveIntegerField("Temporal API key version")
    litellm_connection_id = models.UUIDField("LiteLLM connection")
    litellm_api_key_version = models.PositiveIntegerField("LiteLLM API key version")
    telemetry_settings_id = models.UUIDField("telemetry settings", null=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-started_at"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-started_at"], name="workers_start_newest"),  # the console's list
            models.Index(fields=["worker", "-started_at"], name="workers_start_of_worker"),  # a worker's page
            models.Index(fields=["api_key", "-started_at"], name="workers_start_of_key"),  # a key's last use
        ]

    def __str__(self) -> str:
        return f"{self.worker_name} {self.started_at:%Y-%m-%d %H:%M:%S}"


class Scope(models.TextChoices):
    """How far an API key reaches."""

    WORKER = "worker"
    QUEUE = "queue", "worker queue"
    ENVIRONMENT = "environment"
    ORGANIZATION = "organization"


def _scope_check() -> models.CheckConstraint:
    targets = ("worker", "queue", "environment")
    condition = Q(scope=Scope.ORGANIZATION, worker=None, queue=None, environment=None)
    for target in targets:
        others = {other: None for other in targets if other != target}
        condition |= Q(scope=target, **{f"{target}__isnull": False}, **others)
    return models.CheckConstraint(condition=condition, name="workers_apikey_one_scope")


class ApiKey(TenantOwned):
    """The row behind an API key; the key itself is shown once and only its SHA-256 is kept."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    scope = models.CharField(max_length=12, choices=Scope)
    worker = models.ForeignKey(Worker, on_delete=models.PROTECT, null=True, blank=True, related_name="api_keys")
    queue = models.ForeignKey(WorkerQueue, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    signing_key_id = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)
    expires_at = models.DateTimeField(null=True)
    no_expiry_reason = models.CharField(max_length=300, blank=True, default="")
    revoked_at = models.DateTimeField(null=True)
    revoke_reason = models.CharField(max_length=300, blank=True, default="")
    replaced_by = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, related_name="replaces", verbose_name="replaced by"
    )

    class Meta:
        verbose_name = "API key"
        ordering: ClassVar[list[str]] = ["-created_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            _scope_check(),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=False) | ~Q(no_expiry_reason=""),
                name="workers_apikey_no_expiry_needs_a_reason",
            ),
            *same_organization("worker", "queue", "environment", "replaced_by"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-created_at"], name="workers_apikey_newest"),  # the console's list
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def target(self) -> Any:
        """The organization, environment, queue or worker that the key is for."""
        return getattr(self, self.scope)

    def covers(self, worker: Worker) -> bool:
        """Whether the worker, loaded with its queue, lies within the key's scope."""
        if worker.organization_id != self.organization_id:
            return False
        reach = {
            Scope.ORGANIZATION: True,
            Scope.ENVIRONMENT: worker.queue.environment_id == self.environment_id,
            Scope.QUEUE: worker.queue_id == self.queue_id,
            Scope.WORKER: worker.pk == self.worker_id,
        }
        return reach[Scope(self.scope)]

    def is_usable(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def expiry_warning(self, now: datetime) -> int | None:
        """The most urgent of EXPIRY_WARNING_DAYS that has been reached, or None."""
        if self.expires_at is None or not self.is_usable(now):
            return None
        reached = [days for days in EXPIRY_WARNING_DAYS if self.expires_at - now <= timedelta(days=days)]
        return min(reached, default=None)
