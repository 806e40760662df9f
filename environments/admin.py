"""The console's pages of members, data keys and the audit trail."""

import json
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextInputWidget

from environments.console import MOST_SEARCHED, ConsoleAdmin, ConsoleForm, ReadOnlyAdmin, RecordsAdmin
from environments.models import AuditEvent, DataKey, Membership, Role
from environments.moments import moment
from environments.searches import BoundedList
from environments.trail import ActionFilter, ActorFilter, ObjectFilter, OccurredWithin, changes_of, pages_of


def pretty_json(value: Any) -> SafeString:
    """JSON as an escaped block of text."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
    return format_html(
        '<pre style="white-space: pre-wrap; overflow-wrap: anywhere" class="font-mono text-xs">{}</pre>', text
    )


class MembershipForm(ConsoleForm):
    """Names the person: a list to choose from would tell one organization of another's people."""

    username = forms.CharField(max_length=150, widget=UnfoldAdminTextInputWidget, help_text="As the person signs in.")

    def clean_username(self) -> str:
        """The person with this name."""
        username = str(self.cleaned_data["username"])
        person = get_user_model().objects.filter(username=username, is_active=True, is_staff=True).first()
        if person is None:
            msg = "Nobody with this name may sign in to the console. A superuser makes people known."
            raise ValidationError(msg)
        self.instance.user = person
        return username

    def _get_validation_exclusions(self) -> set[str]:
        found = {"user"} if self.instance.user_id else set()
        return super()._get_validation_exclusions() - found


@admin.register(Membership)
class MembershipAdmin(ConsoleAdmin):
    """Who has which role in which organization."""

    form = ConsoleForm
    list_display = ("user", "organization", "role", "created")
    list_select_related = ("user",)
    search_fields = ("user__username", "organization__id")
    autocomplete_fields = ("organization",)
    fixed_fields = ("organization", "user")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        return super().get_form(request, obj, change, **(kwargs if obj else {**kwargs, "form": MembershipForm}))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:  # noqa: ARG002
        return ("organization", "user" if obj else "username", "role")

    @admin.display(description="since", ordering="created_at")
    def created(self, row: Membership) -> SafeString:
        return moment(row.created_at)


@admin.register(DataKey)
class DataKeyAdmin(ReadOnlyAdmin):
    """Data keys: made with an organization's first secret, rotated by `manage.py rotate_encryption`."""

    reader_role = Role.ADMINISTRATOR
    list_display = ("id", "organization", "wrapped_by", "seal_count", "created", "is_active")
    search_fields = ("organization__id", "wrapped_by")
    fields = list_display

    @admin.display(boolean=True, description="active")
    def is_active(self, row: DataKey) -> bool:
        return row.active_for_id is not None


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

    made_at = "occurred_at"
    list_display = ("time", "actor", "what", "object", "organization", "origin", "changed_fields")
    list_filter = (OccurredWithin, ActionFilter, ObjectFilter, ActorFilter)
    list_before_template = "admin/environments/auditevent/records.html"
    search_fields = ("actor", "action", "object_name")
    search_help_text = f"Actor, action, name of the latest {MOST_SEARCHED:,}, or ID of the object"
    recorded_at = "occurred_at"
    id_fields = ("object_id",)
    fields = ("time", "actor", "what", "object", "object_type", "object_id", "organization", "origin")
    change_form_after_template = "admin/environments/auditevent/changes.html"

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
