"""Browsers that somebody has signed in with before: a stranger's failures do not keep them out."""

import secrets

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.http import HttpRequest, HttpResponse

SALT = "controlplane.accounts.devices"
#: Seconds; browsers keep no cookie for longer than 400 days.
LIFETIME = 365 * 24 * 3600


def cookie_name() -> str:
    """As the session's: `__Host-` where there is TLS."""
    return "__Host-device" if settings.SESSION_COOKIE_SECURE else "device"


def remember(response: HttpResponse, user: User) -> None:
    """Gives the browser an id of its own for this user. It proves nothing but that it was here: it signs nobody in."""
    value = signing.dumps([user.get_username().lower(), secrets.token_urlsafe(12)], salt=SALT)
    is_secure = settings.SESSION_COOKIE_SECURE
    response.set_cookie(cookie_name(), value, max_age=LIFETIME, secure=is_secure, httponly=True, samesite="Lax")


def device_of(request: HttpRequest, username: str) -> str:
    """The id of a browser that this user has signed in with; "" of any other."""
    try:
        owner, device = signing.loads(request.COOKIES.get(cookie_name(), ""), salt=SALT, max_age=LIFETIME)
    except signing.BadSignature:
        return ""
    return str(device) if owner == username.lower() else ""
