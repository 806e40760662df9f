"""Which status each error has, and the one shape of an error: `{"detail": ...}`."""

import logging
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import (
    NON_FIELD_ERRORS,
    ObjectDoesNotExist,
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
)
from django.core.exceptions import ValidationError as InvalidFieldsError
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.views.debug import SafeExceptionReporterFilter
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.parsers import BodyTooLargeError, InvalidBodyError
from controlplane.engines.troubles import DATABASE_AWAY, ROWS_LOCKED, TOOK_TOO_LONG, Trouble, trouble_of
from controlplane.monitoring.metrics import UNOPENED
from controlplane.serving.bulkhead import TooManyBodiesError
from controlplane.serving.proxies import network_of
from environments.admin.error_page import error_page
from environments.connections.asking import AskedTooOftenError, NotAskedError
from environments.connections.levels import ConfigurationIncompleteError
from environments.encryption import CannotOpenError
from environments.limits import count, seconds_left
from workers.api_keys.access import KeyOutOfScopeError, UnknownObjectError
from workers.api_keys.issuing import ApiKeyError
from workers.fleet.editor import ChangedMeanwhileError, InUseError, KeyMayNotManageError, NameTakenError
from workers.fleet.repeats import AnsweredOnceError
from workers.installation.command_line import NoDefaultQueueError
from workers.lifecycle.heartbeats import HeartbeatRefusedError
from workers.lifecycle.starts import StartContendedError, StartRefusedError, WorkerDisabledError
from workers.lifecycle.update_locks import NotTheHolderError, UpdateLockHeldError

logger = logging.getLogger(__name__)

#: What clients are asked to wait when the database is away: short, since a restart or failover takes seconds.
RETRY_AFTER_SECONDS = 5

NOT_FOUND = "Not found."
JSON = JSONRenderer()

#: Errors of the database: status and detail. Whoever may come again is told when; others would fail for ever.
TROUBLES = {
    Trouble.AWAY: (503, DATABASE_AWAY),
    Trouble.LOCKED: (503, ROWS_LOCKED),
    Trouble.BUSY: (503, TOOK_TOO_LONG),
    Trouble.INVALID: (400, "The database takes no such value."),
    Trouble.GONE: (404, NOT_FOUND),
    Trouble.CONFLICT: (409, "Something else was changed at the same time. Try again."),
    Trouble.OURS: (500, "Internal error."),
}
#: Domain errors: status, and the detail where the error's own message is not meant for the caller.
STATUSES: dict[type[Exception], tuple[int, str | None]] = {
    UnknownObjectError: (404, NOT_FOUND),
    KeyOutOfScopeError: (403, "This API key does not reach that far."),
    KeyMayNotManageError: (403, "This API key may not: it takes a manager's key."),
    ApiKeyError: (409, None),
    ChangedMeanwhileError: (412, "It has changed since: read it again."),
    AnsweredOnceError: (409, None),
    NameTakenError: (409, None),
    InUseError: (409, None),
    NoDefaultQueueError: (409, None),
    WorkerDisabledError: (403, None),
    StartRefusedError: (409, None),
    HeartbeatRefusedError: (409, None),
    UpdateLockHeldError: (409, None),
    NotTheHolderError: (403, None),
    ConfigurationIncompleteError: (409, None),
    StartContendedError: (503, "What this start depends on is being changed."),
    CannotOpenError: (503, "A stored credential cannot be opened at the moment."),
    BodyTooLargeError: (413, None),
    UnreadablePostError: (400, "The body could not be read."),
    TooManyBodiesError: (503, "Too many requests at once."),
}
#: DRF's validation codes as the contract's `type` and `msg`; never the input's own value.
VALIDATION = {
    "required": ("missing", "Field required"),
    "null": ("none_not_allowed", "Input should not be null"),
    "not_a_dict": ("dict_type", "Input should be a valid dictionary"),
    "invalid_choice": ("enum", "Input is not one of the allowed values"),
    "min_value": ("greater_than_equal", "Input is too small"),
    "max_value": ("less_than_equal", "Input is too large"),
    "not_a_list": ("list_type", "Input should be a valid list"),
    "another_body": ("value_error", "This key was used for another call within the last day"),
    "unknown": ("extra_forbidden", "Extra inputs are not permitted"),
    "invalid": ("value_error", "Input is not valid"),
}


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's handler: every exception below `/api/` becomes a JSON answer here, where a page is asked for, too."""
    context["request"].accepted_renderer, context["request"].accepted_media_type = JSON, JSON.media_type
    if trouble := trouble_of(error):
        return _troubled(error, trouble)
    match error:
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return _unauthenticated(error, context["request"])
        case InvalidBodyError():
            return Response({"detail": [error.as_validation_error()]}, status=422)
        case InvalidFieldsError() | exceptions.ValidationError():
            return Response({"detail": list(_invalid_fields(error))}, status=422)
        case exceptions.Throttled():
            return _throttled()
    return _other(error, context["view"])


def _troubled(error: Exception, trouble: Trouble) -> Response:
    status, detail = TROUBLES[trouble]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        logger.error("database %s: %s", trouble.name.lower(), type(error.__cause__ or error).__name__)
        return _unavailable(detail)
    if trouble in {Trouble.GONE, Trouble.CONFLICT}:  # another caller was faster; a traceback would tell of rows, too
        logger.info("database %s: %s", trouble.name.lower(), type(error.__cause__ or error).__name__)
        return Response({"detail": detail}, status=status)
    logger.error("unexpected error of the database: %s", trouble.name.lower(), exc_info=error)
    return Response({"detail": detail}, status=status)


def _other(error: Exception, view: APIView) -> Response:
    if isinstance(error, ObjectDoesNotExist):  # a row that was deleted between two statements of the call
        error = UnknownObjectError()
    if isinstance(error, exceptions.MethodNotAllowed):
        allowed = {"Allow": ", ".join(view.allowed_methods)}
        if view.request.method == "OPTIONS":  # DRF has no answer to it that describes no view
            return Response(status=204, headers=allowed)
        return Response({"detail": str(error.detail)}, status=405, headers=allowed)
    if isinstance(error, exceptions.APIException):
        return Response({"detail": str(error.detail)}, status=error.status_code)
    if isinstance(error, NotAskedError):
        status = 429 if isinstance(error, AskedTooOftenError) else 503
        return Response({"detail": str(error)}, status=status, headers={"Retry-After": str(error.seconds)})
    status, detail = STATUSES.get(type(error), (500, "Internal error."))
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("unexpected error", exc_info=error)
    if isinstance(error, CannotOpenError):
        logger.error("credential does not open: %s", error)
        UNOPENED.inc()
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return _unavailable(detail or "")
    response = Response({"detail": detail or str(error)}, status=status)
    if isinstance(error, (KeyOutOfScopeError, KeyMayNotManageError)):
        response.headers["WWW-Authenticate"] = 'Bearer error="insufficient_scope"'
    return response


def _unauthenticated(error: exceptions.APIException, request: Any) -> Response:
    """401, or 429 for a network with too many failures; a valid key from the same one is never held up."""
    network = network_of(request)
    if network and count(f"failed_authentications:{network}") > settings.FAILED_AUTHENTICATIONS_PER_MINUTE:
        return _throttled()
    is_missing = isinstance(error, exceptions.NotAuthenticated)
    detail = "An API key is required: Authorization: Bearer <key>." if is_missing else "This API key is not valid."
    return Response({"detail": detail}, status=401, headers={"WWW-Authenticate": error.auth_header})  # type: ignore[attr-defined]


def _throttled() -> Response:
    return Response({"detail": "Too many requests."}, status=429, headers={"Retry-After": str(seconds_left())})


def _unavailable(detail: str) -> Response:
    return Response({"detail": detail}, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def _validation_errors(details: Any, location: tuple[str | int, ...]) -> Any:
    """The contract's ValidationError objects for DRF's nested details."""
    if isinstance(details, list):
        for detail in details:
            code = "not_a_dict" if location == ("body",) and detail["code"] != "unknown" else detail["code"]
            kind, message = VALIDATION.get(code, VALIDATION["invalid"])
            yield {"loc": list(location), "msg": message, "type": kind}
        return
    for name, inner in details.items():
        yield from _validation_errors(inner, location if name == "non_field_errors" else (*location, name))


def _invalid_fields(error: InvalidFieldsError | exceptions.ValidationError) -> Any:
    """The contract's ValidationError objects; a model's own rules have words of their own, without the value."""
    if isinstance(error, exceptions.ValidationError):
        yield from _validation_errors(error.get_full_details(), (getattr(error, "location", "body"),))
        return
    for name, messages in error.message_dict.items():
        location = ["body"] if name == NON_FIELD_ERRORS else ["body", name]
        yield {"loc": location, "msg": " ".join(messages), "type": "value_error"}


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's own 400, such as a Host that is not allowed, or 413."""
    if isinstance(exception, (RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent)):
        return _json_or_page(request, 413, "The body is too large.")
    return _json_or_page(request, 400, "Bad request.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001  # a handler
    """Django's own 403."""
    return _json_or_page(request, 403, "Not allowed.")


def form_refused(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001  # which is for developers
    """A form without the token that its page gave it."""
    message = "The page was open for too long, or this browser sends no cookies. Go back, reload the page, try again."
    return error_page(request, 403, "Not saved", message)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001  # a handler
    """Django's own 404."""
    return _json_or_page(request, 404, NOT_FOUND)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's own 500."""
    return _json_or_page(request, 500, "Internal error.")


@csrf_exempt  # like DRF's views: what is not here is 404 for every method
def api_not_found(request: HttpRequest) -> JsonResponse:  # noqa: ARG001  # a view
    """A path below /api/ that this control plane does not have; JSON with DEBUG on, too."""
    return json_error(404, NOT_FOUND)


def json_error(status: int, detail: str) -> JsonResponse:
    """An error outside DRF, byte for byte as DRF's renderer writes it."""
    return JsonResponse({"detail": detail}, status=status, json_dumps_params={"separators": (",", ":")})


def _json_or_page(request: HttpRequest, status: int, detail: str) -> HttpResponse:
    return json_error(status, detail) if request.path_info.startswith("/api/") else error_page(request, status)


class ExceptionReporterFilter(SafeExceptionReporterFilter):
    """Hides what people typed and what functions held from every error report, with DEBUG on too."""

    def is_active(self, request: HttpRequest | None) -> bool:  # noqa: ARG002  # Django's signature
        return True

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        return dict.fromkeys(request.POST, self.cleansed_substitute) if request else {}

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: Any) -> Any:  # noqa: ARG002
        return [(name, self.cleansed_substitute) for name in tb_frame.f_locals]
