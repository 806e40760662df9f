"""What applies to the console's pages: their policy, their forms, their second factor and their errors."""

import logging
from io import BytesIO

from django.conf import settings
from django.core.exceptions import FieldError, ObjectDoesNotExist, ValidationError
from django.core.paginator import InvalidPage
from django.db import DatabaseError, IntegrityError, InterfaceError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from controlplane.accounts.pages import lacks_second_factor
from controlplane.api.parsers import BodyTooLargeError, SentBody
from controlplane.engines.troubles import ROWS_LOCKED, TOOK_TOO_LONG, Trouble, trouble_of
from controlplane.middleware import Handler
from controlplane.middleware.answers import CONSOLE_PATHS, database_away, page, unavailable
from controlplane.serving.bulkhead import Kind, kind_of
from environments.encryption import CannotOpenError
from environments.sealing.data_keys import DataKeyExhaustedError

logger = logging.getLogger(__name__)
#: What is said of a caller's statement that may pass the next time: to programs, and to people in title and message.
BUSY = {
    Trouble.LOCKED: (
        ROWS_LOCKED,
        "Somebody else is changing this",
        "What this needs is being changed by somebody else. Nothing was changed. Try again in a moment.",
    ),
    Trouble.BUSY: (
        TOOK_TOO_LONG,
        "That took too long",
        "The database took too long. Nothing was changed. Try again, or ask for less.",
    ),
}
#: What Django's admin lets through when an address or a form holds odd values, as it does not check those itself.
BAD_INPUT = (ValidationError, FieldError, InvalidPage, ValueError, OverflowError)
SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}
PATHS_WITHOUT_SECOND_FACTOR = ("/admin/account/", "/admin/login/", "/admin/logout/", "/admin/jsi18n/")


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
                return page(request, 413, "Not saved", str(error))
            request.META["CONTENT_LENGTH"] = str(len(content))
            request._stream, request._read_started = BytesIO(content), False  # type: ignore[attr-defined]  # as Django's handler sets them
        return self.get_response(request)


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
        return database_away(request)
    if trouble in BUSY:
        logger.error("console: database busy: %s", type(exception.__cause__ or exception).__name__)
        return unavailable(request, *BUSY[trouble])
    if isinstance(exception, (IntegrityError, ObjectDoesNotExist)):
        return _changed_meanwhile(request, exception)
    if trouble is Trouble.INVALID or isinstance(exception, BAD_INPUT):
        logger.warning("console: bad input", exc_info=exception)
        return page(request, 400, "Bad request", "Something in the address or the form is not what it should be.")
    if isinstance(exception, (CannotOpenError, DataKeyExhaustedError)):
        logger.error("console: %s", exception)
        return page(request, 503, "A secret cannot be sealed or opened", "Nothing was changed. See the server's log.")
    return None


def _changed_meanwhile(request: HttpRequest, exception: IntegrityError | ObjectDoesNotExist) -> HttpResponse:
    if isinstance(exception, ObjectDoesNotExist):
        return page(request, 404, "Not found", "Somebody deleted this, or a part of it, at the same time.")
    message = "Somebody changed the same thing at the same time, so nothing was saved. Go back, reload and try again."
    return page(request, 409, "Not saved", message)
