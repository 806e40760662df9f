"""The pages of one's own second factors: overview, authenticator app, passkeys, recovery codes, and proving oneself."""

from typing import Any

from allauth.account.views import ReauthenticateView
from allauth.mfa import app_settings
from allauth.mfa.base.views import IndexView
from allauth.mfa.base.views import ReauthenticateView as ReauthenticateByCodeView
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.views import GenerateRecoveryCodesView
from allauth.mfa.totp.views import ActivateTOTPView, DeactivateTOTPView
from allauth.mfa.webauthn.views import AddWebAuthnView, ReauthenticateWebAuthnView, RemoveWebAuthnView
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse_lazy
from django.utils import timezone

from controlplane.accounts.forms import (
    PASSKEY_NOT_ACCEPTED,
    SEALED_SEED,
    ActivateAppForm,
    AddPasskeyForm,
    PasswordForm,
    ReauthenticateCodeForm,
    ReauthenticatePasskeyForm,
)
from controlplane.accounts.pages import Page, layout
from environments import audit
from environments.admin.console import actor_of

KINDS = {
    Authenticator.Type.TOTP: "authenticator app",
    Authenticator.Type.RECOVERY_CODES: "recovery codes",
    Authenticator.Type.WEBAUTHN: "passkey",
}


def describe(row: Authenticator) -> str:
    """A factor as the audit trail tells of it, such as `passkey: laptop`."""
    name = f": {row.data['name']}" if row.type == Authenticator.Type.WEBAUTHN else ""
    return f"{KINDS[row.type]}{name}"


def codes_left(rows: list[Authenticator]) -> int:
    """How many recovery codes were not used; tells it without opening them."""
    return sum(app_settings.RECOVERY_CODE_COUNT - int(row.data["used_mask"]).bit_count() for row in rows)


class Recorded(Page):
    """A form that changes one's factors: what it added and removed goes on record, in one transaction with it."""

    success_url = reverse_lazy("mfa_index")

    def get_success_url(self) -> str:
        return str(self.success_url)

    def form_valid(self, form: Any) -> HttpResponse:
        with transaction.atomic():
            before = self._factors()
            response: HttpResponse = super().form_valid(form)
            after = self._factors()
            for pk in sorted(after.keys() - before.keys()):
                self._record("user.second_factor_added", [None, describe(after[pk])])
            for pk in sorted(before.keys() - after.keys()):
                self._record("user.second_factor_removed", [describe(before[pk]), None])
        new = [after[pk] for pk in after.keys() - before.keys() if after[pk].type == Authenticator.Type.RECOVERY_CODES]
        return self._show(new[0]) if new else response

    def _factors(self) -> dict[int, Authenticator]:
        return {row.pk: row for row in Authenticator.objects.filter(user_id=self.request.user.pk)}

    def _record(self, action: str, change: list[Any]) -> None:
        actor, now = actor_of(self.request), timezone.now()
        audit.record(action, self.request.user, actor=actor, now=now, changes={"second_factor": change})  # type: ignore[arg-type]  # these pages let nobody anonymous in

    def _show(self, row: Authenticator) -> HttpResponse:
        """New recovery codes, in this one answer and never again."""
        context = {**layout(self.request, "Recovery codes"), "codes": row.wrap().get_unused_codes()}
        response = render(self.request, "account/recovery_codes.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response


class OverviewView(Page, IndexView):
    """What one signs in with."""

    template_name = "account/overview.html"
    title = "Login and security"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        factors = Authenticator.objects.filter(user_id=self.request.user.pk).order_by("created_at")
        by_type: dict[str, list[Authenticator]] = {}
        for row in factors:
            by_type.setdefault(row.type, []).append(row)
        has_second_factor = bool(by_type.keys() & {Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN})
        return super().get_context_data(
            **kwargs,
            app=by_type.get(Authenticator.Type.TOTP, [None])[0],
            passkeys=by_type.get(Authenticator.Type.WEBAUTHN, []),
            codes_left=codes_left(by_type.get(Authenticator.Type.RECOVERY_CODES, [])),
            has_second_factor=has_second_factor,
            is_required=settings.REQUIRE_SECOND_FACTOR and not has_second_factor,
            identity=SocialAccount.objects.filter(user_id=self.request.user.pk).first(),
            single_sign_on=settings.OIDC_NAME,
        )


class ActivateAppView(Recorded, ActivateTOTPView):
    """Adds an authenticator app: scan, then prove it by a code."""

    form_class = ActivateAppForm
    template_name = "account/activate_app.html"
    title = "Add an authenticator app"

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        self.request.session.pop(SEALED_SEED, None)
        return response


class DeactivateAppView(Recorded, DeactivateTOTPView):
    """Removes the authenticator app."""

    template_name = "account/confirm.html"
    title = "Remove the authenticator app"
    extra_context = {"question": "Codes of this app will no longer be accepted.", "button": "Remove"}


class AddPasskeyView(Recorded, AddWebAuthnView):
    """Adds a passkey or security key."""

    form_class = AddPasskeyForm
    template_name = "account/add_passkey.html"
    title = "Add a passkey"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        # allauth drops the form that was posted, and its errors with it.
        form = kwargs.get("form") or self.get_form()
        return {**super().get_context_data(**kwargs), "form": form}


class RemovePasskeyView(Recorded, RemoveWebAuthnView):
    """Removes a passkey."""

    template_name = "account/confirm.html"
    title = "Remove the passkey"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        question = f"The passkey {self.object.data['name']} will no longer be accepted."
        return super().get_context_data(question=question, button="Remove", **kwargs)


class GenerateCodesView(Recorded, GenerateRecoveryCodesView):
    """Makes new recovery codes; the old ones end."""

    template_name = "account/confirm.html"
    title = "New recovery codes"
    extra_context = {
        "question": "Recovery codes that you have now will no longer be accepted.",
        "button": "Make new codes",
    }


class PasswordAgainView(Page, ReauthenticateView):
    """The password, before something sensitive."""

    form_class = PasswordForm
    template_name = "account/reauthenticate.html"
    title = "Confirm that it is you"


class CodeAgainView(Page, ReauthenticateByCodeView):
    """A code, before something sensitive."""

    form_class = ReauthenticateCodeForm
    template_name = "account/reauthenticate.html"
    title = "Confirm that it is you"


class PasskeyAgainView(Page, ReauthenticateWebAuthnView):
    """A passkey, before something sensitive."""

    form_class = ReauthenticatePasskeyForm
    template_name = "account/reauthenticate.html"
    title = "Confirm that it is you"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return {**super().get_context_data(**kwargs), "is_passkey": True}

    def form_invalid(self, form: Any) -> HttpResponse:  # noqa: ARG002
        messages.error(self.request, PASSKEY_NOT_ACCEPTED)
        return HttpResponseRedirect(self.request.get_full_path())
