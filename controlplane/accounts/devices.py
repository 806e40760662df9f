"""Browsers and networks that somebody has signed in from before: a stranger's failures do not keep them out."""

import secrets
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from controlplane.serving.proxies import network_in
from environments.models import AuditEvent

SALT = "controlplane.accounts.devices"
#: Seconds; browsers keep no cookie for longer than 400 days.
LIFETIME = 365 * 24 * 3600
#: A network is known for so long after a login from there, if it is among the latest ones.
AT_HOME_FOR = timedelta(days=90)
LATEST_LOGINS = 100


def cookie_name() -> str:
    """As the session's: `__Host-` where there is TLS."""
    return "__Host-device" if settings.SESSION_COOKIE_SECURE else "device"


def remember(response: HttpResponse, user: User) -> None:
    """Gives the browser an id of its own for this user. It proves nothing but that it was here: it signs nobody in."""
    value = signing.dumps([user.get_username().lower(), secrets.token_urlsafe(12)], salt=SALT)
    is_secure = settings.SESSION_COOKIE_SECURE
    response.set_cookie(cookie_name(), value, max_age=LIFETIME, secure=is_secure, httponly=True, samesite="Lax")


def is_at_home(username: str, network: str) -> bool:
    """Whether this user has lately signed in from the network, as the audit trail has it."""
    users = User.objects.filter(username__iexact=username).values_list("pk", flat=True)
    logins = AuditEvent.objects.filter(
        object_id__in=[str(pk) for pk in users],
        action="user.logged_in",
        occurred_at__gt=timezone.now() - AT_HOME_FOR,
        client_address__isnull=False,
    )
    addresses = logins.order_by("-occurred_at").values_list("client_address", flat=True)[:LATEST_LOGINS]
    return network in {network_in(address) for address in addresses if address}


def device_of(request: HttpRequest, username: str) -> str:
    """The id of a browser that this user has signed in with; "" of any other."""
    try:
        owner, device = signing.loads(request.COOKIES.get(cookie_name(), ""), salt=SALT, max_age=LIFETIME)
    except signing.BadSignature:
        return ""
    return str(device) if owner == username.lower() else ""
