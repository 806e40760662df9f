"""The console's pages of organizations, environments, connections, data keys and the audit trail."""

import json
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminPasswordWidget

from environments.console import ConsoleAdmin, ConsoleForm, ReadOnlyAdmin
from environments.encryption import Secret
from environments.models import (
    CONNECTION_POINTERS,
    AuditEvent,
    CredentialConnection,
    DataKey,
    Environment,
    LiteLLMConnection,
    Organization,
    TelemetrySettings,
    TemporalConnection,
)
from environments.sealing import seal_api_key

#: The three pointers, as a section of a form.
CONNECTIONS_FIELDSET = (
    "Connections",
    {
        "fields": CONNECTION_POINTERS,
        "description": "The narrowest level that points to a connection wins the whole section: "
        "worker, worker queue, environment, organization.",
    },
)


def pretty_json(value: Any) -> SafeString:
    """JSON as an escaped block of text."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
    return format_html(
        '<pre style="white-space: pre-wrap; overflow-wrap: anywhere" class="font-mono text-xs">{}</pre>', text
    )


@admin.register(Organization)
class OrganizationAdmin(ConsoleAdmin):
    """Tenants and their default connections."""

    list_display = ("id", "name", "temporal_connection", "litellm_connection", "created_at")
    list_select_related = CONNECTION_POINTERS[:2]
    search_fields = ("id", "name")
    fixed_fields = ("id",)
    autocomplete_fields = CONNECTION_POINTERS
    fieldsets = ((None, {"fields": ("id", "name")}), CONNECTIONS_FIELDSET)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """A new organization cannot have connections of its own yet."""
        return super().get_fieldsets(request, obj) if obj else self.fieldsets[:1]


@admin.register(Environment)
class EnvironmentAdmin(ConsoleAdmin):
    """Stages of an organization."""

    list_display = ("name", "organization", "description", "created_at")
    name_separators = "/"
    search_fields = ("name", "organization__id")
    fixed_fields = ("organization",)
    autocomplete_fields = ("organization", *CONNECTION_POINTERS)
    fieldsets = (
        (None, {"fields": ("organization", "name", "display_name", "description", "tags")}),
        CONNECTIONS_FIELDSET,
    )


class CredentialForm(ConsoleForm):
    """Takes a new API key and never shows the stored one."""

    api_key = forms.CharField(
        label="API key",
        required=False,
        strip=True,
        max_length=4096,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Stored sealed and never shown again. Leave it blank to keep the stored one.",
    )

    def clean(self) -> dict[str, Any]:
        """An API key is there, or is given now, or the server takes none."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        is_there = self.instance.sealed_api_key or cleaned.get("api_key")
        if cleaned.get("requires_api_key") and not is_there:
            self.add_error("api_key", "Give the API key, or say that this server takes none.")
        return cleaned


class CredentialAdmin(ConsoleAdmin):
    """Connections with an API key, which is write-only."""

    form = CredentialForm
    name_separators = "/"
    search_fields = ("name", "organization__id")
    fixed_fields = ("organization",)
    autocomplete_fields = ("organization",)
    readonly_fields = ("api_key_fingerprint", "api_key_version", "api_key_set_at")

    def save_model(self, request: HttpRequest, obj: CredentialConnection, form: Any, change: bool) -> None:  # noqa: FBT001
        if plain := form.cleaned_data.get("api_key"):
            seal_api_key(obj, Secret(plain), now=timezone.now())
        super().save_model(request, obj, form, change)


API_KEY_FIELDSET = (
    "API key",
    {"fields": ("requires_api_key", "api_key", "api_key_fingerprint", "api_key_version", "api_key_set_at")},
)


@admin.register(TemporalConnection)
class TemporalConnectionAdmin(CredentialAdmin):
    """Temporal endpoints."""

    list_display = ("name", "organization", "host", "namespace", "api_key_fingerprint", "api_key_set_at")
    fieldsets = (
        (None, {"fields": ("organization", "name", "host", "namespace", "is_tls_enabled")}),
        API_KEY_FIELDSET,
    )


@admin.register(LiteLLMConnection)
class LiteLLMConnectionAdmin(CredentialAdmin):
    """LiteLLM gateways."""

    list_display = ("name", "organization", "api_url", "api_key_fingerprint", "api_key_set_at")
    fieldsets = ((None, {"fields": ("organization", "name", "api_url")}), API_KEY_FIELDSET)


@admin.register(TelemetrySettings)
class TelemetrySettingsAdmin(ConsoleAdmin):
    """What workers are told about OpenTelemetry."""

    list_display = ("name", "organization", "otel_enabled", "otel_exporter_otlp_endpoint", "otel_traces_sampler")
    name_separators = "/"
    search_fields = ("name", "organization__id")
    fixed_fields = ("organization",)
    autocomplete_fields = ("organization",)
    fields = (
        "organization",
        "name",
        "otel_enabled",
        "otel_exporter_otlp_endpoint",
        "otel_service_name",
        "otel_traces_sampler",
        "otel_traces_sampler_arg",
    )


@admin.register(DataKey)
class DataKeyAdmin(ReadOnlyAdmin):
    """Data keys: made with an organization's first secret, rotated by `manage.py rotate_encryption`."""

    list_display = ("id", "organization", "wrapped_by", "seal_count", "created_at", "is_active")
    search_fields = ("organization__id", "wrapped_by")
    fields = ("id", "organization", "wrapped_by", "seal_count", "created_at", "is_active")

    @admin.display(boolean=True, description="active")
    def is_active(self, row: DataKey) -> bool:
        return row.active_for_id is not None


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """Who did what to which object."""

    list_display = ("occurred_at", "actor", "action", "object_type", "object_name", "organization", "client_address")
    search_fields = ("actor", "action", "object_id", "object_name")
    fields = (*list_display[:6], "object_id", "client_address", "what_changed")

    @admin.display(description="changes")
    def what_changed(self, row: AuditEvent) -> SafeString:
        return pretty_json(row.changes)
