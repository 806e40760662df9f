"""The list and the pages of API keys; a key is shown once, in the answer that made it."""

from datetime import timedelta
from http import HTTPMethod
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from environments import times
from environments.admin.console import ConsoleAdmin, actor_of
from environments.models import Organization, Role
from workers.admin.api_keys.calendar import calendar_of
from workers.admin.api_keys.forms import TARGETS, IssueForm, RevokeForm, RotateForm, WhoseForm
from workers.admin.api_keys.key_page import context_of, uses_of
from workers.admin.api_keys.listing import ExpiryDayFilter, KeyColumns, KeyList, StateFilter
from workers.admin.api_keys.whose import key_in
from workers.admin.confirmation import CONFIRMED, replayed
from workers.api_keys.issuing import (
    ApiKeyError,
    IssuedApiKey,
    issue_api_key,
    issued_key,
    revoke_api_key,
    rotate_api_key,
)
from workers.api_keys.tokens import UUID_TEXT
from workers.installation.queue import SCALERS, DeploymentType, worker_command
from workers.models import ApiKey, KeyRole, Scope, Worker

#: Beyond it the question whether to reach a whole organization tells only that there are more.
MOST_COUNTED = 100_000


@admin.register(ApiKey)
class ApiKeyAdmin(KeyColumns, ConsoleAdmin):
    """API keys; the key itself is stored nowhere."""

    empty = "Workers start with an API key, for one of them, a worker queue, an environment or an organization."
    adding = "Issue an API key"
    writer_role = Role.OPERATOR
    list_display = (
        "shown_name",
        "tenant",
        "shown_scope",
        "shown_role",
        "shown_target",
        "state",
        "last_used",
        "expires",
        "created_by",
    )
    list_select_related = ("worker", "queue__environment", "environment")
    list_filter = (StateFilter, "scope", "role", ExpiryDayFilter)
    list_before_template = "admin/workers/apikey/finder.html"
    ordering = ("-created_at",)
    search_fields = ("name", "=id", "organization__id", "=worker__id", "=queue__id")
    autocomplete_fields = TARGETS
    #: Without script all four are shown, and the scope says which one counts.
    conditional_fields: ClassVar[dict[str, str]] = {target: f"scope == '{target}'" for target in TARGETS}
    change_form_outer_before_template = "admin/workers/apikey/page.html"

    def name_of(self, row: ApiKey) -> str:
        return f"{row.organization_id}/{row.name}"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeyList]:  # noqa: ARG002
        return KeyList

    def get_queryset(self, request: HttpRequest) -> Any:
        """On a key's page with what it is for, what it replaces and what replaces it."""
        rows = super().get_queryset(request)
        is_page = getattr(request.resolver_match, "url_name", "").endswith(("_change", "_rotate", "_revoke"))
        return rows.select_related(*self.list_select_related, "replaced_by", "replaces") if is_page else rows

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        return super().get_form(request, obj, change, **kwargs if obj else {**kwargs, "form": IssueForm})

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:  # noqa: ARG002
        """The form to issue a key; nothing of one can be edited, so its page has no form."""
        asked = ("name", "scope", *TARGETS, "role", "days", "no_expiry_reason")
        return [] if obj else [(None, {"fields": asked})]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """`?worker=<id>` and the like choose what the key is for."""
        for target in TARGETS:
            given = request.GET.get(target, "")
            is_id = len(given) <= 63 if target == "organization" else UUID_TEXT.fullmatch(given)  # noqa: PLR2004  # a slug
            if given and is_id and "\x00" not in given:
                return {"scope": target, target: given}
        return {}

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:  # noqa: ARG002
        """Nothing of a key can be edited; it is rotated or revoked."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:  # noqa: ARG002
        """A key is revoked, never deleted: the ledger names it."""
        return False

    def get_urls(self) -> list[Any]:
        """Adds the pages that rotate and revoke, the calendar, and the search for a key that was found."""
        wrap = self.admin_site.admin_view
        own = [
            path("calendar/", wrap(self.calendar_view), name="workers_apikey_calendar"),
            path("whose/", wrap(self.whose_view), name="workers_apikey_whose"),
            path("<uuid:key_id>/rotate/", wrap(self.rotate_view), name="workers_apikey_rotate"),
            path("<uuid:key_id>/revoke/", wrap(self.revoke_view), name="workers_apikey_revoke"),
        ]
        return own + list(super().get_urls())

    # --- One key ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Adds what the key is used for; nobody changes one, so what is sent is refused without a look at it."""
        is_shown = request.method != HTTPMethod.POST and UUID_TEXT.fullmatch(object_id)
        key = self.get_queryset(request).filter(pk=object_id).first() if is_shown else None
        context = context_of(key, times.now()) if key else {}
        context |= {"may_write": key is not None and self.may(request, self.writer_role, key)}
        if key is not None:
            context["may_rotate"] &= self._may_hand_out(request, key.role, key.scope, key)
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})

    def rotate_view(self, request: HttpRequest, key_id: Any) -> HttpResponse:
        """Asks for the grace period on GET; makes the successor and shows it on POST."""
        key = self._key(request, key_id)
        if not self._may_hand_out(request, key.role, key.scope, key):
            raise PermissionDenied
        form = RotateForm(request.POST or None)
        if form.is_valid():
            try:
                return self._rotate(request, key, timedelta(hours=form.cleaned_data["grace_hours"]))
            except ApiKeyError as error:
                form.add_error(None, str(error))
        uses = uses_of(key, times.now())
        return self._page(request, "rotate", original=key, form=form, title="Rotate API key", **uses)

    @transaction.atomic
    def _rotate(self, request: HttpRequest, key: ApiKey, grace_period: timedelta) -> HttpResponse:
        issued = rotate_api_key(key.pk, actor=actor_of(request), now=times.now(), grace_period=grace_period)
        return self._show_once(request, issued, replaced=self.get_queryset(request).get(pk=key.pk))

    def revoke_view(self, request: HttpRequest, key_id: Any) -> HttpResponse:
        """Tells who would be cut off and asks for the reason on GET; revokes on POST."""
        key = self._key(request, key_id)
        uses = uses_of(key, times.now())
        form = RevokeForm(request.POST or None, live_workers=uses["reach"].workers if uses["is_usable"] else 0)
        if form.is_valid():
            reason = form.cleaned_data["reason"]
            is_revoked = revoke_api_key(key.pk, reason=reason, actor=actor_of(request), now=times.now())
            self.message_user(
                request, f"API key {key} is revoked." if is_revoked else f"API key {key} was revoked before."
            )
            return redirect(reverse("admin:workers_apikey_change", args=[key.pk]))
        return self._page(request, "revoke", original=key, form=form, title="Revoke API key", **uses)

    def _key(self, request: HttpRequest, key_id: Any) -> ApiKey:
        self._require_reader(request)
        key: ApiKey = get_object_or_404(self.get_queryset(request), pk=key_id)
        if not self.may(request, self.writer_role, key):
            raise PermissionDenied
        return key

    def _may_hand_out(self, request: HttpRequest, role: str, scope: str, row: Any) -> bool:
        """Whether the person may do all that whoever has such a key may: nobody is given more by way of a key."""
        manages_more = role == KeyRole.MANAGER and scope != Scope.QUEUE
        return self.may(request, Role.ADMINISTRATOR if manages_more else self.writer_role, row)

    def _require_reader(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    # --- A new key ---

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """One button: the answer shows the key, so there is nothing to continue."""
        only_save = {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **only_save})

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:  # noqa: ARG002, FBT001
        """Issues the key, unless it is for a whole organization and nobody has confirmed that; see `response_add`."""
        cleaned = form.cleaned_data
        target = cleaned[cleaned["scope"]]
        request.unconfirmed, request.issued_api_key = None, None  # type: ignore[attr-defined]  # up to response_add
        if not self._may_hand_out(request, cleaned["role"], cleaned["scope"], target):
            raise PermissionDenied
        if isinstance(target, Organization) and request.POST.get(CONFIRMED) != target.pk:
            request.unconfirmed = target  # type: ignore[attr-defined]  # as above
            return
        issued = issue_api_key(
            target,
            name=cleaned["name"],
            actor=actor_of(request),
            now=times.now(),
            lifetime=timedelta(days=cleaned["days"]) if cleaned["days"] else None,
            no_expiry_reason=cleaned["no_expiry_reason"],
            role=cleaned["role"],
        )
        obj.__dict__.update(issued.row.__dict__)
        request.issued_api_key = issued  # type: ignore[attr-defined]  # as above

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:  # noqa: ARG002
        """Shows the key, or asks whether it is to be one for a whole organization; called within the transaction."""
        if request.unconfirmed:  # type: ignore[attr-defined]  # see save_model
            response = self._ask_for_organization(request, request.unconfirmed)  # type: ignore[attr-defined]  # see save_model
            transaction.set_rollback(True)
            return response
        return self._show_once(request, request.issued_api_key)  # type: ignore[attr-defined]  # see save_model

    def _ask_for_organization(self, request: HttpRequest, organization: Organization) -> HttpResponse:
        workers = Worker.objects.filter(organization=organization).order_by()[: MOST_COUNTED + 1].count()
        context = {
            "organization": organization,
            "mark": organization.pk,
            "workers": workers,
            "is_more": workers > MOST_COUNTED,
            "most": MOST_COUNTED,
            "fields": replayed(request),
            "key_name": request.POST.get("name", ""),
            "is_manager": request.POST.get("role") == KeyRole.MANAGER,
        }
        return self._page(request, "confirm", title="A key for a whole organization?", **context)

    def _show_once(self, request: HttpRequest, issued: IssuedApiKey, *, replaced: ApiKey | None = None) -> HttpResponse:
        """The one page that shows the key; nothing stores it, so reloading cannot bring it back.

        It is made within the transaction: a key that cannot be shown is not issued.
        """
        row = issued.row
        context = {
            "issued": issued_key(issued),
            "row": row,
            "replaced": replaced,
            "is_for_worker": row.scope == Scope.WORKER,
            "control_plane_url": settings.CONTROL_PLANE_URL,
        }
        if row.scope == Scope.QUEUE:
            deployments = [kind.value for kind in DeploymentType if kind not in SCALERS]
            context |= {"worker_command": worker_command(row.queue).command, "deployments": deployments}  # type: ignore[arg-type]  # of queue scope
        response = self._page(request, "issued", title="API key issued", **context)
        response.headers["Cache-Control"] = "no-store"
        return response.render()

    # --- Pages beside ---

    def calendar_view(self, request: HttpRequest) -> HttpResponse:
        """What expires when."""
        self._require_reader(request)
        context = calendar_of(request, self.get_queryset(request).select_related(*self.list_select_related))
        return self._page(request, "calendar", title="Expiry calendar", **context)

    @method_decorator(sensitive_post_parameters("text"))
    def whose_view(self, request: HttpRequest) -> HttpResponse:
        """Whose a key is that was found somewhere; neither page nor address shows it again."""
        self._require_reader(request)
        form = WhoseForm(request.POST or None)
        if form.is_valid():
            key = key_in(form.cleaned_data["text"], self.get_queryset(request))
            if key is not None:
                self.message_user(request, "This is the key. Whoever saw it can use it: rotate it, then revoke it.")
                return redirect(reverse("admin:workers_apikey_change", args=[key.pk]))
            form.add_error("text", "There is no API key of your organizations in this text.")
        return self._page(request, "whose", title="Whose key is this?", form=form)

    def _page(self, request: HttpRequest, name: str, **context: Any) -> TemplateResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        return TemplateResponse(request, f"admin/workers/apikey/{name}.html", context)
