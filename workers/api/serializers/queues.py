"""The shapes of what readers of the fleet are answered; none of them holds a secret."""

from datetime import datetime, timedelta
from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from environments import times
from environments.models import Environment
from environments.models.connections import CONNECTION_POINTERS
from workers.api.serializers.workers import Fixed, FreeObject, NameField, OptionalInteger
from workers.installation.queue import WORKER_PACKAGE_VERSION
from workers.models import State, UpdateLock, WorkerInstance, WorkerQueue
from workers.reports.queues import Described, QueueConfiguration, QueueMetrics, status_of
from workers.reports.task_queues import TaskQueue

#: Existing clients' words for a queue's state.
QUEUE_STATUSES = {State.ENABLED: "active", State.DISABLED: "inactive", State.DRAINING: "paused"}
INSTANCE_STATUSES = ("active", "idle", "busy", "offline", "disconnected")


def queue_status(queue: WorkerQueue) -> str:
    """Existing clients' word for what holds of it now."""
    return QUEUE_STATUSES[queue.state_at(times.now())]


class Text(serializers.CharField):
    """Text that is null rather than empty."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_null=True, **kwargs)

    def to_representation(self, value: str) -> str | None:  # type: ignore[override]  # null is what it is for
        return value or None


class TagList(serializers.ListField):
    """Tags in their order."""

    child = serializers.CharField()


class Members(serializers.DictField):
    """A free object, as it was given."""

    def to_representation(self, value: Any) -> Any:
        return value


class PageSerializer(serializers.Serializer[dict[str, Any]]):
    """Which part of a long list is asked for; the header X-Total-Count tells how long it is."""

    limit = serializers.IntegerField(default=1000, min_value=1, max_value=1000)
    offset = serializers.IntegerField(default=0, min_value=0, max_value=2**31)
    cursor = serializers.CharField(
        default="", max_length=1000, help_text="The header X-Next-Cursor of the part before; `offset` does not count."
    )


class PointersSerializer(serializers.Serializer[Any]):
    """What the level in `row` points to itself."""

    def get_fields(self) -> dict[str, Any]:
        pointers = [f"{name}_id" for name in CONNECTION_POINTERS]
        return {
            **super().get_fields(),
            **{name: serializers.UUIDField(source=f"row.{name}", allow_null=True) for name in pointers},
        }


@extend_schema_serializer(component_name="WorkerQueueResponse")
class WorkerQueueSerializer(PointersSerializer):
    """A worker queue; `active_workers` counts live processes, which is what `max_workers` limits."""

    id = serializers.UUIDField(source="row.id")
    organization_id = serializers.CharField(source="row.organization_id")
    environment_id = serializers.UUIDField(source="row.environment_id")
    name = serializers.CharField(source="row.name")
    display_name = serializers.CharField(source="row.display_name")
    description = serializers.CharField(source="row.description")
    status = serializers.SerializerMethodField()
    max_workers = serializers.IntegerField(source="row.max_workers", allow_null=True)
    heartbeat_interval = serializers.IntegerField(source="row.heartbeat_interval")
    tags = TagList(source="row.tags")
    settings = Members(source="row.settings")
    created_at = serializers.DateTimeField(source="row.created_at")
    updated_at = serializers.DateTimeField(source="provenance.updated_at")
    created_by = serializers.CharField(source="provenance.created_by", allow_null=True)
    active_workers = serializers.IntegerField(source="counts.active")
    state_reason = Text(source="row.state_reason", help_text="Why it is inactive or paused.")
    state_ends_at = serializers.DateTimeField(
        source="row.state_ends_at", allow_null=True, help_text="When that ends by itself."
    )
    task_queue_name = serializers.CharField(source="row.task_queue_name")

    def get_status(self, described: Described[WorkerQueue]) -> str:
        return queue_status(described.row)


@extend_schema_serializer(component_name="EnvironmentResponse")
class EnvironmentSerializer(PointersSerializer):
    """An environment and its live processes."""

    id = serializers.UUIDField(source="row.id")
    organization_id = serializers.CharField(source="row.organization_id")
    name = serializers.CharField(source="row.name")
    display_name = serializers.CharField(source="row.display_name")
    description = Text(source="row.description")
    tags = TagList(source="row.tags")
    settings = Members(source="row.settings")
    status = Fixed("active")
    created_at = serializers.DateTimeField(source="row.created_at")
    updated_at = serializers.DateTimeField(source="provenance.updated_at")
    created_by = serializers.CharField(source="provenance.created_by", allow_null=True)
    active_workers = serializers.IntegerField(source="counts.active")
    idle_workers = serializers.IntegerField(source="counts.idle")
    busy_workers = serializers.IntegerField(source="counts.busy")
    execution_environment = Members(source="row.execution_environment")
    variables = serializers.SerializerMethodField()
    secrets = serializers.SerializerMethodField()
    integrations = serializers.SerializerMethodField()

    def get_variables(self, described: Described[Environment]) -> dict[str, str]:
        return described.row.execution_environment.get("env_vars", {})  # type: ignore[no-any-return]  # JSON

    def get_secrets(self, described: Described[Environment]) -> list[str]:
        return described.row.execution_environment.get("secrets", [])  # type: ignore[no-any-return]  # JSON

    def get_integrations(self, described: Described[Environment]) -> list[str]:
        return described.row.execution_environment.get("integration_ids", [])  # type: ignore[no-any-return]  # JSON


@extend_schema_serializer(component_name="WorkerDetail")
class WorkerDetailSerializer(serializers.Serializer[WorkerInstance]):
    """One process of a worker: `id` is the process, `worker_id` the worker."""

    id = serializers.UUIDField()
    worker_id = serializers.UUIDField()
    status = serializers.SerializerMethodField()
    tasks_processed = serializers.IntegerField()
    current_task_id = Text()
    last_heartbeat = serializers.DateTimeField(source="last_heartbeat_at")
    registered_at = serializers.DateTimeField(source="started_at")
    system_info = serializers.DictField(source="report.system_info", allow_null=True)
    logs = serializers.ListField(source="report.logs", child=serializers.CharField(), allow_null=True)
    worker_metadata = serializers.DictField(source="report.worker_metadata")

    def get_status(self, instance: WorkerInstance) -> str:
        return status_of(instance)


@extend_schema_serializer(component_name="WorkerQueueConfig")
class QueueConfigSerializer(serializers.Serializer[QueueConfiguration]):
    """A queue's configuration by version, which changes exactly when what its workers are given changes."""

    queue_id = serializers.UUIDField(source="queue.id")
    name = serializers.CharField(source="queue.name")
    display_name = Text(source="queue.display_name")
    description = Text(source="queue.description")
    status = serializers.SerializerMethodField()
    max_workers = serializers.IntegerField(source="queue.max_workers", allow_null=True)
    heartbeat_interval = serializers.IntegerField(source="queue.heartbeat_interval")
    tags = TagList(source="queue.tags")
    settings = Members(source="queue.settings")
    config_version = serializers.CharField(min_length=8)
    config_updated_at = serializers.DateTimeField()
    recommended_package_version = Fixed(WORKER_PACKAGE_VERSION)
    environment_id = serializers.UUIDField(source="queue.environment_id")
    environment_name = serializers.CharField(source="queue.environment.name")

    def get_status(self, configuration: QueueConfiguration) -> str:
        return queue_status(configuration.queue)


@extend_schema_serializer(component_name="WorkerQueueMetrics")
class QueueMetricsSerializer(serializers.Serializer[QueueMetrics]):
    """A queue's figures. How tasks end and how long they take is known to Temporal only: 0 here.

    How many wait and who polls is asked of Temporal each minute: 0, and no time, where it did not answer of late.
    """

    queue_id = serializers.UUIDField(source="queue.id")
    active_workers = serializers.IntegerField(source="counts.active")
    idle_workers = serializers.IntegerField(source="counts.idle")
    busy_workers = serializers.IntegerField(source="counts.busy")
    total_workers = serializers.IntegerField()
    tasks_processed_24h = serializers.IntegerField()
    tasks_failed_24h = Fixed(0)
    tasks_pending = serializers.SerializerMethodField("get_backlog")
    avg_task_duration_ms = Fixed(0.0)
    error_rate_percent = Fixed(0.0)
    last_error_at = serializers.DateTimeField(allow_null=True)
    task_queue_backlog = serializers.SerializerMethodField("get_backlog")
    task_queue_pollers = serializers.SerializerMethodField()
    task_queue_observed_at = serializers.DateTimeField(
        source="observation.observed_at", default=None, allow_null=True, help_text="When Temporal told these."
    )
    last_activity_at = serializers.DateTimeField(allow_null=True)
    updated_at = serializers.DateTimeField()

    def get_backlog(self, metrics: QueueMetrics) -> int:
        return (metrics.observation and metrics.observation.backlog) or 0

    def get_task_queue_pollers(self, metrics: QueueMetrics) -> int:
        return metrics.observation.pollers if metrics.observation else 0


@extend_schema_serializer(component_name="WorkerCommand")
class WorkerCommandSerializer(serializers.Serializer[dict[str, Any]]):
    """The command that starts a worker of the queue, and whether the queue would take it."""

    queue_id = serializers.UUIDField()
    command = serializers.CharField()
    command_parts = serializers.DictField(child=serializers.CharField())
    can_register = serializers.BooleanField()
    queue_status = serializers.ChoiceField(list(QUEUE_STATUSES.values()))
    active_workers = serializers.IntegerField()
    max_workers = serializers.IntegerField(allow_null=True)


@extend_schema_serializer(component_name="EnvironmentWorkerCommand")
class EnvironmentCommandSerializer(serializers.Serializer[dict[str, str]]):
    """The command that starts a worker of the environment's queue `default`, with texts alone."""

    environment_name = serializers.CharField()
    command = serializers.CharField()
    namespace_status = serializers.CharField()


@extend_schema_serializer(component_name="TaskQueuePoller")
class PollerSerializer(serializers.Serializer[dict[str, Any]]):
    """A live process: `pid@host`, or the worker's name where the host was not told."""

    identity = serializers.CharField()
    last_access_time = serializers.DateTimeField(allow_null=True)
    rate_per_second = Fixed(None)


@extend_schema_serializer(component_name="TaskQueueInfo")
class TaskQueueSerializer(serializers.Serializer[TaskQueue]):
    """A task queue and who polls it; how many tasks wait is null where Temporal was not seen to tell it lately."""

    task_queue = serializers.CharField(source="queue.task_queue_name")
    organization_id = serializers.CharField(source="queue.organization_id")
    runner_name = serializers.CharField()
    workers = PollerSerializer(many=True)
    worker_count = serializers.IntegerField()
    approximate_backlog_count = serializers.IntegerField(allow_null=True)


@extend_schema_serializer(component_name="UpdateLockRequest")
class UpdateLockRequestSerializer(serializers.Serializer[dict[str, Any]]):
    """For how long the lock is wanted. The worker in the path is its holder."""

    worker_id = NameField()
    lock_duration_seconds = OptionalInteger(default=300, min_value=60, max_value=600)
    system_info = FreeObject(help_text="Beyond the contract: where it is told, another process is not its holder.")


@extend_schema_serializer(component_name="UpdateLockResponse")
class UpdateLockSerializer(serializers.Serializer[UpdateLock]):
    """The lock as its holder has it."""

    lock_id = serializers.UUIDField(source="id")
    worker_id = serializers.CharField(source="holder")
    queue_id = serializers.UUIDField()
    acquired_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    locked = Fixed(value=True)


@extend_schema_serializer(component_name="UpdateLockStatus")
class UpdateLockStatusSerializer(serializers.Serializer[dict[str, Any]]):
    """Whether somebody holds the queue's update lock."""

    locked = serializers.BooleanField()
    queue_id = serializers.UUIDField()
    worker_id = serializers.CharField(allow_null=True)
    lock_id = serializers.UUIDField(allow_null=True)
    acquired_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    ttl_seconds = serializers.IntegerField(allow_null=True)
    lock_coordination_available = Fixed(value=True)


def lock_status(queue: WorkerQueue, lock: UpdateLock | None, now: datetime) -> dict[str, Any]:
    """What UpdateLockStatusSerializer shows."""
    return {
        "locked": lock is not None,
        "queue_id": queue.pk,
        "worker_id": lock and lock.holder,
        "lock_id": lock and lock.pk,
        "acquired_at": lock and lock.acquired_at,
        "expires_at": lock and lock.expires_at,
        "ttl_seconds": lock and (lock.expires_at - now) // timedelta(seconds=1),
    }
