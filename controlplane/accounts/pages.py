"""What all pages of the login share: the console's layout, and a page that refuses and says what to do."""

import ipaddress
from typing import Any

from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

#: Longer than any name, password or code, and short enough to hash and log.
LONGEST_INPUT = 1_024


class Page:
    """A view in the console's layout; every one of them is for this person only, so no cache keeps it."""

    request: HttpRequest
    title: str

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        own = super().get_context_data(**kwargs)
        return {**layout(self.request, self.title), **own}


def layout(request: HttpRequest, title: str) -> dict[str, Any]:
    """What unfold's templates need."""
    return {
        **admin.site.each_context(request),
        "title": title,
        "has_passkeys": not is_address(request.get_host()),
    }


def is_address(host: str) -> bool:
    """Whether a Host is a bare address: browsers bind passkeys to host names only."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def refusal(request: HttpRequest, status: int, title: str, message: str) -> HttpResponse:
    """A page that says why not and what to do."""
    context = {**layout(request, title), "message": message, "to_login": reverse("account_login")}
    response = render(request, "account/refused.html", context, status=status)
    response.headers["Cache-Control"] = "no-store"
    return response


def no_access(request: HttpRequest) -> HttpResponse:
    """For somebody who is who they say, but not of the console's staff."""
    message = "You are known here, but not allowed into the console. An administrator can give you access."
    return refusal(request, 403, "No access to the console", message)


def lacks_second_factor(user: Any) -> bool:
    """Whether somebody who is signed in has no second factor."""
    types = [Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN]
    return user.is_authenticated and not Authenticator.objects.filter(user_id=user.pk, type__in=types).exists()
