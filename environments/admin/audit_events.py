"""The console's pages of the audit trail."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from environments.admin.console import MOST_SEARCHED, RecordsAdmin
from environments.admin.searches import BoundedList
from environments.admin.trail import ActionFilter, ActorFilter, ObjectFilter, OccurredWithin, changes_of, pages_of
from environments.models import AuditEvent
from environments.moments import moment


class TrailChangeList(BoundedList):
    """A page of events, each with the address of its object's page."""

    result_list: Any

    def get_results(self, request: HttpRequest) -> None:
        """Looks for the objects of one page together, as many statements as there are kinds of them."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        pages = pages_of(self.result_list, request, self.model_admin.admin_site)
        for row in self.result_list:
            row.page = pages.get(row.pk, "")


#: Names of actions that end something, which a list shows in red.
ENDINGS = (".deleted", ".revoked", ".disabled")
#: Names of changed fields that a list shows.
SHOWN_FIELDS = 5


@admin.register(AuditEvent)
class AuditEventAdmin(RecordsAdmin):
    """Who did what to which object."""

    empty = "Whatever people and commands change is recorded here."
    made_at = "occurred_at"
    list_display = ("time", "actor", "what", "object", "organization", "origin", "changed_fields")
    list_filter = (OccurredWithin, ActionFilter, ObjectFilter, ActorFilter)
    list_before_template = "admin/records.html"
    search_fields = ("actor", "action", "object_name")
    search_help_text = f"Actor, action, name of the latest {MOST_SEARCHED:,}, or ID of the object"
    recorded_at = "occurred_at"
    id_fields = ("object_id",)
    fields = ("time", "actor", "what", "object", "object_type", "object_id", "organization", "origin")
    change_form_after_template = "admin/environments/auditevent/changes.html"

    def name_of(self, row: AuditEvent) -> str:
        return f"{row.organization_id}: {row}" if row.organization_id else str(row)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:  # noqa: ARG002
        return TrailChangeList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """With the address of its object's page, and with what changed field by field."""
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            row.changed = changes_of(row)
            row.page = pages_of([row], request, self.admin_site).get(row.pk, "")
        return row

    @admin.display(description="time", ordering="occurred_at")
    def time(self, row: AuditEvent) -> SafeString:
        return moment(row.occurred_at)

    @admin.display(description="action")
    def what(self, row: AuditEvent) -> SafeString:
        tone = "cp-badge-danger" if row.action.endswith(ENDINGS) else ""
        return format_html('<span class="cp-badge {}">{}</span>', tone, row.action)

    @admin.display(description="object")
    def object(self, row: Any) -> SafeString:
        """Its name then; a link while it has a page that the person may see."""
        name = format_html("<bdi>{}</bdi>", row.object_name)
        return format_html('<a class="cp-link" href="{}">{}</a>', row.page, name) if row.page else name

    @admin.display(description="from")
    def origin(self, row: AuditEvent) -> str | None:
        return row.client_address

    @admin.display(description="changed")
    def changed_fields(self, row: AuditEvent) -> str:
        names = sorted(row.changes)
        more = f" and {len(names) - SHOWN_FIELDS} more" if len(names) > SHOWN_FIELDS else ""
        return ", ".join(name.replace("_", " ") for name in names[:SHOWN_FIELDS]) + more
