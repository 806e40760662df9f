"""The console's pages of the ledger of starts and of worker instances, which nobody edits."""

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from environments import times
from environments.admin.console import MOST_SEARCHED, RecordsAdmin
from environments.admin.periods import PeriodFilter
from environments.models.connections import CONNECTION_KINDS
from environments.moments import moment
from workers.admin.links import link_to, shown, told
from workers.admin.states import ShowsLiveness, badge, liveness_badge
from workers.admin.workers.start_history import difference_between, start_before
from workers.configuration.effective import is_outdated, missing_in, revision_for
from workers.models import ApiKey, Worker, WorkerInstance, WorkerStart
from workers.models.starts import version_column
from workers.reports.differences import MOST_LINES


class StartedWithin(PeriodFilter):
    """Starts of the last day, week or month."""

    field = "started_at"


class HeardWithin(PeriodFilter):
    """Processes that were heard of in the last day, week or month."""

    field = "last_heartbeat_at"


@admin.register(WorkerStart)
class WorkerStartAdmin(RecordsAdmin):
    """The ledger of starts."""

    empty = "Each start of a worker is recorded here. A worker's page says how to start it."
    made_at = "started_at"
    list_display = (
        "started",
        "worker_name",
        "task_queue_name",
        "key_name",
        "client_address",
        "configuration_revision",
        "duplicate",
    )
    list_filter = (StartedWithin,)
    list_before_template = "admin/records.html"
    search_fields = ("worker_name", "task_queue_name", "=client_address")
    search_help_text = f"Worker, task queue, address of the latest {MOST_SEARCHED:,}, or an ID"
    recorded_at = "started_at"
    id_fields = ("id", "worker")
    fieldsets = (
        (None, {"fields": ("started", "worker_link", "task_queue_name", "id", "instance", "displaced_instance")}),
        ("From", {"fields": ("key", "client_address", "program")}),
        ("Configuration given", {"fields": ("revision", "connections")}),
        ("Machine", {"fields": ("changes", "system_information")}),
    )

    def name_of(self, row: WorkerStart) -> str:
        return f"{row.organization_id}/{row}"

    def get_queryset(self, request: HttpRequest) -> Any:
        """Without `system_info` in lists: a ledger row may carry 64 KiB of it."""
        rows = super().get_queryset(request).prefetch_related("api_key")
        is_list = getattr(request.resolver_match, "url_name", "").endswith("_changelist")
        return rows.defer("system_info") if is_list else rows

    @admin.display(description="started", ordering="started_at")
    def started(self, row: WorkerStart) -> SafeString:
        return moment(row.started_at)

    @admin.display(description="API key")
    def key_name(self, row: WorkerStart) -> str:
        """The key's name; its id when the key's row is gone, or another organization's by now."""
        try:
            is_own = row.api_key.organization_id == row.organization_id
        except ApiKey.DoesNotExist:
            is_own = False
        return row.api_key.name if is_own else str(row.api_key_id)

    @admin.display(description="duplicate")
    def duplicate(self, row: WorkerStart) -> SafeString | None:
        """Whether another process of the worker was online at this start."""
        return badge("duplicate", "danger") if row.displaced_instance_id else None

    @admin.display(description="API key")
    def key(self, row: WorkerStart) -> str:
        found = ApiKey.objects.filter(pk=row.api_key_id, organization=row.organization_id).first()
        return shown(link_to(found)) if found else f"{row.api_key_id}, no longer known"

    @admin.display(description="worker")
    def worker_link(self, row: WorkerStart) -> str:
        worker = _worker_of(row)
        return shown(link_to(worker)) if worker else f"{row.worker_name} ({row.worker_id}), no longer known"

    @admin.display(description="instance")
    def instance(self, row: WorkerStart) -> str:
        return _instance(row, row.pk) or "no longer known"

    @admin.display(description="displaced instance")
    def displaced_instance(self, row: WorkerStart) -> str:
        """The process that was still online at this start."""
        if row.displaced_instance_id is None:
            return "none: no other process of the worker was online"
        return _instance(row, row.displaced_instance_id) or f"{row.displaced_instance_id}, no longer known"

    @admin.display(description="user agent")
    def program(self, row: WorkerStart) -> SafeString:
        return told(row.user_agent)

    @admin.display(description="configuration revision")
    def revision(self, row: WorkerStart) -> SafeString:
        return _revision(row.configuration_revision, _worker_of(row))

    @admin.display(description="connections")
    def connections(self, row: WorkerStart) -> SafeString:
        """Each with the version of its API key then, and the one now where that is another."""
        given = ((capfirst(kind.SECTION), _connection(row, kind)) for kind in CONNECTION_KINDS)
        return format_html_join("", "<div>{}: {}</div>", given)

    @admin.display(description="difference to the start before")
    def changes(self, row: WorkerStart) -> str:
        found = difference_between(start_before(row), row, MOST_LINES)
        if not found:
            return "the first start on record" if found is None else "no difference"
        return render_to_string("admin/workers/worker/difference.html", {"difference": found})

    @admin.display(description="system info")
    def system_information(self, row: WorkerStart) -> SafeString:
        return pretty_json(row.system_info)


@admin.register(WorkerInstance)
class WorkerInstanceAdmin(ShowsLiveness, RecordsAdmin):
    """Running and past processes of workers."""

    empty = "A process is shown here from its start on. A worker's page says how to start it."
    made_at = "started_at"
    list_display = (
        "id",
        "worker",
        "host",
        "liveness",
        "process",
        "started",
        "last_heartbeat",
        "reason",
    )
    list_select_related = ("worker",)
    liveness_pages = ("changelist", "change")
    list_filter = (HeardWithin, "is_current")
    list_before_template = "admin/records.html"
    search_fields = ("worker__name", "hostname", "=client_address")
    search_help_text = f"Worker, host, address of the latest {MOST_SEARCHED:,}, or an ID"
    recorded_at = "started_at"
    id_fields = ("id", "worker")
    fieldsets = (
        (None, {"fields": ("worker_link", "id", "process", "liveness", "started", "last_heartbeat")}),
        ("Machine", {"fields": ("host", "pid", "client_address", "heartbeat_address")}),
        ("Given", {"fields": ("start", "key", "revision")}),
        ("Work", {"fields": ("activity", "tasks_processed", "task")}),
        ("End", {"fields": ("stopped", "reason", "exit_code", "error")}),
    )

    def name_of(self, row: WorkerInstance) -> str:
        return f"{str(row.pk)[:8]} of {row.worker}"

    def with_liveness(self, rows: Any, *, may_be_held: bool) -> Any:
        """With each instance's liveness."""
        return rows.with_liveness(times.now(), may_be_held=may_be_held)

    @admin.display(description="liveness")
    def liveness(self, row: Any) -> SafeString:
        return liveness_badge(row.liveness)

    @admin.display(description="process", ordering="is_current")
    def process(self, row: WorkerInstance) -> str:
        return "current" if row.is_current else "older"

    @admin.display(description="started", ordering="started_at")
    def started(self, row: WorkerInstance) -> SafeString:
        return moment(row.started_at)

    @admin.display(description="last heartbeat", ordering="last_heartbeat_at")
    def last_heartbeat(self, row: WorkerInstance) -> SafeString:
        return moment(row.last_heartbeat_at)

    @admin.display(description="stopped")
    def stopped(self, row: WorkerInstance) -> SafeString:
        return moment(row.stopped_at, "not stopped")

    @admin.display(description="host", ordering="hostname")
    def host(self, row: WorkerInstance) -> SafeString:
        return told(row.hostname)

    @admin.display(description="current task")
    def task(self, row: WorkerInstance) -> SafeString:
        return told(row.current_task_id)

    @admin.display(description="stop reason")
    def reason(self, row: WorkerInstance) -> SafeString:
        return told(row.stop_reason)

    @admin.display(description="error message")
    def error(self, row: WorkerInstance) -> SafeString:
        return told(row.error_message)

    @admin.display(description="worker")
    def worker_link(self, row: WorkerInstance) -> SafeString:
        return shown(link_to(row.worker))

    @admin.display(description="start")
    def start(self, row: WorkerInstance) -> str:
        """What it began with; the ledger has the same id."""
        own = WorkerStart.objects.filter(organization=row.organization_id)
        found = own.filter(pk=row.pk).defer("system_info").first()
        return shown(link_to(found)) if found else "no longer on record"

    @admin.display(description="API key")
    def key(self, row: WorkerInstance) -> str:
        """The one that it used last."""
        found = ApiKey.objects.filter(pk=row.api_key_id, organization=row.organization_id).first()
        return shown(link_to(found)) if found else "unknown"

    @admin.display(description="configuration revision")
    def revision(self, row: WorkerInstance) -> SafeString:
        return _revision(row.configuration_revision, _worker_of(row))


def _worker_of(row: WorkerStart | WorkerInstance) -> Worker | None:
    """Its worker, if that is there still and not another organization's by now."""
    return Worker.objects.with_chain().filter(pk=row.worker_id, organization=row.organization_id).first()


def _instance(start: WorkerStart, identifier: Any) -> SafeString | None:
    found = WorkerInstance.objects.filter(pk=identifier, organization=start.organization_id).first()
    return shown(link_to(found)) if found else None


def _revision(given: str, worker: Worker | None) -> SafeString:
    """A revision, and whether the worker would be given another one now."""
    if not given:
        return format_html("{}", "unknown: from before revisions were noted")
    now = revision_for(worker) if worker else given
    if missing := missing_in(now):
        return format_html('<code>{}</code> now <span class="cp-problem">none: {}</span>', given, missing)
    badge = format_html('<span class="cp-badge cp-badge-warning">outdated</span> now <code>{}</code>', now)
    return format_html("<code>{}</code> {}", given, badge if is_outdated(given, now) else "")


def _connection(start: WorkerStart, kind: Any) -> str:
    """Which one, with the version of its API key if it had one."""
    identifier = getattr(start, f"{kind.POINTER}_id")
    if identifier is None:
        return "none, so the defaults"
    found = kind.objects.filter(pk=identifier, organization=start.organization_id).first()
    link = shown(link_to(found)) if found else f"{identifier}, no longer known"
    version = getattr(start, version_column(kind), None)
    if not version:
        return link
    now = getattr(found, "api_key_version", version)
    return format_html("{}, API key version {}{}", link, version, f", now version {now}" if now != version else "")


def pretty_json(value: Any) -> SafeString:
    """JSON as an escaped block of text."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
    return format_html(
        '<pre style="white-space: pre-wrap; overflow-wrap: anywhere" class="font-mono text-xs">{}</pre>', text
    )
