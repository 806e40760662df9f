"""The login's routes below /admin/, under the names that allauth looks for; nothing else of allauth's is mounted."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.urls import path

from controlplane.accounts import factors, identities, joining, views


def staff(view: Callable[..., Any]) -> Callable[..., Any]:
    """For whoever may enter the console; others are led to the login."""
    return admin.site.admin_view(view)


urlpatterns = [
    path("login/", views.LoginView.as_view(), name="account_login"),
    path("logout/", views.log_out, name="account_logout"),
    path("password_change/", staff(views.change_password)),
    path("account/", staff(factors.OverviewView.as_view()), name="mfa_index"),
    path("account/invitation/", joining.InvitationView.as_view(), name="account_invitation"),
    path("account/second-factor/", views.SecondFactorView.as_view(), name="mfa_authenticate"),
    path("account/passkey/", views.PasskeyLoginView.as_view(), name="mfa_login_webauthn"),
    path("account/confirm/password/", staff(factors.PasswordAgainView.as_view()), name="account_reauthenticate"),
    path("account/confirm/code/", staff(factors.CodeAgainView.as_view()), name="mfa_reauthenticate"),
    path("account/confirm/passkey/", staff(factors.PasskeyAgainView.as_view()), name="mfa_reauthenticate_webauthn"),
    path("account/app/add/", staff(factors.ActivateAppView.as_view()), name="mfa_activate_totp"),
    path("account/app/remove/", staff(factors.DeactivateAppView.as_view()), name="mfa_deactivate_totp"),
    path("account/passkeys/add/", staff(factors.AddPasskeyView.as_view()), name="mfa_add_webauthn"),
    path("account/passkeys/<int:pk>/remove/", staff(factors.RemovePasskeyView.as_view()), name="mfa_remove_webauthn"),
    path("account/recovery-codes/new/", staff(factors.GenerateCodesView.as_view()), name="mfa_generate_recovery_codes"),
]
if settings.OIDC_NAME:
    provider = {"provider_id": identities.PROVIDER_ID}
    urlpatterns += [
        path("account/oidc/", identities.start, provider, name="openid_connect_login"),
        path("account/oidc/callback/", identities.callback, provider, name="openid_connect_callback"),
    ]
