"""Request limits per API key and per worker."""

from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from environments.limits import count, seconds_left
from workers.api.authentication import signed_key_of
from workers.api_keys.tokens import UUID_TEXT


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
