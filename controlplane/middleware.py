"""What applies to every request: how it is refused, and what the console's pages may do."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from io import BytesIO
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import FieldError, ObjectDoesNotExist, ValidationError
from django.core.handlers.exception import convert_exception_to_response
from django.core.paginator import InvalidPage
from django.db import DatabaseError, IntegrityError, InterfaceError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csp import ContentSecurityPolicyMiddleware
from django.middleware.security import SecurityMiddleware
from django.shortcuts import render
from django.urls import resolve, reverse

from controlplane.accounts.pages import lacks_second_factor
from controlplane.bulkhead import Kind, bulkhead, holder_of, kind_of
from controlplane.circuit import circuit
from controlplane.engines.troubles import Trouble, trouble_of
from controlplane.errors import DATABASE_AWAY, RETRY_AFTER_SECONDS, json_error
from controlplane.gate import gate
from controlplane.heart import heart
from controlplane.parsers import BodyTooLargeError, SentBody
from controlplane.proxies import is_of_this_machine
from environments.encryption import CannotOpenError
from environments.sealing import DataKeyExhaustedError

logger = logging.getLogger(__name__)

type Handler = Callable[[HttpRequest], HttpResponseBase]

#: What Django's admin lets through when an address or a form holds odd values, as it does not check those itself.
BAD_INPUT = (ValidationError, FieldError, InvalidPage, ValueError, OverflowError)
CONSOLE_PATHS = ("/admin/", "/api/docs")
SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}
PROBED_PATHS = ("/livez", "/readyz", "/metrics")
#: Of the middleware in the settings, what tells browsers how to treat an answer.
POLICY = (XFrameOptionsMiddleware, ContentSecurityPolicyMiddleware, SecurityMiddleware)
PATHS_WITHOUT_SECOND_FACTOR = ("/admin/account/", "/admin/login/", "/admin/logout/", "/admin/jsi18n/")


class ProbeMiddleware:
    """Lets health checks and Prometheus ask by address: what they are told depends on no name, and they know none."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info in PROBED_PATHS and settings.ALLOWED_HOSTS:
            request.META["HTTP_HOST"] = settings.ALLOWED_HOSTS[0]
        return self.get_response(request)


class WorkerApiMiddleware:
    """Serves the worker API: not over plain HTTP from beyond this machine, and `//api/` as `/api/`.

    A redirect would come too late: the key has already crossed the network. Clients with a trailing slash in their base
    URL call `//api/`. What comes after it in the settings is for people's pages, of which a worker's call would pay
    for sessions, forms and messages that it does not have.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self.call_view = CircuitMiddleware(cast("Handler", _call_view))
        self._policies: dict[bool, dict[str, str]] = {}

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
            if _ends_connection(request, response):
                response.headers["Connection"] = "close"
        return response

    def _with_policy(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Gives it the headers of Django's own middleware, asked once: for this API they depend on nothing but TLS."""
        is_secure = request.is_secure()
        if is_secure not in self._policies:
            handler: Any = lambda _: HttpResponse()  # noqa: E731
            for middleware in POLICY:
                handler = middleware(handler)
            self._policies[is_secure] = {n: v for n, v in handler(request).items() if n != "Content-Type"}
        for name, value in self._policies[is_secure].items():
            response.headers[name] = value
        return response


@convert_exception_to_response
def _call_view(request: HttpRequest) -> HttpResponseBase:
    request.get_host()  # raises for a name that is not among ours
    request.resolver_match = match = resolve(request.path_info)
    response: Any = match.func(request, *match.args, **match.kwargs)
    return response.render() if hasattr(response, "render") else response  # type: ignore[no-any-return]


def _ends_connection(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Whether a body was left unread: the server then ends the connection, which a client has to be told.

    An id that is not known is answered as a malformed one, which is refused before the body is read. HTTP/2 tells of no
    body beforehand, and goes on in any case.
    """
    has_body = request.META.get("CONTENT_LENGTH") not in {None, "", "0"} or "HTTP_TRANSFER_ENCODING" in request.META
    is_read = request._read_started  # type: ignore[attr-defined]  # Django tells it nowhere else
    return has_body and (
        not is_read or response.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}
    )


class ConsolePolicyMiddleware:
    """Gives the console's pages their own content security policy; everything else keeps the closed one."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if request.path_info.startswith(CONSOLE_PATHS):
            response._csp_config = settings.CONSOLE_CSP  # type: ignore[attr-defined]  # what Django's csp_override sets
        return response


class UnsizedFormMiddleware:
    """Reads a form that comes without its length, and tells it: Django would take it for an empty one.

    It may come slowly, from anybody, so it is read where people's share of the threads is held, and nowhere else.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        is_form = request.method not in SAFE_METHODS and kind_of(request) is Kind.PEOPLE
        if is_form and not (body := SentBody(request)).length:
            try:
                content = body.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
            except BodyTooLargeError as error:
                return _page(request, 413, "Not saved", str(error))
            request.META["CONTENT_LENGTH"] = str(len(content))
            request._stream, request._read_started = BytesIO(content), False  # type: ignore[attr-defined]  # as Django's handler sets them
        return self.get_response(request)


class CircuitMiddleware:
    """Refuses at once what would hold a thread in vain, or a thread too many.

    That is everything while the database is known to be away, and what people and readers ask beyond their share of
    the threads. What needs no database is always served, `/livez` above all; `/readyz` looks for itself.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        circuit.is_used = True

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(("/api/", "/admin/")):
            return self.get_response(request)
        if gate.problem:
            return _not_served(request)
        if circuit.is_open():
            return _database_away(request)
        kind = kind_of(request)
        if kind is None:
            return self.get_response(request)
        if kind is Kind.WORKERS:
            with bulkhead.worker(request.META.get("HTTP_AUTHORIZATION", "")) as call:
                response = self.get_response(request) if call.has_thread else _too_many(request)
                call.status = response.status_code
                return response
        return self._within_share(request, kind)

    def _within_share(self, request: HttpRequest, kind: Kind) -> HttpResponseBase:
        place = bulkhead.enter(kind, holder_of(request, kind))
        if place is None:
            return _too_many(request)
        try:
            response = self.get_response(request)
        except BaseException:
            place.leave()
            raise
        place.leave_after(response)
        return response


class SecondFactorMiddleware:
    """Leads whoever has to have a second factor and has none to where it is set up, before anything else."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        is_held_up = path.startswith("/admin/") and not path.startswith(PATHS_WITHOUT_SECOND_FACTOR)
        try:
            if is_held_up and settings.REQUIRE_SECOND_FACTOR and lacks_second_factor(request.user):
                return HttpResponseRedirect(reverse("mfa_index"))
        except (DatabaseError, InterfaceError) as error:  # process_exception hears of what views raise only
            if response := console_error(request, error):
                return response
            raise
        return self.get_response(request)


class ConsoleErrorsMiddleware:
    """Answers with a page that says what to do where a page of the console meets an error that is nobody's mistake.

    The worker API has its own handler; what it handles does not arrive here.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """The page, or None for what is unexpected."""
        return console_error(request, exception)


def console_error(request: HttpRequest, exception: Exception) -> HttpResponse | None:
    """The page for an error that is nobody's mistake, or None for what is unexpected."""
    if hasattr(request, "_messages"):
        request._messages._queued_messages.clear()  # they tell of a change that was taken back
    trouble = trouble_of(exception)
    if trouble is Trouble.AWAY:
        return _database_away(request)
    if trouble is Trouble.BUSY:
        logger.error("console: database busy: %s", type(exception.__cause__ or exception).__name__)
        message = "The database took too long. Nothing was changed. Try again, or ask for less."
        return _unavailable(request, DATABASE_AWAY, "That took too long", message)
    if isinstance(exception, (IntegrityError, ObjectDoesNotExist)):
        return _changed_meanwhile(request, exception)
    if trouble is Trouble.INVALID or isinstance(exception, BAD_INPUT):
        logger.warning("console: bad input", exc_info=exception)
        return _page(request, 400, "Bad request", "Something in the address or the form is not what it should be.")
    if isinstance(exception, (CannotOpenError, DataKeyExhaustedError)):
        logger.error("console: %s", exception)
        return _page(request, 503, "A secret cannot be sealed or opened", "Nothing was changed. See the server's log.")
    return None


def _changed_meanwhile(request: HttpRequest, exception: IntegrityError | ObjectDoesNotExist) -> HttpResponse:
    if isinstance(exception, ObjectDoesNotExist):
        return _page(request, 404, "Not found", "Somebody deleted this, or a part of it, at the same time.")
    message = "Somebody changed the same thing at the same time, so nothing was saved. Go back, reload and try again."
    return _page(request, 409, "Not saved", message)


def _database_away(request: HttpRequest) -> HttpResponse:
    message = "Nothing was changed. Try again in a moment."
    return _unavailable(request, DATABASE_AWAY, "The database is not available", message)


def _too_many(request: HttpRequest) -> HttpResponse:
    message = "So much is asked for that workers would have to wait. Nothing was changed. Try again in a moment."
    return _unavailable(request, "Too many requests at once.", "Too much at once", message)


def _unavailable(request: HttpRequest, detail: str, title: str, message: str) -> HttpResponse:
    """503 with `Retry-After`: JSON for programs, a page for people."""
    if request.path_info.startswith("/api/") and not request.path_info.startswith(CONSOLE_PATHS):
        response: HttpResponse = json_error(503, detail)
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response
    return _page(request, 503, title, message)


def _not_served(request: HttpRequest) -> HttpResponse:
    if gate.problem == DATABASE_AWAY:
        return _database_away(request)
    detail = "Nothing is served until an operator has looked after the database."
    return _unavailable(request, detail, "Nothing is served at the moment", gate.problem)


def _page(request: HttpRequest, status: int, title: str, message: str) -> HttpResponse:
    response = render(request, "error.html", {"title": title, "message": message}, status=status)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response
