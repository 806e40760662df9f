"""One log line and one count for each request: which route, which answer, how long; ids and outcomes, no contents."""

import logging
import re
import secrets
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from controlplane.monitoring.logs import request_id
from controlplane.monitoring.metrics import counting

logger = logging.getLogger("controlplane.requests")

#: The calls that are told apart in the figures, by their route; others are "api", "console" or "other".
CALLS = {
    "api/v1/workers/<str:worker_id>/start": "start",
    "api/v1/worker-queues/<str:queue_id>/start": "queue_start",
    "api/v1/workers/register": "register",
    "api/v1/workers/<str:worker_id>/heartbeat": "heartbeat",
    "api/v1/workers/heartbeat": "heartbeat",
    "api/v1/workers/<str:worker_id>/disconnect": "disconnect",
}
HEADER = "X-Request-ID"
#: What a proxy's or caller's own id may be; an API key, which has dots, is none.
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{16,64}")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: The longest method of HTTP; anything longer is noise.
METHOD_LENGTH = 7


class TelemetryMiddleware:
    """The outermost: it sees every request and its final answer.

    Of the path it tells the route alone and ids that are UUIDs: anything else in a path may be anything, a key too.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began = time.perf_counter()
        own_id = request.META.get("HTTP_X_REQUEST_ID", "")
        token = request_id.set(own_id if REQUEST_ID.fullmatch(own_id) else secrets.token_hex(16))
        try:
            response = self.get_response(request)
            response.headers[HEADER] = request_id.get()
            seconds = time.perf_counter() - began
            _counting(_call_of(route_of(request)), response.status_code)(seconds)
            if logger.isEnabledFor(logging.INFO):
                _log({**facts_of(request, response.status_code), "seconds": round(seconds, 6)})
        finally:
            request_id.reset(token)
        return response


def route_of(request: HttpRequest) -> str:
    """The pattern that the path met, "" if it met none or was refused before."""
    return request.resolver_match.route if request.resolver_match else ""


def facts_of(request: HttpRequest, status: int) -> dict[str, str | int]:
    """What may be told of a request that was answered; an id that is not known is left out."""
    facts: dict[str, str | int] = {
        "method": (request.method or "")[:METHOD_LENGTH],
        "route": route_of(request),
        "status": status,
        "client": request.META.get("REMOTE_ADDR", ""),
    }
    key = getattr(request, "auth", None)
    if key is not None:
        facts["api_key_id"] = str(key.id)
    if request.resolver_match:
        ids = request.resolver_match.kwargs.items()
        facts |= {name: value for name, value in ids if isinstance(value, str) and UUID.fullmatch(value)}
    return facts


def _log(line: dict[str, Any]) -> None:
    """As `logger.info` would, but for looking up who called it, which costs more than all the rest."""
    record = logging.LogRecord(logger.name, logging.INFO, __file__, 0, "request", (), None)
    record.fields = line
    logger.handle(record)


@cache
def _call_of(route: str) -> str:
    """What a route is in the figures; there are as many routes as this service has."""
    route = route.removeprefix("^")
    if route.startswith("api/"):
        return CALLS.get(route, "api")
    return "console" if route.startswith("admin/") else "other"


@cache
def _counting(call: str, status: int) -> Callable[[float], None]:
    return counting(call, status)
