"""The console's pages of workers."""

from typing import Any

from django.contrib import admin
from django.db.models import F, Prefetch, Value
from django.db.models.functions import StrIndex
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from environments import times
from environments.admin.searches import BoundedList
from environments.models import Role
from environments.models.connections import CONNECTION_POINTERS
from environments.moments import moment
from workers.admin.confirmation import refused
from workers.admin.decisions import DECISION, DecidedForm, DecidedPages, StateFilter, ending, state_badge
from workers.admin.inheritance import InheritingAdmin
from workers.admin.links import told
from workers.admin.organizations import CONNECTIONS_FIELDSET
from workers.admin.states import (
    WORK_COLORS,
    LivenessFilter,
    ShowsLiveness,
    badge,
    is_recovering,
    liveness_badge,
    outage_of,
)
from workers.admin.workers.bulk import BulkActions
from workers.admin.workers.columns import ColumnsFilter, chosen_columns
from workers.admin.workers.filters import AttentionFilter, RunsOnFilter
from workers.admin.workers.new import FirstBootPages
from workers.admin.workers.page import context_of, overview_of
from workers.api_keys.tokens import UUID_TEXT
from workers.configuration.effective import is_outdated, missing_in
from workers.configuration.impact import cut_off
from workers.configuration.revisions import current_revisions, group_of
from workers.models import LIVE, Liveness, Worker, WorkerInstance
from workers.reports.observed import works_of

#: In which order the column of the liveness puts workers: those first that somebody has to look after.
URGENCY = StrIndex(
    Value(f"{Liveness.OFFLINE} {Liveness.LATE} {Liveness.NEVER_STARTED} {Liveness.STOPPED} {Liveness.ONLINE}"),
    F("liveness"),
)


class WorkerForm(DecidedForm):
    """A worker is in a queue."""

    parent = "queue"


class FleetChangeList(BoundedList):
    """A page of workers, each with the revision of what it would be given now, and with what its process does."""

    result_list: Any

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[Any]:
        """By name where the chosen order leaves it open, and not by ids, which are made by chance."""
        *chosen, last = super().get_ordering(request, queryset)
        named = {str(each).removeprefix("-") for each in chosen}
        return [*chosen, *(each for each in self._get_default_ordering() if str(each) not in named), last]

    def get_results(self, request: HttpRequest) -> None:
        """Resolves the configurations of one page together, and asks for its processes' work."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        revisions = current_revisions(group_of(row) for row in self.result_list)
        may_be_held = outage_of(request) is not None
        shown = [row.pk for row in self.result_list] if request.method == "GET" else []
        works = works_of(shown, times.now(), may_be_held=may_be_held) if shown else {}
        for row in self.result_list:
            row.current_revision = revisions[group_of(row)]
            row.work = works.get(row.pk, "")


@admin.register(Worker)
class WorkerAdmin(DecidedPages, ShowsLiveness, FirstBootPages, BulkActions, InheritingAdmin):
    """Workers, with what each is given and how it is."""

    empty = "A worker is in a worker queue, and starts with its id and an API key."
    form = WorkerForm
    writer_role = Role.OPERATOR
    list_display: tuple[str, ...] = (
        "whole_name",
        "liveness",
        "queue",
        "host",
        "last_heartbeat",
        "configuration",
        "state",
        "created",
    )
    list_select_related = ("queue__environment",)
    list_filter = (
        LivenessFilter,
        AttentionFilter,
        RunsOnFilter,
        StateFilter,
        "is_ephemeral",
        ColumnsFilter,
    )
    name_separators = "/"
    search_fields = ("name", "id", "organization__id")
    autocomplete_fields = ("queue", *CONNECTION_POINTERS)
    readonly_fields = ("id", "origin")
    fieldsets = (
        (
            None,
            {"fields": ("queue", "name", "description", "labels", *readonly_fields)},
        ),
        ("Running", {"fields": DECISION}),
        CONNECTIONS_FIELDSET,
    )
    change_form_outer_before_template = "admin/workers/worker/overview.html"
    change_form_outer_after_template = "admin/workers/worker/after.html"

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """With the columns that were chosen after what tells which worker it is."""
        usual = tuple(super().get_list_display(request))
        return (*usual[:3], *chosen_columns(request), *usual[3:])

    def get_queryset(self, request: HttpRequest) -> Any:
        """With what the chosen columns show."""
        rows = super().get_queryset(request)
        is_list = getattr(request.resolver_match, "url_name", "").endswith("_changelist")
        return (
            rows.prefetch_related("current_instances__report")
            if is_list and "version" in chosen_columns(request)
            else rows
        )

    def with_liveness(self, rows: Any, *, may_be_held: bool) -> Any:
        """And with each worker's current instance."""
        current, now = WorkerInstance.objects.filter(is_current=True), times.now()
        rows = rows.with_liveness(now, may_be_held=may_be_held)
        rows = rows.with_held(now) if may_be_held else rows
        return rows.prefetch_related(Prefetch("instances", current, "current_instances"))

    def consequences(self, obj: Worker, changes: dict[str, list[Any]]) -> list[str]:
        """Of disabling, draining and moving, for the processes that run."""
        now = times.now()
        told = ending(obj, changes, WorkerInstance.objects.live(now).filter(worker=obj.pk).count())
        return [*told, *map(refused, cut_off({obj.pk: obj.queue}, now=now) if "queue" in changes else [])]

    def losses(self, rows: Any) -> list[str]:
        """Of deleting, for the processes that run and for the records."""
        live = _live(rows)
        stays = "The ledger keeps the starts of a deleted worker."
        return [f"Running now: {live}. Heartbeats and starts are refused from then on.", stays] if live else [stays]

    def name_to_type(self, rows: Any) -> str:
        """Whose processes run."""
        return (str(rows[0]) if len(rows) == 1 else f"{len(rows)} workers") if _live(rows) else ""

    @admin.display(description="name", ordering="name")
    def whole_name(self, row: Worker) -> str:
        """With its organization, since names are often the same in several."""
        return str(row)

    @admin.display(description="version")
    def version(self, row: Worker) -> SafeString | None:
        """What the running process says of its SDK."""
        report = getattr(_current(row), "report", None)
        return told(str(report.system_info.get("sdk_version") or "")) if report else None

    @admin.display(description="state")
    def state(self, row: Worker) -> SafeString:
        return state_badge(row)

    @admin.display(description="made by")
    def origin(self, row: Worker) -> str:
        return "a queue start; removed when offline for a day (ephemeral)" if row.is_ephemeral else "a person"

    @admin.display(description="liveness", ordering=URGENCY)
    def liveness(self, row: Any) -> SafeString:
        """And what Temporal was seen to know beside it, where the two do not go together."""
        shown = liveness_badge(row.liveness)
        color = WORK_COLORS.get(row.work)
        return format_html("{} {}", shown, badge(row.work, color)) if color else shown

    @admin.display(description="last heartbeat")
    def last_heartbeat(self, row: Worker) -> SafeString | None:
        instance = _current(row)
        if instance is None:
            return None
        shown = moment(instance.last_heartbeat_at)
        return format_html("{}, recovering", shown) if is_recovering(row) else shown

    @admin.display(description="configuration")
    def configuration(self, row: Any) -> SafeString | None:
        """Whether the running process has what a start would be given now."""
        instance = _current(row)
        if instance is None or row.liveness not in LIVE or not instance.configuration_revision:
            return None
        if missing_in(row.current_revision):
            return badge("Cannot start again", "warning")
        is_old = is_outdated(instance.configuration_revision, row.current_revision)
        return badge("Outdated", "warning") if is_old else badge("Current")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:  # noqa: ARG002
        return FleetChangeList

    @admin.display(description="host")
    def host(self, row: Worker) -> SafeString | None:
        instance = _current(row)
        return told(instance.hostname) if instance else None

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Adds how the worker is, what it is given and its history; `?part=overview` is the first alone, afresh."""
        worker = Worker.objects.with_chain().filter(pk=object_id).first() if UUID_TEXT.fullmatch(object_id) else None
        if worker is None or not self.has_view_permission(request, worker):
            return super().change_view(request, object_id, form_url, extra_context)
        if request.method == "GET" and request.GET.get("part") == "overview":
            overview = {"overview": overview_of(worker, outage_of(request), times.now())}
            return TemplateResponse(request, "admin/workers/worker/glance.html", overview)
        context = {**(extra_context or {}), "chained": worker, **context_of(worker, outage_of(request), times.now())}
        return super().change_view(request, object_id, form_url, context)


def _live(rows: Any) -> int:
    """How many of their processes run."""
    return WorkerInstance.objects.live(times.now()).filter(worker__in=[row.pk for row in rows]).count()


def _current(row: Worker) -> WorkerInstance | None:
    instances: list[WorkerInstance] = getattr(row, "current_instances", [])
    return instances[0] if instances else None
