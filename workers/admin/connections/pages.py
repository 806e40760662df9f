"""The console's pages of connections: a secret goes in and never comes out again."""

from copy import copy
from datetime import timedelta
from http import HTTPMethod, HTTPStatus
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminPasswordWidget

from environments import times
from environments.admin.console import ConsoleForm
from environments.encryption import CannotOpenError, Secret
from environments.endpoints.validators import is_secret
from environments.models import CredentialConnection, LiteLLMConnection, TelemetrySettings, TemporalConnection
from environments.moments import moment
from environments.sealing.data_keys import active_data_key, count_seals, open_sealed, seal_api_key
from workers.admin.confirmation import CONFIRMED
from workers.admin.connections.context import context_of, expiry_badge
from workers.admin.connections.verified import VerifiedAdmin, VerifiedFilter
from workers.fleet.editing import KEY_REQUIRED
from workers.models.api_keys import EXPIRY_WARNING_DAYS

#: Where a typed API key waits, sealed, while a person looks at what the change does.
KEPT_API_KEY = "kept_api_key"
UNPROVEN = "The new API key was never seen to work: verify it before you restart workers."


class CredentialForm(ConsoleForm):
    """Takes a new API key and never shows the stored one."""

    api_key = forms.CharField(
        label="API key",
        required=False,
        strip=False,  # whoever pastes a blank along learns of it
        validators=[is_secret],
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Stored sealed and never shown again.",
    )

    #: Set by the page, for what was typed before the change was to be confirmed.
    request: HttpRequest

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "api_key" in self.fields and self.instance.sealed_api_key:
            self.fields["api_key"].help_text += " Leave it blank to keep the stored one."

    def clean(self) -> dict[str, Any]:
        """An API key is there, or is given now, or the server takes none."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        self.secret = Secret(plain) if (plain := cleaned.get("api_key")) else self._kept_secret()
        if cleaned.get("requires_api_key") and not (self.instance.sealed_api_key or self.secret):
            self.add_error("api_key", KEY_REQUIRED)
        return cleaned

    def _kept_secret(self) -> Secret | None:
        """The API key that was typed before the confirmation page, if this is its answer."""
        kept = self.request.session.get(KEPT_API_KEY, {})
        is_answer = CONFIRMED in self.request.POST and kept.get("connection") == str(self.instance.pk)
        if not (is_answer and self.request.POST.get(KEPT_API_KEY)):
            return None
        connection = copy(self.instance)
        connection.sealed_api_key = kept["sealed"]
        try:
            return open_sealed(connection, "sealed_api_key")
        except CannotOpenError:
            self.add_error("api_key", "Type the API key again.")
            return None


class ExpiryFilter(admin.SimpleListFilter):
    """Connections whose API key soon expires or has expired."""

    title = "API key expires"
    parameter_name = "expires"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [("soon", f"Within {max(EXPIRY_WARNING_DAYS)} days, or did")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        if self.value() != "soon":
            return queryset
        last = times.now() + timedelta(days=max(EXPIRY_WARNING_DAYS))
        return queryset.filter(api_key_expires_on__lte=last.date())


class ConnectionAdmin(VerifiedAdmin):
    """Endpoints of an organization, each with what was found when it was verified and who uses it."""

    name_separators = "/"
    search_fields = ("name", "organization__id")
    #: What is told beside the model's own help: what a connection does not hold yet, and what to do instead.
    more_help: ClassVar[dict[str, str]] = {}
    list_filter: tuple[Any, ...] = (VerifiedFilter,)
    fixed_fields = ("organization",)
    autocomplete_fields = ("organization",)
    change_form_outer_before_template = "admin/workers/connection/page.html"
    change_form_outer_after_template = "admin/workers/connection/use.html"

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        told = {name: self.opts.get_field(name).help_text for name in self.more_help}
        texts = {name: f"{told[name]} {more}".strip() for name, more in self.more_help.items()}
        return super().get_form(request, obj, change, **{"help_texts": texts, **kwargs})

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        """Adds what is told beside the form, of the row as it is stored, and where its buttons lead."""
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_verify"
        if obj:
            context |= context_of(type(obj)._default_manager.get(pk=obj.pk), times.now())
        if obj and self.has_change_permission(request, obj):
            context["verify_url"] = reverse(name, args=[obj.pk])
            context["verify_typed_url"] = reverse(f"{name}_typed", args=[obj.pk])
        elif not obj:
            context["verify_typed_url"] = reverse(f"{name}_new")
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)


class CredentialAdmin(ConnectionAdmin):
    """Connections with an API key, which is write-only."""

    form = CredentialForm
    secret_fields = ("api_key",)
    list_display = ("name", "organization", "endpoint", "fingerprint", "version", "api_key_set", "expires", "verified")
    list_filter = (VerifiedFilter, ExpiryFilter)

    @admin.display(description="fingerprint")
    def fingerprint(self, row: CredentialConnection) -> str:
        return row.shown_fingerprint

    @admin.display(description="version", ordering="api_key_version")
    def version(self, row: CredentialConnection) -> int:
        return row.api_key_version

    @admin.display(description="API key set", ordering="api_key_set_at")
    def api_key_set(self, row: CredentialConnection) -> SafeString:
        return moment(row.api_key_set_at)

    @admin.display(description="expires", ordering="api_key_expires_on")
    def expires(self, row: CredentialConnection) -> SafeString | None:
        day = row.api_key_expires_on
        return format_html("{} {}", day.isoformat(), expiry_badge(row, times.now())) if day else None

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        form = super().get_form(request, obj, change, **kwargs)
        form.request = request
        return form

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """A change that is to be confirmed is taken back; not so the data key that seals what waits, nor its count."""
        if request.method == HTTPMethod.POST and object_id and request.POST.get("api_key"):
            with transaction.atomic():
                row = self.get_object(request, unquote(object_id))
                if row and self.has_change_permission(request, row):
                    active_data_key(row.organization_id)
        response = super().changeform_view(request, object_id, form_url, extra_context)
        if organization_id := getattr(request, "sealed_for", None):
            count_seals(active_data_key(organization_id)[0], 1)
        return response

    def save_model(self, request: HttpRequest, obj: CredentialConnection, form: Any, change: bool) -> None:  # noqa: FBT001
        request.is_api_key_new = bool(form.secret) and seal_api_key(obj, form.secret, now=times.now())  # type: ignore[attr-defined]  # up to keep_secrets
        super().save_model(request, obj, form, change)

    def keep_secrets(self, request: HttpRequest, obj: CredentialConnection) -> dict[str, str]:
        """Keeps the typed API key in the session, sealed, and nowhere in the page."""
        request.session.pop(KEPT_API_KEY, None)
        if not request.is_api_key_new:  # type: ignore[attr-defined]  # see save_model
            return {}
        request.sealed_for = obj.organization_id  # type: ignore[attr-defined]  # up to changeform_view
        request.session[KEPT_API_KEY] = {"connection": str(obj.pk), "sealed": obj.sealed_api_key}
        return {KEPT_API_KEY: "yes"}

    def response_change(self, request: HttpRequest, obj: CredentialConnection) -> HttpResponse:
        response = super().response_change(request, obj)
        if response.status_code == HTTPStatus.FOUND:
            request.session.pop(KEPT_API_KEY, None)
            if request.is_api_key_new and obj.verified_at is None:  # type: ignore[attr-defined]  # see save_model
                self.message_user(request, UNPROVEN, messages.WARNING)
        return response


API_KEY_FIELDSET = ("API key", {"fields": ("requires_api_key", "api_key", "api_key_expires_on")})


@admin.register(TemporalConnection)
class TemporalConnectionAdmin(CredentialAdmin):
    """Temporal endpoints."""

    empty = "Workers find Temporal by a connection. Without one at any level they cannot start."
    more_help = {
        "is_tls_enabled": (
            "A Temporal may ask for a client certificate, which connections do not hold yet: "
            "docs/operate/private-networks.md tells how its workers get one."
        )
    }
    fieldsets = (
        (None, {"fields": ("organization", "name", "host", "namespace", "is_tls_enabled")}),
        API_KEY_FIELDSET,
    )

    @admin.display(description="endpoint", ordering="host")
    def endpoint(self, row: TemporalConnection) -> str:
        return f"{row.host}, namespace {row.namespace}"


@admin.register(LiteLLMConnection)
class LiteLLMConnectionAdmin(CredentialAdmin):
    """LiteLLM gateways."""

    empty = "Workers find language models by a connection. Without one at any level they cannot start."
    more_help = {
        "api_url": (
            "With or without /v1. Verify calls it without a proxy: docs/operate/private-networks.md tells what workers "
            "need in a network that has one."
        )
    }
    fieldsets = ((None, {"fields": ("organization", "name", "api_url")}), API_KEY_FIELDSET)

    @admin.display(description="endpoint", ordering="api_url")
    def endpoint(self, row: LiteLLMConnection) -> str:
        return row.api_url


@admin.register(TelemetrySettings)
class TelemetrySettingsAdmin(ConnectionAdmin):
    """What workers are told about OpenTelemetry."""

    empty = "Without telemetry settings workers are given defaults, which export nothing."
    more_help = {
        "otel_exporter_otlp_endpoint": (
            "A collector may ask for headers, which workers are not given yet: docs/operate/private-networks.md tells "
            "where they get them from."
        )
    }
    list_display = (
        "name",
        "organization",
        "otel_enabled",
        "otel_exporter_otlp_endpoint",
        "otel_traces_sampler",
        "verified",
    )
    fields = (
        "organization",
        "name",
        "otel_enabled",
        "otel_exporter_otlp_endpoint",
        "otel_service_name",
        "otel_traces_sampler",
        "otel_traces_sampler_arg",
    )
