"""The console's pages of notification targets: a URL and a secret go in and never come out again."""

from datetime import datetime
from http import HTTPMethod, HTTPStatus
from typing import Any
from uuid import uuid4

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.messages import ERROR, SUCCESS
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Max
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils.safestring import SafeString
from unfold.widgets import (
    INPUT_CLASSES,
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminPasswordWidget,
)

from environments import audit, times
from environments.admin.console import ConsoleAdmin, ConsoleForm, actor_of
from environments.admin.error_page import error_page
from environments.connections.asking import VERIFYING, AskedTooOftenError, NotAskedError
from environments.encryption import Secret
from environments.endpoints.rules import read_webhook_url
from environments.endpoints.validators import is_secret, is_webhook_url
from environments.moments import moment
from environments.sealing.data_keys import seal_into
from workers.admin.decisions import MomentField
from workers.admin.links import address_of, link_to
from workers.admin.states import badge
from workers.models import Event, NotificationTarget, TargetKind
from workers.models.states import HAS_PASSED
from workers.notifications.messages import trial_payload
from workers.notifications.sending import NO_MAIL, send_now

LEAST_SECRET = 32
LINK = "A link sends nothing: press Send a test message on the target's page."
SEALED = {"url": "sealed_url", "secret": "sealed_secret"}
#: What each kind takes of what a target may have.
PARTS = {TargetKind.WEBHOOK: {"url", "secret"}, TargetKind.SLACK: {"url"}, TargetKind.EMAIL: {"addresses"}}
NAMES = {"url": "URL", "secret": "secret", "addresses": "addresses"}


def is_long_enough(value: str) -> None:
    """ValidationError for a secret that could be guessed."""
    if len(value) < LEAST_SECRET:
        msg = f"Use {LEAST_SECRET} characters or more: python manage.py generate_key secret makes one."
        raise ValidationError(msg)


def _hidden(label: str, help_text: str, *validators: Any) -> forms.CharField:
    widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"})
    return forms.CharField(
        label=label,
        required=False,
        strip=False,  # whoever pastes a blank along learns of it
        max_length=2_000,
        validators=list(validators),
        widget=widget,
        help_text=f"{help_text} Stored sealed and never shown again.",
    )


def _time(label: str, help_text: str) -> forms.TimeField:
    """Of a day in the target's zone: Django's own box would hint at the browser's."""
    attrs = {"type": "time", "class": " ".join(INPUT_CLASSES)}
    widget = forms.TimeInput(attrs=attrs, format="%H:%M")
    return forms.TimeField(label=label, required=False, widget=widget, help_text=help_text)


class TargetForm(ConsoleForm):
    """Takes a new URL and secret and never shows the stored ones."""

    url = _hidden("URL", "Of a webhook or of Slack; whoever knows it may write there.", is_webhook_url)
    secret = _hidden("Secret", "Of a webhook, by which its receiver knows our messages.", is_secret, is_long_enough)
    events = forms.MultipleChoiceField(
        choices=Event.choices,
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="None chosen: it is told all of them, also those that a later release adds.",
    )

    quiet_from = _time("Quiet from", "Nothing is told from then on, each day, in its time zone.")
    quiet_until = _time("Quiet until", "What stands then is told then; it may be on the next day.")
    mute_ends_at = MomentField(label="Muted until", required=False, help_text="Nothing is told before. In UTC.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if instance := kwargs.get("instance"):
            instance.forget_ended_mute(times.now())
        super().__init__(*args, **kwargs)
        for name, field in SEALED.items():
            if name in self.fields and getattr(self.instance, field):
                self.fields[name].help_text += " Leave it blank to keep the stored one."

    def clean(self) -> dict[str, Any]:
        """A target has what its kind needs, and nothing that would never be used."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        until = cleaned.get("mute_ends_at")
        if until is not None and until <= times.now():
            self.add_error("mute_ends_at", HAS_PASSED)
        kind = cleaned.get("kind") or self.instance.kind
        if kind not in PARTS:
            return cleaned
        for name, told in NAMES.items():
            stored = getattr(self.instance, SEALED[name]) if name in SEALED else ""
            if name in PARTS[TargetKind(kind)] and not (cleaned.get(name) or stored or name in self.errors):
                self.add_error(name, f"Give the {told}.")
            elif name not in PARTS[TargetKind(kind)] and cleaned.get(name):
                self.add_error(name, f"Leave the {told} out: this kind of target has none.")
        if kind == TargetKind.EMAIL and settings.MAIL_SERVER is None:
            self.add_error("addresses", NO_MAIL)
        return cleaned


@admin.register(NotificationTarget)
class NotificationTargetAdmin(ConsoleAdmin):
    """Whom an organization has told what happens."""

    empty = "A target is told when workers go offline, starts are refused, API keys expire and more."
    form = TargetForm
    secret_fields = tuple(SEALED)
    name_separators = "/"
    list_display = ("name", "organization", "shown_kind", "leads_to", "state", "created")
    list_filter = ("kind",)
    search_fields = ("name", "organization__id")
    fixed_fields = ("organization", "kind")
    autocomplete_fields = ("organization",)
    change_form_outer_before_template = "admin/workers/notificationtarget/page.html"
    fieldsets = (
        (None, {"fields": ("organization", "name", "kind", "is_enabled")}),
        ("Where to", {"fields": ("url", "secret", "addresses")}),
        ("What", {"fields": ("events",)}),
        ("When not", {"fields": ("quiet_from", "quiet_until", "time_zone", "mute_ends_at", "mute_reason")}),
    )

    @admin.display(description="kind", ordering="kind")
    def shown_kind(self, row: NotificationTarget) -> str:
        return str(row.get_kind_display())

    @admin.display(description="leads to")
    def leads_to(self, row: NotificationTarget) -> str:
        return row.url_host or row.addresses

    @admin.display(description="events")
    def shown_events(self, row: NotificationTarget) -> str:
        return ", ".join(str(Event(name).label) for name in row.events) or "all"

    @admin.display(description="quiet hours")
    def quiet_hours(self, row: NotificationTarget) -> str:
        is_quiet = row.quiet_from and row.quiet_until
        return f"{row.quiet_from:%H:%M} to {row.quiet_until:%H:%M}, {row.time_zone}" if is_quiet else "none"

    @admin.display(description="state")
    def state(self, row: NotificationTarget) -> SafeString:
        """Whether it is told at this moment."""
        if not row.is_enabled:
            return badge("off")
        return badge("held back", "warning") if row.is_held_back(times.now()) else badge("told", "success")

    def get_urls(self) -> list[Any]:
        """Adds the address of the button."""
        view = self.admin_site.admin_view(self.test_view)
        return [path("<path:object_id>/test/", view, name="workers_notificationtarget_test"), *super().get_urls()]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """A reader is shown no field that could be filled in only."""
        if self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj):
            return self.fieldsets
        shown = ("leads_to", "shown_events", "quiet_hours", "mute_ends_at", "mute_reason")
        return (self.fieldsets[0], (None, {"fields": shown}))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        """Adds what is told beside the form, of the row as it is stored."""
        if obj:
            row = NotificationTarget.objects.get(pk=obj.pk)
            row.forget_ended_mute(times.now())
            context |= {"target": row, "state": self.state(row), "told": moment(self._told_last(row))}
            if self.has_change_permission(request, obj):
                context["test_url"] = reverse("admin:workers_notificationtarget_test", args=[obj.pk])
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def _told_last(self, row: NotificationTarget) -> datetime | None:
        """When it took a message last, of those that are kept."""
        told: datetime | None = row.deliveries.aggregate(at=Max("delivered_at"))["at"]
        return told

    def save_model(self, request: HttpRequest, obj: NotificationTarget, form: Any, change: bool) -> None:  # noqa: FBT001
        """Seals what was typed."""
        if url := form.cleaned_data.get("url"):
            obj.url_fingerprint = seal_into(obj, "sealed_url", Secret(url))
            obj.url_host = str(read_webhook_url(url).host)
        if secret := form.cleaned_data.get("secret"):
            obj.secret_fingerprint = seal_into(obj, "sealed_secret", Secret(secret))
        super().save_model(request, obj, form, change)
        if change and obj.stored.events != obj.events:  # type: ignore[attr-defined]  # see save_form
            NotificationTarget.objects.filter(pk=obj.pk).update(events_chosen_at=times.now())

    def test_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Sends a test message to what is stored, and returns to the page."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        if request.method != HTTPMethod.POST:
            return error_page(request, HTTPStatus.METHOD_NOT_ALLOWED, "Not sent", LINK)
        try:
            with VERIFYING.of(str(request.user.pk)):
                problem = self._send_test(request, row)
        except NotAskedError as error:
            is_too_often = isinstance(error, AskedTooOftenError)
            status = HTTPStatus.TOO_MANY_REQUESTS if is_too_often else HTTPStatus.SERVICE_UNAVAILABLE
            response = error_page(request, status, "Not sent", str(error))
            response.headers["Retry-After"] = str(error.seconds)
            return response
        told = f"The test message was not taken: {problem}" if problem else "The test message was taken."
        self.message_user(request, told, ERROR if problem else SUCCESS)
        return redirect(link_to(row).address)

    def _send_test(self, request: HttpRequest, row: NotificationTarget) -> str:
        url = address_of("notification_target", str(row.pk))
        payload = trial_payload(row.organization_id, row.name, delivery_id=str(uuid4()), now=times.now(), url=url)
        problem = send_now(row, payload, times.now())
        changes = {"outcome": [None, problem or "taken"]}
        audit.record("notification_target.tested", row, actor=actor_of(request), now=times.now(), changes=changes)
        return problem
