"""How often somebody may guess a password or a code, and what they see who tried too often.

A stranger is counted by name and network, so that nobody keeps a person out from elsewhere, and more loosely by name
alone, so that many networks do not guess without end. That second count is not for passwords from networks from which
the person has signed in lately, and whoever holds a browser that the person has signed in with is counted by that
browser alone: so not even many networks keep out a browser that was here before, or, of passwords, a new one where the
person usually is.
"""

import math
import time
from collections.abc import Callable

from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.core.internal import ratelimit
from allauth.mfa.base import forms as code_forms
from allauth.mfa.totp import forms as app_forms
from allauth.mfa.webauthn import forms as passkey_forms
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse

from controlplane.accounts.devices import device_of, is_at_home
from controlplane.accounts.pages import refusal
from controlplane.serving.proxies import network_of

APP = "allauth.account"
#: The modules of allauth that limit how often a second factor is tried; a test looks for others.
LIMITING = (code_forms, app_forms, passkey_forms)

#: The limits that are in use, by allauth's names for them.
LIMITS = (
    ("allauth.account", "login_failed"),
    ("allauth.account", "login_failed_by_name"),
    ("allauth.account", "code_failed_by_user"),
    ("allauth.account", "known_device_failed"),
    ("allauth.account", "reauthenticate"),
    ("allauth.account", "change_password"),
    ("allauth.account", "single_sign_on"),
    ("allauth.account", "invitation"),
    ("allauth.account", "invite"),
    ("allauth.mfa", "webauthn_login"),
)


def count_attempt(request: HttpRequest, username: str, *, subject: str, action: str) -> ratelimit.RateLimitUsage:
    """Counts a guess before it is looked at, to be rolled back if it was right; answers 429 if there were too many.

    `subject` is what is guessed, `action` the limit for strangers of all networks together.
    """
    counted = _counted(request, username, subject, action)
    usage = ratelimit.RateLimitUsage(usage=[])
    for limit, key in counted:
        used = ratelimit.consume(request, app=APP, action=limit, key=key)
        if not used:
            raise ImmediateHttpResponse(too_many_attempts(request, *(key for _, key in counted)))
        usage.usage += used.usage
    return usage


def _counted(request: HttpRequest, username: str, subject: str, action: str) -> list[tuple[str, str]]:
    if device := device_of(request, username):
        return [("known_device_failed", f"{subject} {device}")]
    network = network_of(request)
    if not network:
        return [(action, subject)]
    by_network = ("login_failed", f"{subject} {network}")
    is_password = action == "login_failed_by_name"  # codes are too short to be guessed at more often anywhere
    return [by_network] if is_password and is_at_home(username, network) else [by_network, (action, subject)]


def count_code(user: User, error_key: str | None = None) -> Callable[[], None]:  # noqa: ARG001  # allauth's signature
    """In place of allauth's `check_rate_limit`, which counts by user alone; returns what takes the attempt back."""
    name, subject = user.get_username(), f"second factor {user.pk}"
    return count_attempt(context.request, name, subject=subject, action="code_failed_by_user").rollback


def install() -> None:
    """Has allauth count second factors so."""
    for module in LIMITING:
        module.check_rate_limit = count_code


def too_many_attempts(request: HttpRequest, *keys: str) -> HttpResponse:
    """A page with status 429; `keys` are what is counted beside address and person, such as the name that was typed."""
    seconds = seconds_to_wait(request, *keys)
    wait = f"{seconds} seconds" if seconds < 120 else f"{math.ceil(seconds / 60)} minutes"  # noqa: PLR2004
    message = f"Nothing was checked any more. Try again in {wait}."
    response = refusal(request, 429, "Too many attempts", message)
    response.headers["Retry-After"] = str(seconds)
    return response


def seconds_to_wait(request: HttpRequest, *keys: str) -> int:
    """Seconds until every limit that this client has used up lets it pass again, at least 1."""
    longest = 1.0
    for app, action in LIMITS:
        for rate in ratelimit.get_rates(app=app, action=action):
            for key in keys if rate.per == "key" else [None]:
                if rate.per == "user" and not request.user.is_authenticated:
                    continue
                cache_key = ratelimit.get_cache_key(request, app=app, action=action, rate=rate, key=key)
                attempts = ratelimit.cache.get(cache_key, [])
                if len(attempts) >= rate.amount:
                    longest = max(longest, attempts[-1] + rate.duration - time.time())
    return math.ceil(longest)
