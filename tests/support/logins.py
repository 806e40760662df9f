"""People who sign in to the console over HTTP."""

import time
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.contrib.auth.models import User
from django.test import Client

from controlplane.accounts.sealing import seal_factor

PASSWORD = "correct horse battery staple"


SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


LOGIN = "/admin/login/"


def log_in(client: Client, username: str = "ada", password: str = PASSWORD, **more: Any) -> Any:
    extra = more.pop("extra", {})
    return client.post(LOGIN, {"username": username, "password": password, **more}, **extra)


def add_app(user: User, seed: str = SEED) -> Authenticator:
    data = {"secret": seal_factor(seed, user.pk)}
    return Authenticator.objects.create(user=user, type=Authenticator.Type.TOTP, data=data)


def code_of(seed: str = SEED, steps: int = 0) -> str:
    return str(format_hotp_value(hotp_value(seed, int(time.time()) // 30 + steps)))


def is_signed_in(client: Client) -> bool:
    return client.get("/admin/").status_code == 200
