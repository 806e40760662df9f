"""The console's pages of API keys: issue, rotate, revoke; a key is shown once, in the answer that made it."""

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from environments.console import ConsoleAdmin, actor_of
from workers.api_keys import (
    DEFAULT_GRACE_PERIOD,
    DEFAULT_LIFETIME,
    LONGEST_GRACE_PERIOD,
    LONGEST_LIFETIME,
    ApiKeyError,
    IssuedApiKey,
    issue_api_key,
    revoke_api_key,
    rotate_api_key,
)
from workers.models import ApiKey, Scope
from workers.serializers import issued_key

TARGETS = ("worker", "queue", "environment", "organization")


class IssueForm(forms.ModelForm):  # type: ignore[type-arg]  # the model is the admin's
    """What the key is for, and for how long."""

    days = forms.IntegerField(
        label="Lifetime in days",
        initial=DEFAULT_LIFETIME.days,
        min_value=1,
        max_value=LONGEST_LIFETIME.days,
        widget=UnfoldAdminIntegerFieldWidget,
        required=False,
        help_text=f"1 to {LONGEST_LIFETIME.days}. Blank only for a key that never expires, with the reason below.",
    )
    no_expiry_reason = forms.CharField(
        label="Reason for no expiry", max_length=300, required=False, widget=UnfoldAdminTextInputWidget
    )
    is_organization_confirmed = forms.BooleanField(
        label="For the whole organization",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="Confirm it for a key of organization scope: it starts every worker there.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", *TARGETS)
        help_texts = dict.fromkeys(TARGETS[:1], "Choose exactly one target.")

    def __init__(self, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        if "organization" in self.fields:
            self.fields["organization"].required = False

    def clean(self) -> dict[str, Any]:
        """Exactly one target, and a reason for no expiry."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        targets = [target for target in TARGETS if cleaned.get(target)]
        if len(targets) != 1 and not self.errors:
            msg = "Choose exactly one: worker, worker queue, environment or organization."
            raise ValidationError(msg)
        if targets == ["organization"] and not cleaned.get("is_organization_confirmed"):
            self.add_error("is_organization_confirmed", "Confirm that the key is for the whole organization.")
        if cleaned.get("days") is None and "days" not in self.errors and not cleaned.get("no_expiry_reason"):
            self.add_error("no_expiry_reason", "A key that never expires needs a written reason.")
        return cleaned

    def _post_clean(self) -> None:
        """The domain makes the row; there is none to construct or check here."""


class RotateForm(forms.Form):
    """How long the old key stays valid."""

    grace_hours = forms.IntegerField(
        label="Grace period in hours",
        initial=int(DEFAULT_GRACE_PERIOD.total_seconds() // 3600),
        min_value=0,
        max_value=LONGEST_GRACE_PERIOD.days * 24,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="The old key stays valid this long, 0 to 720.",
    )


class RevokeForm(forms.Form):
    """Why the key ends."""

    reason = forms.CharField(max_length=300, widget=UnfoldAdminTextInputWidget)


@admin.register(ApiKey)
class ApiKeyAdmin(ConsoleAdmin):
    """API keys; the key itself is stored nowhere."""

    list_display = ("name", "organization", "scope", "target", "state", "created_at", "expires_at")
    list_select_related = ("organization", "worker", "queue__environment", "environment")
    list_filter = ("scope",)
    search_fields = ("name", "=id", "organization__id")
    autocomplete_fields = TARGETS
    change_form_outer_before_template = "admin/workers/apikey/tools.html"
    record_fields = (
        "id",
        "name",
        "organization",
        "scope",
        "target",
        "state",
        "signing_key_id",
        "created_at",
        "created_by",
        "expires_at",
        "no_expiry_reason",
        "revoked_at",
        "revoke_reason",
        "replaced_by",
    )

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        return super().get_form(request, obj, change, **kwargs if obj else {**kwargs, "form": IssueForm})

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:  # noqa: ARG002
        return self.record_fields if obj else ("name", *TARGETS, *IssueForm.declared_fields)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:  # noqa: ARG002
        return self.record_fields if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:  # noqa: ARG002
        """Nothing of a key can be edited; it is rotated or revoked."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:  # noqa: ARG002
        """A key is revoked, never deleted: the ledger names it."""
        return False

    @display(description="target")
    def target(self, row: ApiKey) -> str:
        return str(row.target)

    @display(description="state", label={"Usable": "success", "Revoked": "danger", "Expired": "danger"})
    def state(self, row: ApiKey) -> str:
        now = timezone.now()
        if row.revoked_at:
            return "Revoked"
        if not row.is_usable(now):
            return "Expired"
        warning = row.expiry_warning(now)
        return f"Expires within {warning} days" if warning else "Usable"

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """One button: the answer shows the key, so there is nothing to continue."""
        only_save = {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **only_save})

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:  # noqa: ARG002, FBT001
        """Issues the key; `response_add` then shows it."""
        cleaned = form.cleaned_data
        issued = issue_api_key(
            next(cleaned[target] for target in TARGETS if cleaned.get(target)),
            name=cleaned["name"],
            actor=actor_of(request),
            now=timezone.now(),
            lifetime=timedelta(days=cleaned["days"]) if cleaned["days"] else None,
            no_expiry_reason=cleaned["no_expiry_reason"],
        )
        obj.__dict__.update(issued.row.__dict__)
        request.issued_api_key = issued  # type: ignore[attr-defined]  # from here to response_add, within one request

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:  # noqa: ARG002
        return self._show_once(request, request.issued_api_key)  # type: ignore[attr-defined]  # see save_model

    def get_urls(self) -> list[Any]:
        """Adds the pages that rotate and revoke."""
        wrap = self.admin_site.admin_view
        own = [
            path("<uuid:key_id>/rotate/", wrap(self.rotate_view), name="workers_apikey_rotate"),
            path("<uuid:key_id>/revoke/", wrap(self.revoke_view), name="workers_apikey_revoke"),
        ]
        return own + list(super().get_urls())

    def rotate_view(self, request: HttpRequest, key_id: Any) -> HttpResponse:
        """Asks for the grace period on GET; makes the successor and shows it on POST."""
        key = self._key(request, key_id)
        form = RotateForm(request.POST or None)
        if form.is_valid():
            try:
                grace_period = timedelta(hours=form.cleaned_data["grace_hours"])
                issued = rotate_api_key(key.pk, actor=actor_of(request), now=timezone.now(), grace_period=grace_period)
                return self._show_once(request, issued)
            except ApiKeyError as error:
                form.add_error(None, str(error))
        return self._ask(request, key, form, title="Rotate API key", button="Rotate", variant="primary")

    def revoke_view(self, request: HttpRequest, key_id: Any) -> HttpResponse:
        """Asks for the reason on GET; revokes on POST."""
        key = self._key(request, key_id)
        form = RevokeForm(request.POST or None)
        if form.is_valid():
            reason = form.cleaned_data["reason"]
            is_revoked = revoke_api_key(key.pk, reason=reason, actor=actor_of(request), now=timezone.now())
            self.message_user(
                request, f"API key {key} is revoked." if is_revoked else f"API key {key} was revoked before."
            )
            return redirect(reverse("admin:workers_apikey_change", args=[key.pk]))
        return self._ask(request, key, form, title="Revoke API key", button="Revoke", variant="danger")

    def _key(self, request: HttpRequest, key_id: Any) -> ApiKey:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return get_object_or_404(self.get_queryset(request), pk=key_id)

    def _ask(self, request: HttpRequest, key: ApiKey, form: forms.Form, **context: Any) -> HttpResponse:
        context |= {**self.admin_site.each_context(request), "opts": self.opts, "original": key, "form": form}
        return TemplateResponse(request, "admin/workers/apikey/ask.html", context)

    def _show_once(self, request: HttpRequest, issued: IssuedApiKey) -> HttpResponse:
        """The one page that shows the key; nothing stores it, so reloading cannot bring it back."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "API key issued",
            "issued": issued_key(issued),
            "row": issued.row,
            "is_for_worker": issued.row.scope == Scope.WORKER,
            "control_plane_url": settings.CONTROL_PLANE_URL,
        }
        response = TemplateResponse(request, "admin/workers/apikey/issued.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response
