"""Reads request bodies: `application/json` in UTF-8, however it is framed, cut to fixed limits where it is free.

What a worker tells of itself must not cost it its credentials or its liveness. So whatever is too much, or cannot be
kept, is cut, dropped or replaced, and an object that lost something says so in its member CUT. Refused is what is no
JSON, or too large; whether the members that matter are there and right, the serializers say.
"""

import json
import math
import re
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import IO, Any, NoReturn

from django.http import HttpRequest, UnreadablePostError
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser

from controlplane.serving.bulkhead import bulkhead
from environments.models.json_fields import exact_number
from workers.models.instances import CUT

NOT_JSON = "The body must be application/json in UTF-8."
COMPRESSED = "The body must not be compressed."

NO_SHARE = nullcontext()
MAX_BYTES = 64 * 1024
#: Each member of a body is counted with the body itself.
MAX_DEPTH = 32
MAX_VALUES = 1024
MAX_KEY_LENGTH = 512
MAX_STRING_LENGTH = 4096
MAX_INTEGER_DIGITS = 308
#: With more brackets than this a body may be nested deeper than Python's parser is to be trusted with.
MANY_BRACKETS = 512
#: What lies deeper by as many levels is parsed on its own.
LEVELS_AT_ONCE = 64

#: NUL, which PostgreSQL does not store, and lone surrogates, which UTF-8 does not.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
#: Of its parameters the charset alone means something, and is told once.
PARAMETER = r'(?:(?!charset\b)[\w.+-]+\s*=\s*(?:"[^"\r\n]*"|[\w.+/:-]+)\s*)?'
MEDIA_TYPE = re.compile(
    rf'application/json\s*(;\s*{PARAMETER})*(;\s*charset\s*=\s*("utf-?8"|utf-?8)\s*(;\s*{PARAMETER})*)?', re.IGNORECASE
)
#: A text that may be a key which is too long, where no text has an escape.
LONG = re.compile(rf'"[^"]{{{MAX_KEY_LENGTH + 1}}}')
#: A text of JSON, closed or not, or a bracket outside of one; possessive, so that no text is looked at twice.
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)

#: In place of a number that is not finite or too long.
UNKEPT = object()


class BodyTooLargeError(Exception):
    """A body beyond its limit."""


class InvalidBodyError(Exception):
    """A body that is no JSON: where, why, and the `type` of the contract's ValidationError."""

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
    """Checks media type, size, encoding and JSON, in this order."""

    media_type = "application/json"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:  # noqa: ARG002
        """The body's JSON value; `stream` is the Django request, and the view says how large it may be."""
        view, sender = parser_context["view"], parser_context["request"].auth
        limit, share = getattr(view, "max_bytes", MAX_BYTES), bulkhead.body(sender.organization_id)
        form = {"is_optional": view.is_body_optional, "is_exact": getattr(view, "is_exact", False)}
        return parse_body(stream, limit, share=share, **form)  # type: ignore[arg-type]  # DRF calls it a stream


class SentBody:
    """A request's body as it arrives: with a length, in chunks, or, over HTTP/2, with nothing told but its end.

    Chunks that break off look to a WSGI application as if they had ended, so even when nothing arrives of them they
    are a body: what was sent is never taken for nothing.
    """

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self.coding = request.META.get("HTTP_TRANSFER_ENCODING", "").lower()
        self.length = "" if self.coding else request.META.get("CONTENT_LENGTH") or ""
        self._begin = b""
        if not self.length and "wsgi.input_terminated" in request.META:  # else there is no telling where it ends
            request._stream = request.META["wsgi.input"]  # Django's ends at once
            self._begin = b"" if self.coding else request.read(1)

    @property
    def is_absent(self) -> bool:
        """Whether there is none."""
        return not self.coding and self.length in {"", "0"} and not self._begin

    def read(self, limit: int) -> bytes:
        """All of it; BodyTooLargeError beyond the limit."""
        if self.coding and "wsgi.input_terminated" not in self._request.META:
            raise UnreadablePostError
        if not self.length:
            body = self._begin + self._request.read(limit + 1)
            return body if len(body) <= limit else _refuse_size(limit)
        digits = self.length.lstrip("0")
        if digits and not (digits.isascii() and digits.isdigit()):
            raise UnreadablePostError
        if len(digits) > len(str(limit)) or int(digits or 0) > limit:
            _refuse_size(limit)
        body = self._request.read(limit)
        if len(body) < int(digits or 0):
            _refuse("json_invalid", "The body ends before its Content-Length")
        return body


def parse_body(
    request: HttpRequest,
    limit: int = MAX_BYTES,
    *,
    is_optional: bool = False,
    is_exact: bool = False,
    share: AbstractContextManager[None] = NO_SHARE,
) -> Any:
    """The JSON value of the request's body; none at all is an error, since the contract requires one, or `{}`.

    `share` is entered for as long as the body may come slowly.
    """
    with share:
        body = SentBody(request)
        if is_optional and body.is_absent:
            return {}
        content_type = request.META.get("CONTENT_TYPE", "")
        if (content_type or not body.is_absent) and not MEDIA_TYPE.fullmatch(content_type):
            raise UnsupportedMediaType(content_type, NOT_JSON)
        if (
            body.coding not in {"", "chunked"}
            or request.META.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity"
        ):
            raise UnsupportedMediaType(content_type, COMPRESSED)
        sent = body.read(limit)
    return parse_json(sent, is_exact=is_exact)


def parse_json(body: bytes, *, is_exact: bool = False) -> Any:
    """The JSON value in UTF-8 bytes, cut to the limits; what is no UTF-8, NUL and lone surrogates become U+FFFD.

    A member of the body that is there twice is null: which one was meant is not for us to say. With `is_exact` what
    would be changed is refused instead: what people set up is kept as they gave it, or not at all.
    """
    if not body.strip():
        _refuse("missing", "Field required")
    text = body.decode("utf-8", "replace")
    brackets = text.count("[") + text.count("{")
    if not is_exact and _is_plain(text, brackets):
        with suppress(_OddError, ValueError):
            return PLAIN.decode(text)
    if brackets > MANY_BRACKETS:
        text = _shallow(text)
    value = _loads(text, _exact_number if is_exact else None)
    if not isinstance(value, dict):
        return None if value is UNKEPT else value
    repeated = value.keys_told_twice if isinstance(value, _Repeating) else ()
    if is_exact:
        _require_exact(body, value, repeated)
    return {_storable(name): None if name in repeated else _member(member) for name, member in value.items()}


class _OddError(Exception):
    """Something that is not kept as it is."""


def _is_plain(text: str, brackets: int) -> bool:
    """Whether a text is so small and plain, as nearly all are, that nothing in it can be beyond a limit.

    What may still be odd in it, its numbers and its repeated keys, PLAIN meets.
    """
    return (
        len(text) <= MAX_STRING_LENGTH
        and brackets < MAX_DEPTH
        and brackets + text.count(",") < MAX_VALUES - 2
        and "\\" not in text
        and CUT not in text
        and not LONG.search(text)
    )


def _only_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _be_odd()


def _be_odd(_text: str = "") -> NoReturn:
    raise _OddError


def _require_exact(body: bytes, value: dict[str, Any], repeated: Any) -> None:
    """Refuses what `parse_json` would change."""
    try:
        body.decode()
    except UnicodeDecodeError:
        _refuse("value_error", "It is not UTF-8")
    for name, member in value.items():
        kept = _member(member)
        if name in repeated or _storable(name) != name or kept != member or body.count(b"{") > MANY_BRACKETS:
            place = [name] if name.isidentifier() else []
            _refuse("value_error", "It is too much, or has what cannot be kept exactly", *place)


class _Repeating(dict[str, Any]):
    """An object of which some keys were there twice; the last ones count."""

    keys_told_twice: frozenset[str]


def _member(value: Any) -> Any:
    """One member of a body; of a list each item is cut on its own, and the last ones are the newest."""
    if isinstance(value, list):
        return [_cut(item)[0] for item in value[-MAX_VALUES:]]
    kept, lost = _cut(value)
    if isinstance(kept, dict) and lost:
        kept[CUT] = sorted(lost)
    return kept


def _cut(value: Any) -> tuple[Any, set[str]]:
    """A value within the limits, and what it lost by that; level by level, so that what is nearest stays."""
    holder: list[Any] = [value]
    lost: set[str] = set()
    left = MAX_VALUES - 2  # beside the body and the value itself
    todo: deque[tuple[Any, Any, int]] = deque([(holder, 0, 2)])
    while todo:
        place, name, depth = todo.popleft()
        found = place[name]
        if isinstance(found, str):
            place[name] = _shortened(found, MAX_STRING_LENGTH, "texts", lost)
        elif found is UNKEPT or (isinstance(found, (list, dict)) and depth > MAX_DEPTH):
            place[name] = None
            lost.add(
                "numbers that are not finite or too long"
                if found is UNKEPT
                else f"what is nested deeper than {MAX_DEPTH}"
            )
        elif isinstance(found, (list, dict)):
            place[name] = inner = _first(found, left, lost)
            left -= len(inner)
            todo.extend((inner, key, depth + 1) for key in (inner if isinstance(inner, dict) else range(len(inner))))
    return holder[0], lost


def _first(values: Any, left: int, lost: set[str]) -> Any:
    """As many of a list or an object as there is room for, with the keys as they are kept."""
    if len(values) > left:
        lost.add(f"values beyond {MAX_VALUES:,}")
    if isinstance(values, list):
        return values[:left]
    if isinstance(values, _Repeating):
        lost.add("keys that were there twice")
    if CUT in values:
        lost.add(f"a member named {CUT}")
    members = list(values.items())[:left]
    return {_shortened(key, MAX_KEY_LENGTH, "keys", lost): value for key, value in members if key != CUT}


def _shortened(text: str, limit: int, kind: str, lost: set[str]) -> str:
    if len(text) <= limit and text.isascii() and "\0" not in text:
        return text  # as nearly all is
    if len(text) > limit:
        lost.add(f"{kind} beyond {limit:,} characters")
    return _storable(text[:limit])


def _storable(text: str) -> str:
    return UNSTORABLE.sub("\ufffd", text)


def _shallow(text: str) -> str:
    """JSON in which null stands for what is nested far beyond MAX_DEPTH; such parts are parsed one by one."""
    parts: list[list[str]] = [[]]
    depth = done = 0
    for token in TOKEN.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
                if depth % LEVELS_AT_ONCE == 0:
                    parts[-1].append(text[done : token.start()])
                    parts.append([])
                    done = token.start()
            case "]" | "}":
                if depth % LEVELS_AT_ONCE == 0 and len(parts) > 1:
                    _loads("".join(parts.pop()) + text[done : token.end()])
                    parts[-1].append("null")
                    done = token.end()
                depth -= 1
    if len(parts) > 1:
        _refuse("json_invalid", "JSON decode error: a list or an object does not end", len(text))
    return "".join(parts[0]) + text[done:]


def _loads(text: str, parse_float: Callable[[str], Any] | None = None) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=lambda _name: UNKEPT,
            parse_int=_integer,
            parse_float=parse_float or _number,
        )
    except json.JSONDecodeError as error:
        _refuse("json_invalid", f"JSON decode error: {error.msg}", error.pos)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeating = _Repeating(found)
    counts = Counter(name for name, _ in pairs)
    repeating.keys_told_twice = frozenset(name for name, count in counts.items() if count > 1)
    return repeating


def _integer(digits: str) -> Any:
    return int(digits) if len(digits.lstrip("-")) <= MAX_INTEGER_DIGITS else UNKEPT


def _number(digits: str) -> Any:
    number = float(digits)
    return number if math.isfinite(number) else UNKEPT


def _exact_number(digits: str) -> Any:
    try:
        return exact_number(digits)
    except ValueError:
        return UNKEPT


PLAIN = json.JSONDecoder(
    object_pairs_hook=_only_object,
    parse_constant=_be_odd,
    parse_int=lambda digits: int(digits) if len(digits) < MAX_INTEGER_DIGITS else _be_odd(),
    parse_float=lambda digits: number if math.isfinite(number := float(digits)) else _be_odd(),
)


def _refuse_size(limit: int) -> NoReturn:
    msg = f"The body is larger than {limit} bytes."
    raise BodyTooLargeError(msg)


def _refuse(kind: str, message: str, *location: str | int) -> NoReturn:
    raise InvalidBodyError(kind, message, *location) from None
