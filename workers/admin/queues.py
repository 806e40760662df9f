"""The console's pages of worker queues."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from environments import times
from environments.models import Role
from environments.models.connections import CONNECTION_POINTERS
from environments.moments import distance
from workers.admin.decisions import DECISION, DecidedForm, DecidedPages, StateFilter, ending, held, state_badge
from workers.admin.inheritance import InheritingAdmin
from workers.admin.organizations import CONNECTIONS_FIELDSET
from workers.admin.states import ShowsLiveness, badge
from workers.admin.workers.filters import ConfigurationFilter, TemporalFilter
from workers.api_keys.tokens import UUID_TEXT
from workers.models import QueueObservation, WorkerInstance, WorkerQueue
from workers.models.instances import live_in_queue
from workers.reports.incomplete import told_of


class WorkerQueueForm(DecidedForm):
    """A queue is in an environment."""

    parent = "environment"


@admin.register(WorkerQueue)
class WorkerQueueAdmin(DecidedPages, ShowsLiveness, InheritingAdmin):
    """Groups of workers that poll one Temporal task queue."""

    empty = "A worker queue is in an environment; its workers poll one Temporal task queue."
    form = WorkerQueueForm
    writer_role = Role.OPERATOR
    list_display = ("task_queue_name", "environment", "live_of_max", "waiting", "interval", "state", "created")
    list_select_related = ("environment", "observation")
    list_filter = (ConfigurationFilter, TemporalFilter, StateFilter)
    change_form_outer_before_template = "admin/workers/workerqueue/page.html"
    name_separators = "."
    search_fields = ("name", "environment__name", "organization__id")
    fixed_fields = ("environment",)
    autocomplete_fields = ("environment", *CONNECTION_POINTERS)
    readonly_fields = ("id",)
    fieldsets = (
        (None, {"fields": ("environment", "name", "display_name", "description", "tags", "id")}),
        (
            "Running",
            {"fields": ("heartbeat_interval", "max_workers", "duplicate_policy", *DECISION)},
        ),
        ("Settings", {"fields": ("settings",)}),
        CONNECTIONS_FIELDSET,
    )

    def with_liveness(self, rows: Any, *, may_be_held: bool) -> Any:
        """With the number of live processes."""
        return rows.annotate(live=live_in_queue(times.now(), may_be_held=may_be_held))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        """Says whose starts are refused, and why."""
        if obj:
            context["held"] = held(obj, now=times.now())
            context["incomplete"] = told_of(obj, times.now())
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def consequences(self, obj: WorkerQueue, changes: dict[str, list[Any]]) -> list[str]:
        """Of disabling and draining, for the processes that run."""
        return ending(obj, changes, WorkerInstance.objects.live(times.now()).filter(worker__queue=obj.pk).count())

    @admin.display(description="live workers")
    def live_of_max(self, row: Any) -> str:
        """Live processes, and how many may be."""
        return f"{row.live} of {row.max_workers}" if row.max_workers else str(row.live)

    @admin.display(description="waiting tasks")
    def waiting(self, row: WorkerQueue) -> SafeString | str | None:
        """As Temporal told of late; nothing where it did not."""
        seen = getattr(row, "observation", None)
        if seen is None or seen.backlog is None or not seen.is_fresh(times.now()):
            return None
        return badge(f"{seen.backlog}, nobody polls", "danger") if seen.is_waiting_in_vain else str(seen.backlog)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Adds what Temporal was seen to know of the queue."""
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **_seen(object_id)})

    @admin.display(description="heartbeat interval", ordering="heartbeat_interval")
    def interval(self, row: WorkerQueue) -> str:
        return f"{row.heartbeat_interval} s"

    @admin.display(description="state")
    def state(self, row: WorkerQueue) -> SafeString:
        return state_badge(row)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        """The environment's name is part of how a queue is shown."""
        return super().get_search_results(request, queryset.select_related("environment"), search_term)


def _seen(queue_id: str) -> dict[str, Any]:
    """What the page tells of it; shown only to whoever may see the queue, since Django answers nobody else."""
    seen = QueueObservation.objects.filter(queue=queue_id).first() if UUID_TEXT.fullmatch(queue_id) else None
    oldest = seen.oldest_age if seen else None
    return {
        "seen": seen,
        "is_fresh": seen is not None and seen.is_fresh(times.now()),
        "oldest": distance(oldest) if oldest else "",
    }
