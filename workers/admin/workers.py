"""The console's pages of worker queues and workers."""

from typing import Any

from django.contrib import admin
from django.db.models import Prefetch
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
from workers.models import Liveness, Worker, WorkerInstance, WorkerQueue, WorkerStart
from workers.tokens import UUID_TEXT

LIVENESS_COLORS = {
    Liveness.ONLINE: "success",
    Liveness.LATE: "warning",
    Liveness.OFFLINE: "danger",
}
STATE_COLORS = {"Disabled": "danger"}
LATEST_STARTS = 10


def state_of(row: Worker | WorkerQueue) -> str:
    """What a person decided."""
    return "Disabled" if row.is_disabled else "Enabled"


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


@admin.register(WorkerQueue)
class WorkerQueueAdmin(ConsoleAdmin):
    """Groups of workers that poll one Temporal task queue."""

    form = WorkerQueueForm
    list_display = ("task_queue_name", "environment", "heartbeat_interval", "state", "created_at")
    list_select_related = ("environment",)
    list_filter = ("is_disabled",)
    name_separators = "."
    search_fields = ("name", "environment__name", "organization__id")
    fixed_fields = ("environment",)
    autocomplete_fields = ("environment", *CONNECTION_POINTERS)
    readonly_fields = ("id",)
    fieldsets = (
        (None, {"fields": ("environment", "name", "description", "heartbeat_interval", "is_disabled", "id")}),
        CONNECTIONS_FIELDSET,
    )

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
    list_display = ("name", "queue", "liveness", "state", "last_heartbeat", "created_at")
    list_select_related = ("queue__environment",)
    list_filter = ("is_disabled",)
    name_separators = "/"
    search_fields = ("name", "id", "organization__id")
    autocomplete_fields = ("queue", *CONNECTION_POINTERS)
    readonly_fields = ("id", "liveness", "last_heartbeat")
    fieldsets = (
        (None, {"fields": ("queue", "name", "description", "is_disabled", "id", "liveness", "last_heartbeat")}),
        CONNECTIONS_FIELDSET,
    )
    change_form_after_template = "admin/workers/worker/configuration.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        """With each worker's current instance."""
        current = WorkerInstance.objects.filter(is_current=True)
        return super().get_queryset(request).prefetch_related(Prefetch("instances", current, "current_instances"))

    @display(description="state", label=STATE_COLORS)
    def state(self, row: Worker) -> str:
        return state_of(row)

    @display(description="liveness", label=LIVENESS_COLORS)
    def liveness(self, row: Worker) -> Liveness:
        instance = _current(row)
        if instance is None:
            return Liveness.NEVER_STARTED
        return instance.liveness(heartbeat_interval=row.queue.heartbeat_interval, now=timezone.now())

    @display(description="last heartbeat")
    def last_heartbeat(self, row: Worker) -> str | None:
        instance = _current(row)
        return date_format(localtime(instance.last_heartbeat_at), "DATETIME_FORMAT") if instance else None

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Adds the effective configuration and the latest starts."""
        worker = Worker.objects.with_chain().filter(pk=object_id).first() if UUID_TEXT.fullmatch(object_id) else None
        context = _shown(worker) if worker else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})


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
    return {
        "sections": list(sections),
        "configuration": configuration,
        "revision": revision,
        "problem": problem,
        "latest_starts": starts,
    }
