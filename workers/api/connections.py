"""Connections and telemetry settings: their secrets go in and never come out again."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from environments.connections.asking import VERIFYING
from environments.connections.results import verify_stored
from workers.api.authentication import key_of
from workers.api.listing import BY_NAME, FilterSerializer, each, narrowed, page_of, slice_of
from workers.api.managing import (
    CHANGING,
    MAKING,
    ClosedView,
    DryRunSerializer,
    asked_of,
    changed,
    created,
    deleted,
    editor_of,
    require_manager,
    told_of,
    with_version,
)
from workers.api.requests import uuid_of, valid_body, valid_query
from workers.api.serializers.managed import (
    VerificationSerializer,
    connection_change_of,
    connection_creation_of,
    connection_of,
)
from workers.api_keys.access import UnknownObjectError
from workers.fleet.editor import require_all_of
from workers.fleet.kinds import Kind
from workers.fleet.outlook import Outlook


class ConnectionFilterSerializer(FilterSerializer):
    """Which connections are asked for."""

    name = serializers.CharField(required=False)


class ConnectionView(ClosedView):
    """What all calls about one kind of connection have in common; it takes a manager's key for the organization."""

    kind: ClassVar[Kind]

    def show(self, row: Any, status: int = 200) -> Response:
        """The connection with its version."""
        return with_version(Response(connection_of(self.kind)(row).data, status=status), row)

    def found(self, request: Request, connection_id: str) -> Any:
        """The connection of this id; UnknownObjectError, or KeyOutOfScopeError for a key of less."""
        key = key_of(request)
        rows = self.kind.model.objects.filter(organization=key.organization_id)
        row = rows.filter(pk=uuid_of(connection_id)).first()
        if row is None:
            raise UnknownObjectError
        require_all_of(key.organization_id, key)
        return row


def views_of(kind: Kind) -> tuple[Any, Any, Any]:
    """The views of a list of connections of this kind, of one of them, and of its verification."""
    shown, words, name = connection_of(kind), kind.words, kind.name

    class Connections(ConnectionView):
        refusals = ()

        @extend_schema(
            operation_id=f"list_{name}s".replace("ss", "s"),
            parameters=[ConnectionFilterSerializer],
            responses=page_of(shown, kind.model.__name__),
            description=f"Each {words} of the organization, by name. It takes a manager's key for the organization.",
        )
        def get(self, request: Request) -> Response:
            asked, key = valid_query(request, ConnectionFilterSerializer), key_of(request)
            require_all_of(key.organization_id, key)
            rows = kind.model.objects.filter(organization=require_manager(request).organization_id)
            found, cursor = slice_of(asked, narrowed(rows, asked, {"name": "name"}), BY_NAME)
            return Response({"items": each(shown, found), "next_cursor": cursor})

        @extend_schema(
            operation_id=f"create_{name}",
            parameters=MAKING,
            request=connection_creation_of(kind),
            responses={201: shown},
            description=f"Create {words}. It takes a manager's key for the organization.",
        )
        def post(self, request: Request) -> Any:
            told = valid_body(request, connection_creation_of(kind))
            row = kind.model(organization_id=key_of(request).organization_id)
            return created(request, told, lambda: (row, told), self.show)

    class One(ConnectionView):
        @extend_schema(
            operation_id=f"get_{name}", responses=shown, description=f"One {words}. Its secret is never answered."
        )
        def get(self, request: Request, connection_id: str) -> Response:
            row = self.found(request, connection_id)
            require_manager(request)
            return self.show(row)

        @extend_schema(
            operation_id=f"update_{name}",
            parameters=CHANGING,
            request=connection_change_of(kind),
            responses=shown,
            description=f"Change {words}. Members that are left out stay as they are, the secret too.",
        )
        def patch(self, request: Request, connection_id: str) -> Any:
            uuid_of(connection_id)
            told, asked = valid_body(request, connection_change_of(kind)), asked_of(request)
            return changed(request, self.found(request, connection_id), told, asked, self.show)

        @extend_schema(
            operation_id=f"delete_{name}",
            parameters=CHANGING,
            responses={204: None},
            description=f"Delete {words} that no level points to.",
        )
        def delete(self, request: Request, connection_id: str) -> Response:
            uuid_of(connection_id)
            asked = asked_of(request)
            return deleted(request, self.found(request, connection_id), asked)

    class Verify(ConnectionView):
        refusals_of_writing = ()

        @extend_schema(
            operation_id=f"verify_{name}",
            parameters=[DryRunSerializer],
            request=None,
            responses=VerificationSerializer,
            description=f"Really connect as {words} says, within three seconds. What was found is kept with it.",
        )
        def post(self, request: Request, connection_id: str) -> Response:
            uuid_of(connection_id)
            asked = asked_of(request, is_new=True)
            row = self.found(request, connection_id)
            editor = editor_of(request, asked)
            if asked.is_dry_run:
                return told_of(Outlook({}))
            with VERIFYING.of(f"organization:{row.organization_id}"):
                verification, is_kept = verify_stored(row, actor=editor.actor)
            return Response(VerificationSerializer({**vars(verification), "is_kept": is_kept}).data)

    views = (Connections, One, Verify)
    for view in views:
        view.kind = kind
    return views
