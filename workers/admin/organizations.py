"""The console's pages of organizations and environments."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from environments.admin.signed_in import staff_of
from environments.models import Environment, Organization
from environments.models.connections import CONNECTION_POINTERS
from workers.admin.confirmation import ConfirmedAdmin
from workers.admin.inheritance import InheritingAdmin

#: The three pointers, as a section of a form.
CONNECTIONS_FIELDSET = (
    "Connections",
    {
        "fields": CONNECTION_POINTERS,
        "description": "The narrowest level that points to a connection wins the whole section: "
        "worker, worker queue, environment, organization.",
    },
)


@admin.register(Organization)
class OrganizationAdmin(ConfirmedAdmin):
    """Tenants and their default connections; only superusers make and delete them."""

    empty = "An organization has environments, worker queues, workers and connections of its own."
    organization_path = "pk"

    list_display = ("id", "name", "temporal_connection", "litellm_connection", "created")
    list_select_related = CONNECTION_POINTERS[:2]
    search_fields = ("id", "name")
    fixed_fields = ("id",)
    autocomplete_fields = CONNECTION_POINTERS
    fieldsets = ((None, {"fields": ("id", "name")}), CONNECTIONS_FIELDSET)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return staff_of(request).is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return staff_of(request).is_superuser

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """A new organization cannot have connections of its own yet."""
        return super().get_fieldsets(request, obj) if obj else self.fieldsets[:1]


@admin.register(Environment)
class EnvironmentAdmin(InheritingAdmin):
    """Stages of an organization."""

    empty = "An environment is a stage of an organization, such as production; worker queues are in one."
    list_display = ("name", "organization", "description", "created")
    name_separators = "/"
    search_fields = ("name", "organization__id")
    fixed_fields = ("organization",)
    autocomplete_fields = ("organization", *CONNECTION_POINTERS)
    fieldsets = (
        (None, {"fields": ("organization", "name", "display_name", "description", "tags")}),
        ("Settings", {"fields": ("settings", "execution_environment")}),
        CONNECTIONS_FIELDSET,
    )
