"""The console's pages of a worker's first boot: it is made in one step, shown how to be started, and watched."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.contrib.admin.options import IS_POPUP_VAR
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import path
from django.views.decorators.http import require_safe
from unfold.widgets import UnfoldBooleanSwitchWidget

from environments import times
from environments.admin.console import ConsoleAdmin, actor_of
from workers.admin.api_keys.covering import ShownKey, keys_covering
from workers.admin.api_keys.forms import LifetimeField
from workers.admin.states import InOrganizationForm
from workers.api_keys.issuing import IssuedApiKey, issue_api_key, issued_key
from workers.installation.worker import PLACEHOLDER, commands_for
from workers.models import Worker
from workers.reports.first_boot import checklist_of

#: Of the keys that cover a worker, how many its page names.
MOST_KEYS = 5
KEY_FIELDS = ("is_key_issued", "days")


class NewWorkerForm(InOrganizationForm):
    """What a worker is called, where it belongs, and whether it gets a key of its own."""

    parent = "queue"

    is_key_issued = forms.BooleanField(
        label="Issue a key of its own",
        initial=True,
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="It starts this worker and no other. It is shown once, on the next page.",
    )
    days = LifetimeField(label="Lifetime of the key in days", required=False)

    def clean(self) -> dict[str, Any]:
        """A key needs a lifetime."""
        cleaned = super().clean()
        if cleaned.get("is_key_issued") and cleaned.get("days") is None and "days" not in self.errors:
            self.add_error("days", "Say for how many days the key is valid.")
        return cleaned


class FirstBootPages(ConsoleAdmin):
    """The part of the workers' pages that makes one and watches how it comes up.

    In a popup, where a worker is made for another form, it is only made: its answer shows no key.
    """

    def get_form(self, request: HttpRequest, obj: Worker | None = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        return super().get_form(request, obj, change, **kwargs if obj else {**kwargs, "form": NewWorkerForm})

    def get_fieldsets(self, request: HttpRequest, obj: Worker | None = None) -> Any:
        """Connections are pointed to later, on the worker's own page."""
        if obj is not None:
            return super().get_fieldsets(request, obj)
        worker = (None, {"fields": ("queue", "name", "description", "labels")})
        return (worker,) if _is_popup(request) else (worker, ("API key", {"fields": KEY_FIELDS}))

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """One button: the answer shows the key, so there is nothing to continue."""
        only_save = {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **only_save})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        """Makes the worker and its key in one transaction; `response_add` then shows them."""
        super().save_model(request, obj, form, change)
        if change or _is_popup(request) or not form.cleaned_data["is_key_issued"]:
            return
        request.issued_api_key = issue_api_key(  # type: ignore[attr-defined]  # up to response_add, within one request
            obj,
            name=obj.name,
            actor=actor_of(request),
            now=times.now(),
            lifetime=timedelta(days=form.cleaned_data["days"]),
        )

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """The one page that shows the key; nothing stores it, so reloading cannot bring it back.

        It is made within the transaction: a key that cannot be shown is not issued.
        """
        if _is_popup(request):
            return super().response_add(request, obj, post_url_continue)
        issued = getattr(request, "issued_api_key", None)
        response = self._show(request, Worker.objects.with_chain().get(pk=obj.pk), issued, title="Worker created")
        response.headers["Cache-Control"] = "no-store"
        return response.render()

    def get_urls(self) -> list[Any]:
        """Adds the checklist, as a page and as the part of it that is fetched again and again."""
        wrap = self.admin_site.admin_view
        own = [
            path("<uuid:worker_id>/boot/", wrap(require_safe(self.boot_view)), name="workers_worker_boot"),
            path("<uuid:worker_id>/boot/steps/", wrap(require_safe(self.steps_view)), name="workers_worker_boot_steps"),
        ]
        return own + list(super().get_urls())

    def boot_view(self, request: HttpRequest, worker_id: UUID) -> HttpResponse:
        """How a worker is started, and how its latest start is going."""
        return self._show(request, self._worker(request, worker_id), None, title="First boot")

    def steps_view(self, request: HttpRequest, worker_id: UUID) -> HttpResponse:
        """The checklist alone."""
        checklist = checklist_of(self._worker(request, worker_id), times.now(), person=str(request.user.pk))
        return TemplateResponse(request, "admin/workers/worker/boot_steps.html", {"checklist": checklist})

    def _worker(self, request: HttpRequest, worker_id: UUID) -> Worker:
        mine = self.get_queryset(request).order_by().filter(pk=worker_id)
        return get_object_or_404(Worker.objects.with_chain(), pk__in=mine.values("pk"))

    def _show(self, request: HttpRequest, worker: Worker, issued: IssuedApiKey | None, title: str) -> TemplateResponse:
        now = times.now()
        shown = issued_key(issued) if issued else None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "worker": worker,
            "issued": shown,
            "issued_row": issued.row if issued else None,
            "commands": commands_for(worker, shown["api_key"] if shown else PLACEHOLDER),
            "placeholder": PLACEHOLDER,
            "keys": [] if issued else _usable_keys(worker, now),
            "original": worker,
            "checklist": checklist_of(worker, now, person=str(request.user.pk)),
        }
        return TemplateResponse(request, "admin/workers/worker/boot.html", context)


def _usable_keys(worker: Worker, now: datetime) -> list[ShownKey]:
    return [key for key in keys_covering(worker, now, MOST_KEYS) if key.row.is_usable(now)]


def _is_popup(request: HttpRequest) -> bool:
    return IS_POPUP_VAR in request.GET or IS_POPUP_VAR in request.POST
