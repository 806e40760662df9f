"""The console's pages of the ledger of starts and of worker instances, which nobody edits."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import display

from environments.admin import pretty_json
from environments.console import ReadOnlyAdmin
from workers.admin.workers import LIVENESS_COLORS
from workers.models import ApiKey, WorkerInstance, WorkerStart


@admin.register(WorkerStart)
class WorkerStartAdmin(ReadOnlyAdmin):
    """The ledger of starts."""

    list_display = (
        "started_at",
        "worker_name",
        "task_queue_name",
        "key_name",
        "client_address",
        "configuration_revision",
        "duplicate",
    )
    search_fields = ("=id", "worker_name", "task_queue_name", "=worker__id", "=client_address")
    fields = (
        "id",
        "started_at",
        "worker_name",
        "worker_id",
        "task_queue_name",
        "key_name",
        "api_key_id",
        "client_address",
        "user_agent",
        "configuration_revision",
        "displaced_instance_id",
        "temporal_connection_id",
        "temporal_api_key_version",
        "litellm_connection_id",
        "litellm_api_key_version",
        "telemetry_settings_id",
        "system_information",
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        """Without `system_info` in lists: a ledger row may carry 64 KiB of it."""
        rows = super().get_queryset(request).prefetch_related("api_key")
        is_list = getattr(request.resolver_match, "url_name", "").endswith("_changelist")
        return rows.defer("system_info") if is_list else rows

    @admin.display(description="API key")
    def key_name(self, row: WorkerStart) -> str:
        """The key's name; its id when the key's row is gone."""
        try:
            return row.api_key.name
        except ApiKey.DoesNotExist:
            return str(row.api_key_id)

    @display(description="duplicate", label={"duplicate": "danger"})
    def duplicate(self, row: WorkerStart) -> str:
        """Whether another process of the worker was online at this start."""
        return "duplicate" if row.displaced_instance_id else ""

    @admin.display(description="system info")
    def system_information(self, row: WorkerStart) -> SafeString:
        return pretty_json(row.system_info)


@admin.register(WorkerInstance)
class WorkerInstanceAdmin(ReadOnlyAdmin):
    """Running and past processes of workers."""

    list_display = (
        "id",
        "worker",
        "hostname",
        "liveness",
        "is_current",
        "started_at",
        "last_heartbeat_at",
        "stop_reason",
    )
    list_select_related = ("worker",)
    list_filter = ("is_current",)
    search_fields = ("=id", "worker__name", "=worker__id", "hostname", "=client_address")
    fields = (
        *list_display,
        "pid",
        "client_address",
        "activity",
        "tasks_processed",
        "current_task_id",
        "stopped_at",
        "exit_code",
        "error_message",
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        """With each instance's liveness."""
        return super().get_queryset(request).with_liveness(timezone.now())

    @display(description="liveness", label=LIVENESS_COLORS)
    def liveness(self, row: Any) -> str:
        return row.liveness
