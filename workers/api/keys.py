"""API keys: a manager's key issues, rotates and revokes those within its scope."""

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from environments.models import Environment, Organization
from workers.api.authentication import key_of
from workers.api.listing import OLDEST_FIRST, FilterSerializer, each, narrowed, page_of, slice_of
from workers.api.managing import (
    ACTING,
    MAKING,
    ClosedView,
    asked_of,
    editor_of,
    once,
    require_manager,
    told_of,
    with_version,
)
from workers.api.requests import uuid_of, valid_body, valid_query
from workers.api.serializers.exact import Id
from workers.api.serializers.managed import (
    IssuedKeySerializer,
    KeyCreateSerializer,
    KeySerializer,
    RevocationSerializer,
    RotationSerializer,
)
from workers.api_keys.access import UnknownObjectError, keys_within, reach
from workers.api_keys.issuing import IssuedApiKey, issued_key
from workers.fleet.editor import require_all_of, require_reach
from workers.fleet.key_changes import (
    NewKey,
    issue,
    look_at_issue,
    look_at_revocation,
    look_at_rotation,
    revoke,
    rotate,
)
from workers.models import ApiKey, KeyRole, Scope, Worker, WorkerQueue
from workers.reports.registered import KEY_STATES, describe_keys

KEY_PAGE = page_of(KeySerializer, "ApiKey")
LOOKUPS = {
    "name": "name",
    "role": "role",
    "scope": "scope",
    "environment_id": "environment",
    "queue_id": "queue",
    "worker_id": "worker",
}
#: What a key can be for, beside the organization.
TARGETS: dict[str, Any] = {
    "environment_id": Environment.objects.all(),
    "queue_id": WorkerQueue.objects.select_related("environment"),
    "worker_id": Worker.objects.select_related("queue"),
}


class KeyFilterSerializer(FilterSerializer):
    """Which API keys are asked for."""

    name = serializers.CharField(required=False)
    role = serializers.ChoiceField(KeyRole.values, required=False)
    scope = serializers.ChoiceField(Scope.values, required=False)
    state = serializers.ChoiceField(KEY_STATES, required=False)
    environment_id = Id(required=False)
    queue_id = Id(required=False)
    worker_id = Id(required=False)


class KeysView(ClosedView):
    """The API keys within the scope of the key."""

    refusals = ()
    refusals_of_writing = (404, 409)

    @extend_schema(operation_id="list_api_keys", parameters=[KeyFilterSerializer], responses=KEY_PAGE)
    def get(self, request: Request) -> Response:
        """The API keys within the scope of the key, the oldest first. It takes a manager's key."""
        asked, now = valid_query(request, KeyFilterSerializer), times.now()
        rows = keys_within(require_manager(request))
        rows = rows.in_state(asked["state"], now) if asked.get("state") else rows
        found, cursor = slice_of(asked, narrowed(rows, asked, LOOKUPS), OLDEST_FIRST)
        return Response({"items": each(KeySerializer, describe_keys(found, now)), "next_cursor": cursor})

    @extend_schema(
        operation_id="issue_api_key",
        parameters=MAKING,
        request=KeyCreateSerializer,
        responses={201: IssuedKeySerializer},
    )
    def post(self, request: Request) -> Any:
        """Issue an API key that reaches and may no more than the one it is issued with; it is answered this once."""
        told, asked = valid_body(request, KeyCreateSerializer), asked_of(request, is_new=True)
        days = told["lifetime_days"]
        lifetime = None if days is None else timedelta(days=days)
        new = NewKey(told["name"], KeyRole(told["role"]), lifetime, told["no_expiry_reason"])
        if asked.is_dry_run:
            return told_of(look_at_issue(_target(request, told), new, editor_of(request, asked)))

        def make() -> Response:
            return _shown_once(issue(_target(request, told), new, editor_of(request, asked)))

        return once(request, asked, told, make, kept=_only_id)


class KeyView(ClosedView):
    """One API key."""

    @extend_schema(operation_id="get_api_key", responses=KeySerializer)
    def get(self, request: Request, key_id: str) -> Response:
        """One API key. It takes a manager's key."""
        key = _key(request, key_id)
        require_manager(request)
        return _shown(key)


class RotateView(ClosedView):
    """Replaces an API key."""

    @extend_schema(
        operation_id="rotate_api_key",
        parameters=ACTING,
        request=RotationSerializer,
        responses={201: IssuedKeySerializer},
    )
    def post(self, request: Request, key_id: str) -> Any:
        """Issue a successor with the same scope, role and lifetime; the key stays good for the grace period."""
        identifier = uuid_of(key_id)
        told, asked = valid_body(request, RotationSerializer), asked_of(request)
        grace_period = timedelta(hours=told["grace_hours"])
        if asked.is_dry_run:
            _key(request, key_id)
            return told_of(look_at_rotation(identifier, editor_of(request, asked), grace_period))

        def make() -> Response:
            _key(request, key_id)
            return _shown_once(rotate(identifier, editor_of(request, asked), grace_period))

        return once(request, asked, told, make, kept=_only_id)


class RevokeView(ClosedView):
    """Ends an API key."""

    @extend_schema(
        operation_id="revoke_api_key", parameters=ACTING, request=RevocationSerializer, responses=KeySerializer
    )
    def post(self, request: Request, key_id: str) -> Any:
        """End an API key for good, on its next use; one that was revoked before stays as it is."""
        identifier = uuid_of(key_id)
        told, asked = valid_body(request, RevocationSerializer), asked_of(request)
        if asked.is_dry_run:
            _key(request, key_id)
            return told_of(look_at_revocation(identifier, told["reason"], editor_of(request, asked)))

        def make() -> Response:
            key = _key(request, key_id)
            revoke(identifier, told["reason"], editor_of(request, asked))
            key.refresh_from_db()
            return _shown(key)

        return once(request, asked, told, make)


def _key(request: Request, key_id: str) -> ApiKey:
    """The key of this id within the scope of the request's; errors as `reach`."""
    mine = key_of(request)
    rows = ApiKey.objects.select_related("organization", "environment", "queue", "worker__queue")
    found = rows.filter(organization=mine.organization_id, pk=uuid_of(key_id)).first()
    if found is None:
        raise UnknownObjectError
    require_reach(found, mine)
    return found


def _target(request: Request, told: dict[str, Any]) -> Any:
    """What a new key is for; errors as `reach`."""
    mine = key_of(request)
    for name, rows in TARGETS.items():
        if told.get(name):
            return reach(rows.all(), told[name], mine)
    require_all_of(mine.organization_id, mine)
    return Organization.objects.get(pk=mine.organization_id)


def _shown(key: ApiKey) -> Response:
    (described,) = describe_keys([key], times.now())
    return with_version(Response(KeySerializer(described).data), key)


def _shown_once(issued: IssuedApiKey) -> Response:
    """With the key itself, which nothing stores."""
    (described,) = describe_keys([issued.row], times.now())
    answered = {**KeySerializer(described).data, "api_key": issued_key(issued)["api_key"]}
    return with_version(Response(answered, status=201), issued.row)


def _only_id(response: Response) -> dict[str, Any]:
    """What is kept of an answer with a key in it."""
    return {"id": response.data["id"]}
