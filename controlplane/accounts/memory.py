"""The memory that the login's limits count in: the database, so that it holds in every process."""

import hashlib
import time
import uuid
from datetime import timedelta
from typing import Any

from allauth.account import app_settings
from allauth.core.internal import ratelimit
from allauth.mfa.totp.internal import auth as totp
from allauth.socialaccount.internal import jwtkit
from django.contrib.sessions.models import Session
from django.db import models, transaction
from django.http import HttpRequest
from django.utils import timezone

from controlplane.models import SharedEntry

#: Expired entries that one write removes, at most.
PURGED_AT_ONCE = 100
#: Seconds by which the clocks of two machines may differ.
MOST_SKEW = 60
#: The modules of allauth, as far as it is in use here, that remember something; a test looks for others.
REMEMBERING = (ratelimit, totp, jwtkit)


class SharedMemory:
    """What allauth asks of a cache, kept in the database.

    Not Django's database cache: that one unpickles what it reads, so whoever can write to the database could run code
    here; and when it is full it forgets entries that still count, so an attacker could wash the own failures out.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default if there is none or it has expired."""
        row = SharedEntry.objects.filter(pk=_hash(key), expires_at__gt=timezone.now()).first()
        return default if row is None else _without_future(row.value)

    def set(self, key: str, value: Any, timeout: float) -> None:
        """Keeps a value for some seconds."""
        row = _row(key, value, timeout)
        fields = ["value", "owner", "expires_at"]
        SharedEntry.objects.bulk_create([row], update_conflicts=True, unique_fields=["key_hash"], update_fields=fields)
        _purge(SharedEntry, "expires_at")

    def add(self, key: str, value: Any, timeout: float) -> bool:
        """Keeps a value unless there is one already; True for the one caller who was first."""
        row = _row(key, value, timeout)
        SharedEntry.objects.filter(pk=row.pk, expires_at__lte=timezone.now()).delete()
        SharedEntry.objects.bulk_create([row], ignore_conflicts=True)
        return SharedEntry.objects.filter(pk=row.pk, owner=row.owner).exists()

    def delete(self, key: str) -> None:
        """Forgets a value."""
        SharedEntry.objects.filter(pk=_hash(key)).delete()


def remember_briefly(request: HttpRequest) -> None:
    """Lets the session of somebody who only begins to log in end soon, and removes such that have ended.

    Otherwise anybody could fill the database with sessions. The login itself gives it the usual time.
    """
    request.session.set_expiry(app_settings.LOGIN_TIMEOUT)
    _purge(Session, "expire_date")


def install() -> None:
    """Lets allauth remember in the database; it knows only the default cache, which is each process's own."""
    for module in REMEMBERING:
        module.cache = SharedMemory()


def _row(key: str, value: Any, timeout: float) -> SharedEntry:
    expires_at = timezone.now() + timedelta(seconds=timeout)
    return SharedEntry(key_hash=_hash(key), value=value, owner=uuid.uuid4(), expires_at=expires_at)


def _without_future(value: Any) -> Any:
    """Times of attempts without those of a clock that was ahead: they would count until then, for years maybe."""
    latest = time.time() + MOST_SKEW
    return [at for at in value if at <= latest] if isinstance(value, list) else value


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _purge(model: type[models.Model], expires_at: str) -> None:
    """Removes some of what has expired, but not what another process is just removing."""
    rows = model._default_manager
    with transaction.atomic():
        expired = rows.filter(**{f"{expires_at}__lte": timezone.now()}).select_for_update(skip_locked=True)
        keys = list(expired.values_list("pk", flat=True)[:PURGED_AT_ONCE])
        if keys:
            rows.filter(pk__in=keys).delete()
