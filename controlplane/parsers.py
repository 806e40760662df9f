"""Reads request bodies: `application/json` in UTF-8 within fixed limits, checked before anything is built from them."""

import json
import math
import re
from typing import IO, Any, NoReturn

from django.http import HttpRequest
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser

NOT_JSON = "The body must be application/json in UTF-8."
COMPRESSED = "The body must not be compressed."

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_VALUES = 1024
MAX_KEY_LENGTH = 512
MAX_STRING_LENGTH = 4096
MAX_INTEGER_DIGITS = 308

#: NUL, which PostgreSQL does not store, and lone surrogates, which UTF-8 does not.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
MEDIA_TYPE = re.compile(r'application/json\s*(;\s*charset\s*=\s*"?utf-?8"?\s*)?;?\s*', re.IGNORECASE)


class LengthRequiredError(Exception):
    """A body without Content-Length, which a WSGI server would hand over as empty."""


class BodyTooLargeError(Exception):
    """A body beyond MAX_BYTES."""


class InvalidBodyError(Exception):
    """A body that is no JSON within the limits: where, why, and the `type` of the contract's ValidationError."""

    def __init__(self, kind: str, message: str, *location: str | int) -> None:
        super().__init__(message)
        self.kind = kind
        self.location = location

    def as_validation_error(self) -> dict[str, Any]:
        """The contract's ValidationError."""
        return {"loc": ["body", *self.location], "msg": str(self), "type": self.kind}


class AlwaysJSON(BaseContentNegotiation):
    """Answers JSON whatever the Accept header says: an error about Accept would hide the one that matters."""

    def select_parser(self, request: Any, parsers: Any) -> Any:  # noqa: ARG002  # DRF's signature
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:  # noqa: ARG002
        return renderers[0], renderers[0].media_type


class StrictJSONParser(BaseParser):
    """Checks media type, length, size, encoding and JSON, in this order."""

    media_type = "application/json"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:  # noqa: ARG002
        """The body's JSON value; `stream` is the Django request."""
        return parse_body(stream)  # type: ignore[arg-type]  # DRF calls it a stream


def parse_body(request: HttpRequest) -> Any:
    """The JSON value of the request's body; an empty body is an error, since the contract requires one."""
    length = request.META.get("CONTENT_LENGTH") or ""
    is_chunked = "HTTP_TRANSFER_ENCODING" in request.META
    content_type = request.META.get("CONTENT_TYPE", "")
    has_body = is_chunked or length not in {"", "0"}
    if (has_body or content_type) and not MEDIA_TYPE.fullmatch(content_type):
        raise UnsupportedMediaType(content_type, NOT_JSON)
    if request.META.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise UnsupportedMediaType(content_type, COMPRESSED)
    if is_chunked or (length and not (length.isascii() and length.isdigit())):
        msg = "Send the body with a Content-Length."
        raise LengthRequiredError(msg)
    if len(length) > len(str(MAX_BYTES)) or int(length or 0) > MAX_BYTES:
        msg = f"The body is larger than {MAX_BYTES} bytes."
        raise BodyTooLargeError(msg)
    return parse_json(request.read(MAX_BYTES))


def parse_json(body: bytes) -> Any:
    """The JSON value in UTF-8 bytes, within the limits, NUL and lone surrogates replaced by U+FFFD."""
    if not body.strip():
        _refuse("missing", "Field required")
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except json.JSONDecodeError as error:
        _refuse("json_invalid", f"JSON decode error: {error.msg}", error.pos)
    except UnicodeDecodeError:
        _refuse("json_invalid", "The body is not UTF-8")
    except RecursionError:
        _refuse("json_too_deep", f"JSON is nested deeper than {MAX_DEPTH}")
    return _Cleaner().clean(value, 1)


class _Cleaner:
    """Walks a value once, counting and replacing."""

    def __init__(self) -> None:
        self.values = 0

    def clean(self, value: Any, depth: int) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            _refuse("json_too_long", f"JSON has more than {MAX_VALUES} values")
        if isinstance(value, str):
            return _text(value, MAX_STRING_LENGTH)
        if not isinstance(value, dict | list):
            return value
        if depth > MAX_DEPTH:
            _refuse("json_too_deep", f"JSON is nested deeper than {MAX_DEPTH}")
        if isinstance(value, list):
            return [self.clean(item, depth + 1) for item in value]
        return {_text(key, MAX_KEY_LENGTH): self.clean(item, depth + 1) for key, item in value.items()}


def _text(text: str, limit: int) -> str:
    if len(text) > limit:
        _refuse("string_too_long", f"A text has more than {limit} characters")
    return UNSTORABLE.sub("\ufffd", text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("json_invalid", "An object has the same key twice")
    return found


def _no_constant(_name: str) -> NoReturn:
    _refuse("finite_number", "NaN and Infinity are not JSON")


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INTEGER_DIGITS:
        _refuse("int_parsing_size", f"A whole number has more than {MAX_INTEGER_DIGITS} digits")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        _refuse("finite_number", "A number is too large")
    return number


def _refuse(kind: str, message: str, *location: str | int) -> NoReturn:
    raise InvalidBodyError(kind, message, *location) from None
