"""What every endpoint reads of a request, and what all its views have in common."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import IO, Any, ClassVar, cast
from uuid import UUID

from django.core.exceptions import TooManyFieldsSent
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import AuthenticationFailed, ErrorDetail, ParseError, ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from workers.api.authentication import key_of
from workers.api.throttles import ApiKeyThrottle
from workers.api_keys.access import UnknownObjectError
from workers.api_keys.presented import NoUsableKeyError
from workers.api_keys.tokens import UUID_TEXT
from workers.lifecycle import Client

JSON = JSONRenderer()
TOO_MANY = "The query string has too many parameters."
#: What a query string has where a body has null.
NO_VALUES = {"", "null"}
#: Of a member that is not known, to be repeated in a refusal.
LONGEST_NAME = 100


class InvalidQueryError(ValidationError):
    """A query string that is not as it should be."""

    location = "query"


class WorkerApiView(APIView):
    """An endpoint that takes an API key."""

    #: Beyond those of every endpoint, the statuses with which it refuses; for the served document.
    refusals: ClassVar[Collection[int]] = (404,)
    is_body_optional = False
    #: Whether members that it does not know are refused, of a body as of a query. Existing clients send some.
    is_closed = False
    default_response_headers: ClassVar[dict[str, str]] = {}  # DRF's would tell a known route's 404 from another's
    throttle_classes: Sequence[type[BaseThrottle]] = (ApiKeyThrottle,)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """The answer, rendered. View, request and answer then no longer point to each other, so none is garbage."""
        response: HttpResponseBase = super().dispatch(request, *args, **kwargs)
        if isinstance(response, Response):
            response.render()
            response.renderer_context.clear()  # type: ignore[attr-defined]  # DRF sets it
        self.request.parser_context.clear()
        return response

    def handle_exception(self, exc: Exception) -> Response:
        """The answer to an error; whoever has no usable key is told that, and nothing else."""
        is_settled = isinstance(exc, (AuthenticationFailed, NoUsableKeyError, DatabaseError, InterfaceError))
        if not is_settled:
            try:
                _ = self.request.auth and key_of(self.request)
            except Exception as error:  # noqa: BLE001  # it is answered in place of the other
                exc = error
        return self.answer_to(exc)

    def answer_to(self, error: Exception) -> Response:
        """DRF's answer to an error."""
        known = AuthenticationFailed() if isinstance(error, NoUsableKeyError) else error
        response: Response = super().handle_exception(known)
        return response


def uuid_of(text: str) -> UUID:
    """The id in RFC 9562's spelling, in any case; UnknownObjectError for others, which `uuid.UUID` would take."""
    if not UUID_TEXT.fullmatch(text):
        raise UnknownObjectError
    return UUID(text)


def valid_body(request: Request, serializer_class: type[Serializer[Any]]) -> dict[str, Any]:
    """The validated body; without one it is a validation error, as the contract requires, unless it is optional.

    The parser is called directly, since `request.data` takes an empty body for `{}`.
    """
    (parser,) = request.parsers or ()
    body = parser.parse(cast("IO[Any]", request._request), parser_context=request.parser_context)
    if _is_closed(request) and isinstance(body, dict):
        _require_known(serializer_class, body)
    return _valid(serializer_class, body)


def valid_query(request: Request, serializer_class: type[Serializer[Any]]) -> dict[str, Any]:
    """The validated query string, of which a repeated parameter's last value counts, and one without a value not.

    Where the view is closed each has to be known, and to have a value.
    """
    try:
        told = dict(request.query_params.items())
        if _is_closed(request):
            _require_known(serializer_class, told)
        else:
            told = {name: value for name, value in told.items() if value not in NO_VALUES}
        return _valid(serializer_class, told)
    except TooManyFieldsSent:
        raise ParseError(TOO_MANY) from None
    except ValidationError as error:
        raise InvalidQueryError(error.detail) from None


def client_of(request: Request) -> Client:
    """Where the request comes from, as the proxy middleware established it."""
    return Client(request.META.get("REMOTE_ADDR") or None, printable(request.META.get("HTTP_USER_AGENT", "")))


def printable(text: str, limit: int = 300) -> str:
    """A header's text without control characters."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:limit])


def answer(serializer_class: type[Serializer[Any]], row: Any) -> HttpResponse:
    """What a serializer without a context makes of a row, as DRF's own response would send it."""
    shown = _serializer(serializer_class).to_representation(row)
    return HttpResponse(JSON.render(shown), content_type="application/json")


@cache
def _serializer(serializer_class: type[Serializer[Any]]) -> Serializer[Any]:
    """One for all requests: making its fields costs more than using them, and they keep nothing of what they see."""
    return serializer_class()


def unknown(names: Iterable[str]) -> ValidationError:
    """The refusal of members that are not known; it repeats no name that is too long or cannot be shown."""
    detail = [ErrorDetail("", code="unknown")]
    places = (name if name.isprintable() and len(name) <= LONGEST_NAME else "non_field_errors" for name in names)
    return ValidationError(dict.fromkeys(places, detail))


def _is_closed(request: Request) -> bool:
    return bool(request.parser_context["view"].is_closed)


def _require_known(serializer_class: type[Serializer[Any]], told: Mapping[str, Any]) -> None:
    if names := sorted(told.keys() - _serializer(serializer_class).fields.keys()):
        raise unknown(names)


def _valid(serializer_class: type[Serializer[Any]], data: Any) -> dict[str, Any]:
    return dict(_serializer(serializer_class).run_validation(data))
