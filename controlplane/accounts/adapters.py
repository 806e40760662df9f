"""What allauth asks us: who passes, what is counted, where secrets are sealed, and that nobody signs up."""

import logging
import secrets
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.internal.stagekit import clear_login
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from controlplane.accounts import devices, sealing
from controlplane.accounts.pages import no_access
from controlplane.accounts.throttling import count_attempt
from controlplane.serving.proxies import network_of
from environments import audit
from environments.admin.console import actor_of

logger = logging.getLogger(__name__)


class AccountAdapter(DefaultAccountAdapter):
    """Passwords and logins."""

    error_messages = DefaultAccountAdapter.error_messages | {
        "username_password_mismatch": "Please enter the correct username and password. Both may be case-sensitive.",
        "incorrect_password": "This is not your password.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def is_ajax(self, request: HttpRequest) -> bool:  # noqa: ARG002
        """Never: the pages are forms, and an answer for scripts would be a second way in to look after."""
        return False

    def is_safe_url(self, url: str) -> bool:
        """Whether a login may lead there: to a path of this host only."""
        return url.startswith("/") and url_has_allowed_host_and_scheme(url, allowed_hosts=None)

    def get_client_ip(self, request: HttpRequest) -> str:
        """What ProxyMiddleware found; clients whose address nobody knows are not counted as one."""
        return str(request.META["REMOTE_ADDR"]) if network_of(request) else f"unknown-{secrets.token_hex(8)}"

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Counts by what allauth does not know. By name only, not by the Host, which anybody can make up."""
        name = str(credentials.get("username", "")).lower()
        self._login_failed_rl_usage = count_attempt(request, name, subject=name, action="login_failed_by_name")

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        """A log line, no row: an anonymous person must not fill the database.

        Names that are nobody's stay out of the log, since people type passwords into the wrong field.
        """
        name = str(credentials.get("username", ""))
        address = request.META["REMOTE_ADDR"]
        is_known = get_user_model().objects.filter(username=name).exists()
        logger.warning(
            "login failed: %s from %s", name if is_known else "unknown user", address or "an unknown address"
        )

    def pre_login(self, request: HttpRequest, user: User, **_kwargs: Any) -> HttpResponse | None:
        """Only the console's staff gets a session."""
        if user.is_active and user.is_staff:
            return None
        clear_login(request)
        logger.warning("login refused: %s is not of the console's staff", user.get_username())
        return no_access(request)

    def post_login(self, request: HttpRequest, user: User, **kwargs: Any) -> HttpResponse:
        """From now on, failures of others do not keep this browser out."""
        response: HttpResponse = super().post_login(request, user, **kwargs)
        devices.remember(response, user)
        return response

    @transaction.atomic
    def login(self, request: HttpRequest, user: User) -> None:
        """Opens the session, on record with what proved who it is."""
        methods = [record.get("type") or record["method"] for record in get_authentication_records(request, user)]
        super().login(request, user)
        request.session.set_expiry(None)
        changes = {"method": [None, ", ".join(methods)]}
        audit.record("user.logged_in", user, actor=actor_of(request), now=timezone.now(), changes=changes)


class SecondFactorAdapter(DefaultMFAAdapter):
    """Authenticator apps, recovery codes and passkeys."""

    error_messages = DefaultMFAAdapter.error_messages | {"incorrect_code": "This code is not valid, or was used."}

    def encrypt(self, text: str) -> str:
        return sealing.seal_factor(text, owner_id(context.request))

    def decrypt(self, encrypted_text: str) -> str:
        return sealing.open_factor(encrypted_text, owner_id(context.request))

    def get_totp_label(self, user: User) -> str:
        return user.get_username()


def owner_id(request: HttpRequest) -> int:
    """Whose second factor a request is about."""
    owner = _owner(request)
    if owner.pk is None:
        raise PermissionDenied
    return int(owner.pk)


def _owner(request: HttpRequest) -> Any:
    """Who is between password and second factor, else who is signed in, maybe nobody."""
    stage = getattr(request, "_login_stage", None)
    return stage.login.user if stage else request.user
