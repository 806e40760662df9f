"""Request limits per API key and per worker, counted per minute in each process."""

import time
from typing import Any

from django.conf import settings
from django.core.cache import cache
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from workers.authentication import signed_key_of
from workers.tokens import UUID_TEXT

WINDOW_SECONDS = 60


class WindowThrottle(BaseThrottle):
    """Counts requests in windows of one minute.

    DRF's own throttle keeps every request's time, which at thousands a minute costs more than the start itself.
    """

    setting: str

    def subject(self, request: Request, view: Any) -> str | None:
        """What is counted; None is not counted."""
        raise NotImplementedError

    def allow_request(self, request: Request, view: Any) -> bool:
        subject = self.subject(request, view)
        return subject is None or count(f"{self.setting}:{subject}") <= getattr(settings, self.setting)

    def wait(self) -> float:
        return seconds_left()


class ApiKeyThrottle(WindowThrottle):
    """Limits what one API key may ask for."""

    setting = "API_KEY_REQUESTS_PER_MINUTE"

    def subject(self, request: Request, view: Any) -> str:  # noqa: ARG002  # DRF's signature
        return str(signed_key_of(request).id)


class WorkerThrottle(WindowThrottle):
    """Limits how often one worker may start, so that a crash loop does not flood the ledger."""

    setting = "WORKER_STARTS_PER_MINUTE"

    def subject(self, request: Request, view: Any) -> str | None:
        worker_id: str = view.kwargs["worker_id"]
        return f"{signed_key_of(request).organization_id}:{worker_id}" if UUID_TEXT.fullmatch(worker_id) else None


def count(subject: str) -> int:
    """Counts one more in the current window and returns the count."""
    key = f"{subject}:{int(time.time()) // WINDOW_SECONDS}"
    if cache.add(key, 1, timeout=WINDOW_SECONDS):
        return 1
    try:
        return cache.incr(key)
    except ValueError:  # it expired between the two calls
        return 1


def seconds_left() -> int:
    """Seconds until the next window, at least 1."""
    return WINDOW_SECONDS - int(time.time()) % WINDOW_SECONDS
