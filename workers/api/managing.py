"""Views that also change what people set up, which a worker's key may not."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db import transaction
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from environments.audit import Actor
from workers.api.authentication import key_of
from workers.api.requests import JSON, NO_VALUES, InvalidQueryError, WorkerApiView, client_of, unknown, valid_query
from workers.api.serializers.managed import OutlookSerializer
from workers.fleet.deleting import delete
from workers.fleet.editing import change, create
from workers.fleet.editor import Editor, KeyMayNotManageError, version_of
from workers.fleet.outlook import Outlook, look_at_change, look_at_creation, look_at_deletion
from workers.fleet.repeats import AnotherBodyError, AnsweredOnceError, Claim, answered_before, claim_of, keep
from workers.models import ApiKey, KeptAnswer, KeyRole

#: RFC 9110, section 8.8.3.
ENTITY_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
#: One of a list's, which may be empty; nothing in it is looked at twice.
ELEMENT = re.compile(rf"[ \t]*+(?P<tag>{ENTITY_TAG})?+[ \t]*+(?:,|\Z)")
MOST_TAGS_BYTES = 2_000
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
REPEATED = "Idempotency-Replayed"


class InvalidHeaderError(ValidationError):
    """A header that is not as it should be."""

    location = "header"


class DryRunSerializer(serializers.Serializer[dict[str, Any]]):
    """Whether the call only tells what it would do."""

    dry_run = serializers.BooleanField(default=False, help_text="Tell what it would do, and do nothing.")


def _header(name: str, description: str) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.HEADER, description=description)


IF_MATCH = _header("If-Match", "The ETag of what is to be changed: 412 if it has changed since.")
ONCE = _header("Idempotency-Key", "1 to 255 visible characters: the same call within a day is answered the same.")
#: What the document tells of each kind of change.
MAKING: list[Any] = [DryRunSerializer, ONCE]
CHANGING: list[Any] = [DryRunSerializer, IF_MATCH]
ACTING: list[Any] = [DryRunSerializer, IF_MATCH, ONCE]


class ManagingView(WorkerApiView):
    """An endpoint that reads for every key in whose scope it is, and writes for a manager's key.

    What a client sends is kept as it is, or refused: nothing is cut as in what workers tell of themselves.
    """

    is_exact = True
    #: Beyond its refusals, the statuses with which it refuses a change; for the served document.
    refusals_of_writing: ClassVar[Collection[int]] = (409,)


class ClosedView(ManagingView):
    """One that no existing client calls, so that a member that it does not know is a mistake and refused."""

    is_closed = True


@dataclass(frozen=True)
class Asked:
    """How a change is asked for, beside its body."""

    is_dry_run: bool
    versions: frozenset[str] | None
    idempotency_key: str


def asked_of(request: Request, *, is_new: bool = False) -> Asked:
    """What the query string and the headers say of a change; a validation error for what is not as it should be.

    What is new has no version yet.
    """
    is_dry_run = valid_query(request, DryRunSerializer)["dry_run"]
    said = request.query_params.getlist("dry_run")
    if len(said) > 1 or not NO_VALUES.isdisjoint(said):
        raise InvalidQueryError({"dry_run": ["invalid"]})  # who says it at all does not mean a change that is made
    if nearly := [name for name, value in request.query_params.items() if _is_nearly_dry_run(name, value)]:
        raise InvalidQueryError(unknown(nearly).detail)
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidHeaderError({"Idempotency-Key": ["invalid"]})
    versions = None if is_new else _versions_in(request.META.get("HTTP_IF_MATCH"))
    return Asked(is_dry_run, versions, key or "")


def _is_nearly_dry_run(name: str, value: object) -> bool:
    """Whether it is `dry_run` misspelt, or after a semicolon, which existing clients' calls would pass over."""
    return name != "dry_run" and "dryrun" in "".join(filter(str.isalnum, f"{name}{value}".lower()))


def require_manager(request: Request) -> ApiKey:
    """The request's key; KeyMayNotManageError for a worker's."""
    key = key_of(request)
    if key.role != KeyRole.MANAGER:
        raise KeyMayNotManageError
    return key


def editor_of(request: Request, asked: Asked) -> Editor:
    """The API key as who makes a change, from where; KeyMayNotManageError for a worker's, before anything is locked.

    To be asked for when the object was found to be within the key's scope: others are unknown to it, whatever its role.
    """
    key = require_manager(request)
    return Editor(Actor(f"key:{key.pk}", client_of(request).address), times.now(), key, asked.versions)


def created(
    request: Request,
    told: Mapping[str, Any],
    place: Callable[[], tuple[Any, Mapping[str, Any]]],
    show: Callable[[Any, int], Response],
) -> Any:
    """Makes the row that `place` finds a place for, with the values that it finds for it, and shows it."""
    asked = asked_of(request, is_new=True)

    def make() -> Response:
        row, values = place()
        return show(create(row, values, editor_of(request, asked)), 201)

    if asked.is_dry_run:
        row, values = place()
        return told_of(look_at_creation(row, values, editor_of(request, asked)))
    return once(request, asked, told, make)


def changed(request: Request, row: Any, values: Mapping[str, Any], asked: Asked, show: Callable[..., Response]) -> Any:
    """Gives the row the values, and shows it."""
    editor = editor_of(request, asked)
    if asked.is_dry_run:
        return told_of(look_at_change(row, values, editor))
    return show(change(row, values, editor))


def deleted(request: Request, row: Any, asked: Asked) -> Response:
    """Deletes the row."""
    editor = editor_of(request, asked)
    if asked.is_dry_run:
        return told_of(look_at_deletion(row, editor))
    delete(row, editor)
    return Response(status=204)


def whole(response: Response) -> Any:
    """All of an answer, which has no secret in it."""
    return response.data


def once(
    request: Request,
    asked: Asked,
    told: Mapping[str, Any],
    make: Callable[[], Response],
    kept: Callable[[Response], Any] = whole,
) -> Any:
    """What `make` answers, or has answered to the same call before; `kept` is what of it may be kept.

    Both are one transaction, so that of two calls at once one waits for the other. What is refused is not kept.
    AnsweredOnceError where the answer had a secret, of which only the id is kept.
    """
    key = key_of(request)
    if not asked.idempotency_key or key.role != KeyRole.MANAGER:
        return make()
    parts = [request.method, request.path, told]
    text = json.dumps(parts, default=str, sort_keys=True)
    claim = claim_of(key, asked.idempotency_key, text, times.now())
    with transaction.atomic():
        if found := _found(claim):
            if kept is not whole:
                raise AnsweredOnceError(json.loads(found.answer)["id"])
            again = HttpResponse(found.answer, content_type="application/json", status=found.status)
            again.headers[REPEATED] = "true"
            if found.version:
                again.headers["ETag"] = f'"{found.version}"'
            return again
        response = make()
        version = response.headers.get("ETag", "").strip('"')
        keep(claim, response.status_code, JSON.render(kept(response)).decode(), version)
        return response


def _found(claim: Claim) -> KeptAnswer | None:
    try:
        return answered_before(claim)
    except AnotherBodyError:
        raise InvalidHeaderError({"Idempotency-Key": [ErrorDetail("", code="another_body")]}) from None


def told_of(outlook: Outlook) -> Response:
    """What a change would do."""
    return Response(OutlookSerializer(outlook).data)


def with_version(response: Response, row: Any) -> Response:
    """The answer about one row with its version, for `If-Match`."""
    response.headers["ETag"] = f'"{version_of(row, times.now())}"'
    return response


def _versions_in(header: str | None) -> frozenset[str] | None:
    """The versions that a change may be made of; None for any. A weak one is no version (RFC 9110, section 13.1.1)."""
    if header is None or header.strip(" \t") == "*":
        return None
    tags: list[str] = []
    position = 0 if len(header) <= MOST_TAGS_BYTES else -1
    while 0 <= position < len(header):
        found = ELEMENT.match(header, position)
        tags += [found["tag"]] if found and found["tag"] else []
        position = found.end() if found else -1
    if position < 0 or not tags:
        raise InvalidHeaderError({"If-Match": ["invalid"]})
    return frozenset(tag[1:-1] for tag in tags if not tag.startswith("W/"))
