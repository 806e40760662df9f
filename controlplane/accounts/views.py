"""The pages before the console: login, second factor, passkey, logout."""

import logging
from http import HTTPStatus
from typing import Any

from allauth.account.internal.flows.logout import logout
from allauth.account.views import LoginView as AllauthLoginView
from allauth.core import ratelimit
from allauth.mfa.base.views import AuthenticateView
from allauth.mfa.webauthn.internal import auth as webauthn
from allauth.mfa.webauthn.views import LoginWebAuthnView
from django.conf import settings
from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from controlplane.accounts.forms import PASSKEY_NOT_ACCEPTED, CodeForm, PasskeyForm, PasskeyLoginForm, PasswordLoginForm
from controlplane.accounts.memory import remember_briefly
from controlplane.accounts.pages import Page, layout, no_access
from controlplane.accounts.throttling import too_many_attempts
from environments import audit
from environments.admin.console import actor_of

logger = logging.getLogger(__name__)


class LoginView(Page, AllauthLoginView):
    """Username and password; passkey and single sign-on beside them."""

    form_class = PasswordLoginForm
    template_name = "account/login.html"
    title = "Log in"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_authenticated and not admin.site.has_permission(request):
            return no_access(request)  # back to where they came from, they would be led here again
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(single_sign_on=settings.OIDC_NAME, **kwargs)


class SecondFactorView(Page, AuthenticateView):
    """The second step of a login, for whoever has a second factor."""

    form_class = CodeForm
    webauthn_form_class = PasskeyForm
    template_name = "account/second_factor.html"
    title = "Second factor"

    def form_invalid(self, form: Any) -> HttpResponse:
        logger.warning("second factor failed: %s", self.stage.login.user.get_username())
        return super().form_invalid(form)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        own = super().get_context_data(**kwargs)
        types = self.stage.login.user.authenticator_set.values_list("type", flat=True)
        return {**own, "types": set(types)}


class PasskeyLoginView(LoginWebAuthnView):
    """A passkey instead of username, password and second factor: one POST for the challenge, one with the answer."""

    form_class = PasskeyLoginForm

    def get(self, *_args: Any, **_kwargs: Any) -> HttpResponse:
        return HttpResponseRedirect(reverse("account_login"))

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if "credential" not in request.POST:
            remember_briefly(request)
            return JsonResponse({"request_options": webauthn.begin_authentication()})
        return super().post(request, *args, **kwargs)

    def form_invalid(self, form: Any) -> HttpResponse:  # noqa: ARG002  # the reason says nothing to a person
        logger.warning("passkey refused: from %s", self.request.META.get("REMOTE_ADDR"))
        messages.error(self.request, PASSKEY_NOT_ACCEPTED)
        return HttpResponseRedirect(reverse("account_login"))


@never_cache
@csrf_protect
@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    """Ends the session, also that of somebody who is not of the staff or gave up at the second factor."""
    logout(request, show_message=False)
    return render(request, "registration/logged_out.html", layout(request, "Logged out"))


@never_cache
def change_password(request: HttpRequest) -> HttpResponse:
    """Django's page for the own password, with a limit on guesses and a record of the change."""
    if request.method == "POST" and not ratelimit.consume(request, action="change_password"):
        return too_many_attempts(request)
    with transaction.atomic():
        response: HttpResponse = admin.site.password_change(request)
        if request.method == "POST" and response.status_code == HTTPStatus.FOUND:
            audit.record("user.password_changed", request.user, actor=actor_of(request), now=timezone.now())  # type: ignore[arg-type]  # admin_view lets nobody anonymous in
    return response
