"""What somebody sees who tried to log in too often, and how long they have to wait."""

import math
import time

from allauth.core.internal import ratelimit
from django.http import HttpRequest, HttpResponse

from controlplane.accounts.pages import refusal

#: The limits that are in use, by allauth's names for them.
LIMITS = (
    ("allauth.account", "login_failed"),
    ("allauth.account", "reauthenticate"),
    ("allauth.account", "change_password"),
    ("allauth.account", "single_sign_on"),
    ("allauth.mfa", "webauthn_login"),
)


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
