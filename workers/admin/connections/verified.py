"""Pages of what can be verified: buttons that really connect, before a form is saved and after."""

from copy import copy
from http import HTTPStatus
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.messages import ERROR, SUCCESS
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.utils.safestring import SafeString

from environments import times
from environments.admin.console import actor_of
from environments.admin.error_page import error_page
from environments.connections.asking import VERIFYING, AskedTooOftenError, NotAskedError
from environments.connections.results import (
    NO_SECRET,
    Verifiable,
    accept_result,
    record_outcome,
    verify_stored,
    verify_typed,
)
from environments.connections.verification import Verification
from workers.admin.confirmation import ConfirmedAdmin
from workers.admin.links import link_to
from workers.admin.states import badge

#: The hidden field of a form that holds what its verification found, signed.
RESULT = "verification"
LINK = "A link verifies nothing: press Verify on the connection's page."
OTHER_ENDPOINT = "Type the API key to verify another endpoint: the stored one is sent to the stored endpoint only."
CHANGED_MEANWHILE = "The result was not kept, since somebody changed the connection meanwhile: verify it again."


class VerifiedFilter(admin.SimpleListFilter):
    """Rows by what their last verification found."""

    title = "verified"
    parameter_name = "verified"
    conditions = {
        "yes": Q(verified_at__isnull=False, verification_problem=""),
        "no": ~Q(verification_problem=""),
        "never": Q(verified_at=None),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [("yes", "Ok"), ("no", "Failing"), ("never", "Never")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        condition = self.conditions.get(self.value() or "")
        return queryset.filter(condition) if condition else queryset


class VerifiedAdmin(ConfirmedAdmin):
    """A page of an endpoint: it is verified by a button, as it is stored and as it is typed.

    A stored API key leaves for the stored endpoint only. What is typed is not stored by its verification; what that
    found waits, signed, in the form, and is stored when just this is saved.
    """

    change_form_after_template = "admin/workers/connection/verify_typed.html"

    @admin.display(description="verified", ordering="verified_at")
    def verified(self, row: Verifiable) -> SafeString:
        return verified_badge(row)

    def get_urls(self) -> list[Any]:
        """Adds the addresses of the buttons."""
        name, wrap = f"{self.opts.app_label}_{self.opts.model_name}", self.admin_site.admin_view
        own = [
            path("verify/", wrap(self.verify_new_view), name=f"{name}_verify_new"),
            path("<path:object_id>/verify/", wrap(self.verify_view), name=f"{name}_verify"),
            path("<path:object_id>/verify/typed/", wrap(self.verify_typed_view), name=f"{name}_verify_typed"),
        ]
        return own + list(super().get_urls())

    def verify_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Verifies what is stored, keeps what was found, and returns to the page."""
        row = self._row(request, object_id)
        if request.method != "POST":
            return _not_verified(request, HTTPStatus.METHOD_NOT_ALLOWED, LINK)
        try:
            with VERIFYING.of(str(request.user.pk)):
                verification, is_kept = verify_stored(row, actor=actor_of(request))
        except NotAskedError as error:
            return _with_wait(_not_verified(request, _status_of(error), str(error)), error)
        self.message_user(request, _told(verification), SUCCESS if verification.is_ok else ERROR)
        if not is_kept:
            self.message_user(request, CHANGED_MEANWHILE, ERROR)
        return redirect(link_to(row).address)

    def verify_typed_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Verifies what is typed into the form of a row; answers with a part of a page."""
        stored = self._row(request, object_id)
        form = self.get_form(request, stored, change=True)(request.POST, instance=copy(stored))
        return self._try_form(request, form, stored)

    def verify_new_view(self, request: HttpRequest) -> HttpResponse:
        """Verifies what is typed into the form of a new row; answers with a part of a page."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return self._try_form(request, self.get_form(request)(request.POST), None)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        """With what the verification of just this found; the API key has to be sealed by now."""
        actor, secret = actor_of(request), getattr(form, "secret", None) or NO_SECRET
        is_verified = accept_result(request.POST.get(RESULT, ""), obj, secret, actor=actor)
        super().save_model(request, obj, form, change)
        if is_verified:
            record_outcome(obj, obj.verification_problem, actor=actor, now=times.now())

    def _row(self, request: HttpRequest, object_id: str) -> Any:
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        return row

    def _try_form(self, request: HttpRequest, form: Any, stored: Verifiable | None) -> HttpResponse:
        if request.method != "POST":
            return _part(request, HTTPStatus.METHOD_NOT_ALLOWED, problem=LINK)
        if problem := self._problem_with(form):
            return _part(request, problem=problem)
        try:
            with VERIFYING.of(str(request.user.pk)):
                return self._verify_form(request, form, stored)
        except NotAskedError as error:
            return _with_wait(_part(request, _status_of(error), problem=str(error)), error)

    def _verify_form(self, request: HttpRequest, form: Any, stored: Verifiable | None) -> HttpResponse:
        row, secret = form.instance, getattr(form, "secret", None)
        if stored and not secret and _endpoint_of(row) == _endpoint_of(stored):
            verification, is_kept = verify_stored(stored, actor=actor_of(request))
            return _part(request, told=_told(verification), is_ok=verification.is_ok, is_kept=is_kept)
        if not secret and getattr(row, "requires_api_key", False):
            return _part(request, problem=OTHER_ENDPOINT)
        verification, result = verify_typed(row, secret or NO_SECRET, actor=actor_of(request))
        return _part(request, told=_told(verification), is_ok=verification.is_ok, result=result)

    def _problem_with(self, form: Any) -> str:
        """What is wrong with the fields that a verification needs; the others may still be empty."""
        form.is_valid()
        for name in ("organization", *self.model.ENDPOINT, "api_key"):
            for message in form.errors.get(name, []):
                return f"{form.fields[name].label or name}: {message}"
        return ""


def verified_badge(row: Verifiable) -> SafeString:
    """What the last verification found of what is stored now."""
    if row.verified_at is None or row.verified_revision != row.endpoint_revision:
        return badge("never", "")
    return badge("failing", "danger") if row.verification_problem else badge("ok", "success")


def _endpoint_of(row: Verifiable) -> list[Any]:
    return [getattr(row, name) for name in row.ENDPOINT]


def _not_verified(request: HttpRequest, status: int, problem: str) -> HttpResponse:
    return error_page(request, status, "Not verified", problem)


def _status_of(error: NotAskedError) -> int:
    is_too_often = isinstance(error, AskedTooOftenError)
    return HTTPStatus.TOO_MANY_REQUESTS if is_too_often else HTTPStatus.SERVICE_UNAVAILABLE


def _with_wait(response: HttpResponse, error: NotAskedError) -> HttpResponse:
    response.headers["Retry-After"] = str(error.seconds)
    return response


def _told(verification: Verification) -> str:
    if not verification.is_ok:
        return f"Verification failed: {verification.problem}"
    details = f" {verification.details.rstrip('.')}." if verification.details else ""
    return f"Verified in {verification.latency_ms} ms.{details}"


def _part(request: HttpRequest, status: int = HTTPStatus.OK, **told: Any) -> HttpResponse:
    return render(request, "admin/workers/connection/outcome.html", told, status=status)
