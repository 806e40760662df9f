"""Single sign-on by OpenID Connect: whoever comes must be a user here already, known by link or by verified e-mail."""

import logging
from typing import Any, NoReturn

import requests
from allauth.account.internal.decorators import login_not_required
from allauth.core import ratelimit
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter, _build_apps_from_settings
from allauth.socialaccount.internal import jwtkit
from allauth.socialaccount.models import SocialApp, SocialLogin
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_GET, require_POST

from controlplane.accounts.memory import remember_briefly
from controlplane.accounts.pages import layout, refusal
from controlplane.accounts.throttling import too_many_attempts
from environments import audit
from environments.audit import Actor

logger = logging.getLogger(__name__)

PROVIDER_ID = "oidc"
#: What a provider may send that is no OpenID Connect; allauth takes it apart without asking.
MALFORMED = (AttributeError, ImproperlyConfigured, LookupError, TypeError, ValueError)
#: What is kept of what the provider tells.
CLAIMS = ("sub", "email", "email_verified", "preferred_username", "name")


class IdentityAdapter(DefaultSocialAccountAdapter):
    """Who may come by single sign-on."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:  # noqa: ARG002
        return False

    def list_apps(self, request: HttpRequest, provider: Any = None, client_id: Any = None) -> list[SocialApp]:  # noqa: ARG002
        """The settings' only: a provider in the database could be anybody's who can write there."""
        found = _build_apps_from_settings(provider=provider, client_id=client_id)
        return [app for apps in found.values() for app in apps]

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Links a person who comes for the first time; refuses whoever is nobody here."""
        if sociallogin.is_existing:
            return
        user = user_of(sociallogin)
        if user is None:
            logger.warning("single sign-on refused: nobody here has the verified e-mail address of this identity")
            message = (
                "Nobody here has your e-mail address, or your provider has not verified it. "
                "Accounts are made by an administrator, with the address that the provider knows."
            )
            raise ImmediateHttpResponse(refusal(request, 403, "No account here", message))
        link(sociallogin, user, request=request)

    def on_authentication_error(self, request: HttpRequest, provider: Any, **details: Any) -> NoReturn:  # noqa: ARG002
        reason = details.get("exception") or details.get("error")
        logger.warning("single sign-on failed: %s", type(reason).__name__ if isinstance(reason, Exception) else reason)
        raise ImmediateHttpResponse(failure(request))


def user_of(sociallogin: SocialLogin) -> User | None:
    """The one member of the staff with the e-mail address that the provider has verified."""
    claims = sociallogin.account.extra_data
    email = claims.get("email")
    if not isinstance(email, str) or not email or "\0" in email or claims.get("email_verified") is not True:
        return None
    found = User.objects.filter(email__iexact=email, is_active=True, is_staff=True)[:2]
    return found[0] if len(found) == 1 else None


@transaction.atomic
def link(sociallogin: SocialLogin, user: User, *, request: HttpRequest) -> None:
    """From now on this identity is this user, whatever its e-mail address becomes."""
    sociallogin.connect(request, user)
    actor = Actor(f"user:{user.get_username()}", request.META.get("REMOTE_ADDR") or None)
    changes = {"identity": [None, sociallogin.account.uid]}
    audit.record("user.identity_linked", user, actor=actor, now=timezone.now(), changes=changes)


class IdentityProvider(OpenIDConnectOAuth2Adapter):
    """The provider. Its ID token is demanded, and its signature checked even though it came over TLS."""

    def complete_login(self, request: HttpRequest, app: SocialApp, token: Any, **kwargs: Any) -> SocialLogin:
        try:
            login = super().complete_login(request, app, token, **kwargs)
            told = login.account.extra_data
            identity, info = told["id_token"], told.get("userinfo") or {}
            # OpenID Connect Core 1.0, section 5.3.2: otherwise another person's userinfo could be slipped in.
            if info.get("sub", identity["sub"]) != identity["sub"]:
                msg = "userinfo is of another subject"
                raise OAuth2Error(msg)
            login.account.extra_data = {name: value for name, value in (identity | info).items() if name in CLAIMS}
        except MALFORMED as error:
            msg = "the provider's answer is malformed"
            raise OAuth2Error(msg) from error
        return login

    def _decode_id_token(self, app: SocialApp, id_token: str) -> dict[str, Any]:
        claims: dict[str, Any] = jwtkit.verify_and_decode(
            credential=id_token,
            keys_url=self.openid_config["jwks_uri"],
            issuer=self.openid_config["issuer"],
            audience=app.client_id,
            lookup_kid=jwtkit.lookup_kid_jwk,
        )
        return claims


@never_cache
@login_not_required
@require_POST
@csrf_protect
def start(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Sends the browser to the provider; by a page, since form-action 'self' stops a form's redirect elsewhere, too."""
    if not ratelimit.consume(request, action="single_sign_on"):
        return too_many_attempts(request)
    remember_briefly(request)
    only_next = QueryDict(mutable=True)
    only_next["next"] = request.POST.get("next", "")
    # allauth would take its process, scope and more from there.
    request.GET = request.POST = QueryDict(only_next.urlencode())
    try:
        response = OAuth2LoginView.adapter_view(IdentityProvider(request, provider_id))(request)
    except (OAuth2Error, requests.RequestException, *MALFORMED) as error:
        logger.warning("single sign-on failed: the provider is not available: %s", type(error).__name__)
        return refusal(request, 502, "Single sign-on is not available", "Try again in a moment, or use your password.")
    if isinstance(response, HttpResponseRedirect):
        context = {**layout(request, "Single sign-on"), "url": response.url}
        return render(request, "account/leaving.html", context)
    return response


@never_cache
@login_not_required
@require_GET
def callback(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Where the provider sends the browser back to."""
    try:
        return OAuth2CallbackView.adapter_view(IdentityProvider(request, provider_id))(request)
    except MALFORMED as error:
        logger.warning("single sign-on failed: %s", type(error).__name__)
        return failure(request)


def failure(request: HttpRequest) -> HttpResponse:
    """Cancelled, expired, forged, or the provider's fault: each leads back to the login."""
    return refusal(request, 403, "Single sign-on failed", "You are not signed in. Go back to the login and try again.")
