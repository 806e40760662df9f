"""Request limits per API key and per worker, counted per minute in each process."""

import threading
import time
from typing import Any

from django.conf import settings
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
        worker_id: str = view.kwargs["worker_id"].lower()
        return f"{signed_key_of(request).organization_id}:{worker_id}" if UUID_TEXT.fullmatch(worker_id) else None


class Counts:
    """What was counted in the current window; forgotten with it, so it grows with one minute's subjects only.

    A cache would keep each count until it is full: tens of megabytes in each process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window = 0
        self._counts: dict[str, int] = {}

    def add(self, subject: str) -> int:
        """Counts one more and returns the count."""
        window = int(time.time()) // WINDOW_SECONDS
        with self._lock:
            if window != self._window:
                self._window, self._counts = window, {}
            self._counts[subject] = found = self._counts.get(subject, 0) + 1
            return found

    def forget(self) -> None:
        """As when a window begins."""
        with self._lock:
            self._counts = {}


counts = Counts()


def count(subject: str) -> int:
    """Counts one more in the current window of this process and returns the count."""
    return counts.add(subject)


def seconds_left() -> int:
    """Seconds until the next window, at least 1."""
    return WINDOW_SECONDS - int(time.time()) % WINDOW_SECONDS
