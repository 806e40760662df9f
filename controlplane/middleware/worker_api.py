"""Serves the worker API with as little as it needs."""

from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csp import ContentSecurityPolicyMiddleware
from django.middleware.security import SecurityMiddleware
from django.urls import resolve

from controlplane.api.errors import json_error
from controlplane.api.parsers import MAX_BYTES
from controlplane.middleware import Handler
from controlplane.middleware.circuit import CircuitMiddleware
from controlplane.serving.bulkhead import TooManyBodiesError, bulkhead
from controlplane.serving.heart import heart
from controlplane.serving.proxies import is_of_this_machine

#: Of the middleware in the settings, what tells browsers how to treat an answer.
POLICY = (XFrameOptionsMiddleware, ContentSecurityPolicyMiddleware, SecurityMiddleware)
#: Of a body that is refused, how much is taken from a client that goes on sending it: somewhat more than any body has.
MOST_PARTS = 17
#: Whose the rest of a body is: whoever sends it may have no key.
NOBODYS = ""


class WorkerApiMiddleware:
    """Serves the worker API: not over plain HTTP from beyond this machine, and `//api/` as `/api/`.

    A redirect would come too late: the key has already crossed the network. Clients with a trailing slash in their base
    URL call `//api/`. What comes after it in the settings is for people's pages, of which a worker's call would pay
    for sessions, forms and messages that it does not have.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self.call_view = CircuitMiddleware(cast("Handler", _call_view))
        self._policies: dict[bool, dict[str, tuple[str, str]]] = {}

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith("//api/"):
            request.path_info = request.path_info[1:]
        is_api = request.path_info.startswith("/api/")
        if is_api and not request.is_secure() and not is_of_this_machine(request):
            response: HttpResponseBase = self._with_policy(request, json_error(403, "Use HTTPS."))
        elif request.path_info.startswith("/api/v1/"):
            response = self._with_policy(request, self.call_view(request))
            heart.hear(request, response.status_code)
            response.headers.setdefault("Content-Length", str(len(response.content)))  # type: ignore[attr-defined]  # no stream
        else:
            response = self.get_response(request)
        if is_api:
            response.headers.setdefault("Cache-Control", "no-store")
            if request.META.get("SERVER_PROTOCOL", "").startswith("HTTP/2"):
                _take_rest(request)
            elif _ends_connection(request, response):
                response.headers["Connection"] = "close"
        return response

    def _with_policy(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Gives it the headers of Django's own middleware, asked once: for this API they depend on nothing but TLS."""
        is_secure = request.is_secure()
        if is_secure not in self._policies:
            handler: Any = lambda _: HttpResponse()  # noqa: E731
            for middleware in POLICY:
                handler = middleware(handler)
            told = {n.lower(): (n, v) for n, v in handler(request).items() if n != "Content-Type"}
            self._policies[is_secure] = told
        response.headers._store.update(self._policies[is_secure])  # they were checked once
        return response


@convert_exception_to_response
def _call_view(request: HttpRequest) -> HttpResponseBase:
    request.get_host()  # raises for a name that is not among ours
    request.resolver_match = match = resolve(request.path_info)
    response: Any = match.func(request, *match.args, **match.kwargs)
    return response.render() if hasattr(response, "render") else response  # type: ignore[no-any-return]


def _ends_connection(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Whether a body was left unread: the server then ends the connection, which a client has to be told.

    An id that is not known is answered as a malformed one, which is refused before the body is read.
    """
    has_body = request.META.get("CONTENT_LENGTH") not in {None, "", "0"} or "HTTP_TRANSFER_ENCODING" in request.META
    is_read = request._read_started  # type: ignore[attr-defined]  # Django tells it nowhere else
    return has_body and (
        not is_read or response.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}
    )


def _take_rest(request: HttpRequest) -> None:
    """Reads what is left of a body over HTTP/2, whose connection goes on.

    The server ends the stream of a body that is left unread, and many a client then takes its answer for none. What
    comes slowly holds its thread, so that of those whose calls were refused no more are waited for than of one tenant.
    """
    with suppress(OSError, TooManyBodiesError), bulkhead.body(NOBODYS):
        for _ in range(MOST_PARTS):
            if not request.META["wsgi.input"].read(MAX_BYTES):
                return
