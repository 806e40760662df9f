"""The console's pages of worker queues and workers."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, Prefetch, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.timezone import localtime
from unfold.decorators import display

from environments.admin import CONNECTIONS_FIELDSET
from environments.configuration import ConfigurationIncompleteError
from environments.console import ConsoleAdmin, ConsoleForm
from environments.models import CONNECTION_POINTERS
from workers.configuration import revision_of, sections_of, show_configuration
from workers.models import LIVE, Liveness, Worker, WorkerInstance, WorkerQueue, WorkerStart
from workers.overview import instances_of, with_reports
from workers.pulse import recovery
from workers.tokens import UUID_TEXT

LIVENESS_COLORS = {
    Liveness.ONLINE: "success",
    Liveness.LATE: "warning",
    Liveness.OFFLINE: "danger",
}
STATE_COLORS = {"Disabled": "danger", "Draining": "warning"}
LATEST_STARTS = 10


def state_of(row: Worker | WorkerQueue) -> str:
    """What a person decided."""
    if row.is_disabled:
        return "Disabled"
    return "Draining" if row.is_draining else "Enabled"


class InOrganizationForm(ConsoleForm):
    """The row belongs to the organization of what it is in, so nobody has to say it twice."""

    parent: str

    def clean(self) -> dict[str, Any]:
        """Takes the organization over before the constraints are checked."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if parent := cleaned.get(self.parent):
            if self.instance._state.adding:
                self.instance.organization_id = parent.organization_id
            elif self.instance.organization_id != parent.organization_id:
                self.add_error(self.parent, "This belongs to another organization.")
        return cleaned


class WorkerQueueForm(InOrganizationForm):
    """A queue is in an environment."""

    parent = "environment"


class WorkerForm(InOrganizationForm):
    """A worker is in a queue."""

    parent = "queue"


class LivenessFilter(admin.SimpleListFilter):
    """Workers by what is known of their processes."""

    title = "liveness"
    parameter_name = "liveness"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(str(liveness), str(liveness)) for liveness in Liveness]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        return queryset.filter(liveness=self.value()) if self.value() else queryset


@admin.register(WorkerQueue)
class WorkerQueueAdmin(ConsoleAdmin):
    """Groups of workers that poll one Temporal task queue."""

    form = WorkerQueueForm
    list_display = ("task_queue_name", "environment", "live_of_max", "heartbeat_interval", "state", "created_at")
    list_select_related = ("environment",)
    list_filter = ("is_disabled", "is_draining")
    name_separators = "."
    search_fields = ("name", "environment__name", "organization__id")
    fixed_fields = ("environment",)
    autocomplete_fields = ("environment", *CONNECTION_POINTERS)
    readonly_fields = ("id",)
    fieldsets = (
        (None, {"fields": ("environment", "name", "display_name", "description", "tags", "id")}),
        (
            "Running",
            {"fields": ("heartbeat_interval", "max_workers", "duplicate_policy", "is_draining", "is_disabled")},
        ),
        CONNECTIONS_FIELDSET,
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        """With the number of live processes."""
        live = WorkerInstance.objects.live(timezone.now()).filter(worker__queue=OuterRef("pk")).order_by()
        counts = live.values("worker__queue").annotate(count=Count("pk")).values("count")
        return super().get_queryset(request).annotate(live=Coalesce(Subquery(counts), 0))

    @display(description="live workers")
    def live_of_max(self, row: Any) -> str:
        """Live processes, and how many may be."""
        return f"{row.live} of {row.max_workers}" if row.max_workers else str(row.live)

    @display(description="state", label=STATE_COLORS)
    def state(self, row: WorkerQueue) -> str:
        return state_of(row)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        """The environment's name is part of how a queue is shown."""
        return super().get_search_results(request, queryset.select_related("environment"), search_term)


@admin.register(Worker)
class WorkerAdmin(ConsoleAdmin):
    """Workers, with what each is given and how it is."""

    form = WorkerForm
    list_display = ("name", "queue", "liveness", "host", "last_heartbeat", "state", "created_at")
    list_select_related = ("queue__environment",)
    list_filter = (LivenessFilter, "is_disabled", "is_draining", "is_ephemeral")
    list_before_template = "admin/workers/recovering.html"
    name_separators = "/"
    search_fields = ("name", "id", "organization__id")
    autocomplete_fields = ("queue", *CONNECTION_POINTERS)
    readonly_fields = ("id", "liveness", "last_heartbeat", "is_ephemeral")
    fieldsets = (
        (None, {"fields": ("queue", "name", "description", "id", "is_ephemeral", "liveness", "last_heartbeat")}),
        ("Running", {"fields": ("is_draining", "is_disabled")}),
        CONNECTIONS_FIELDSET,
    )
    change_form_after_template = "admin/workers/worker/configuration.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        """With each worker's liveness and its current instance."""
        current = WorkerInstance.objects.filter(is_current=True)
        rows = super().get_queryset(request).with_liveness(timezone.now())
        return rows.prefetch_related(Prefetch("instances", current, "current_instances"))

    @display(description="state", label=STATE_COLORS)
    def state(self, row: Worker) -> str:
        return state_of(row)

    @display(description="liveness", label=LIVENESS_COLORS)
    def liveness(self, row: Worker) -> str:
        return row.liveness

    @display(description="last heartbeat")
    def last_heartbeat(self, row: Worker) -> str | None:
        instance = _current(row)
        if instance is None:
            return None
        shown = date_format(localtime(instance.last_heartbeat_at), "DATETIME_FORMAT")
        return f"{shown}, recovering" if is_recovering(row) else shown

    @display(description="host")
    def host(self, row: Worker) -> str | None:
        instance = _current(row)
        return instance.hostname if instance else None

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Says so when the control plane itself was away."""
        context = {**(extra_context or {}), "outage": recovery(timezone.now())}
        return super().changelist_view(request, context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Adds the effective configuration and the latest starts."""
        worker = Worker.objects.with_chain().filter(pk=object_id).first() if UUID_TEXT.fullmatch(object_id) else None
        context = _shown(worker) if worker else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})


def is_recovering(row: Any) -> bool:
    """Whether a worker or an instance is shown as it was before our own outage, since it has not been heard of yet."""
    return bool(row.is_held) and row.liveness in LIVE


def _current(row: Worker) -> WorkerInstance | None:
    instances: list[WorkerInstance] = getattr(row, "current_instances", [])
    return instances[0] if instances else None


def _shown(worker: Worker) -> dict[str, Any]:
    """Sections with the level that won, the fields a worker is given, and its latest starts."""
    sections = sections_of(worker)
    try:
        given = show_configuration(worker, sections)
        configuration, revision, problem = vars(given), revision_of(given), ""
    except ConfigurationIncompleteError as error:
        configuration, revision, problem = {}, "", str(error)
    starts = WorkerStart.objects.filter(worker=worker.pk).order_by("-started_at")[:LATEST_STARTS]
    now = timezone.now()
    processes = with_reports(list(instances_of(worker.queue, now).filter(worker=worker.pk)[:LATEST_STARTS]))
    return {
        "processes": processes,
        "has_duplicates": sum(process.liveness in LIVE for process in processes) > 1,
        "outage": recovery(now),
        "sections": list(sections),
        "configuration": configuration,
        "revision": revision,
        "problem": problem,
        "latest_starts": starts,
    }
