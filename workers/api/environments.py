"""Environments: what readers ask of them, and what managers make of them."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from environments.models import Environment
from workers.api.authentication import key_of
from workers.api.listing import each, page
from workers.api.managing import CHANGING, MAKING, ManagingView, asked_of, changed, created, deleted, with_version
from workers.api.requests import WorkerApiView, uuid_of, valid_body
from workers.api.serializers.management import (
    EnvironmentChangeSerializer,
    EnvironmentCreateSerializer,
    environment_values,
)
from workers.api.serializers.queues import EnvironmentCommandSerializer, EnvironmentSerializer, PageSerializer
from workers.api_keys.access import environments_covered_by, reach
from workers.installation.command_line import environment_command
from workers.reports.queues import describe_environments

LOOKUPS = {"name": "name", "tag": "tags__has_tag"}


class EnvironmentFilterSerializer(PageSerializer):
    """Which environments are asked for."""

    name = serializers.CharField(required=False)
    tag = serializers.CharField(required=False)


class EnvironmentsView(ManagingView):
    """The environments that the key reaches."""

    refusals = ()

    @extend_schema(
        operation_id="list_environments",
        parameters=[EnvironmentFilterSerializer],
        responses=EnvironmentSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """The environments that the key covers, `default` first; none for a key of a queue or a worker."""
        rows, headers = page(request, environments_covered_by(key_of(request)), EnvironmentFilterSerializer, LOOKUPS)
        return Response(each(EnvironmentSerializer, describe_environments(rows, times.now())), headers=headers)

    @extend_schema(
        operation_id="create_environment",
        parameters=MAKING,
        request=EnvironmentCreateSerializer,
        responses={201: EnvironmentSerializer},
    )
    def post(self, request: Request) -> Any:
        """Create an environment. It takes a manager's key for the organization."""
        told = valid_body(request, EnvironmentCreateSerializer)
        row = Environment(organization_id=key_of(request).organization_id)
        return created(request, told, lambda: (row, environment_values({**told}, {})), _shown)


class EnvironmentView(ManagingView):
    """One environment."""

    @extend_schema(operation_id="get_environment", responses=EnvironmentSerializer)
    def get(self, request: Request, environment_id: str) -> Response:
        """One environment and its live processes."""
        return _shown(_environment(request, environment_id))

    @extend_schema(
        operation_id="update_environment",
        parameters=CHANGING,
        request=EnvironmentChangeSerializer,
        responses=EnvironmentSerializer,
    )
    def patch(self, request: Request, environment_id: str) -> Any:
        """Change an environment. Members that are left out stay as they are."""
        uuid_of(environment_id)
        told, asked = valid_body(request, EnvironmentChangeSerializer), asked_of(request)
        environment = _environment(request, environment_id)
        values = environment_values(told, environment.execution_environment)
        return changed(request, environment, values, asked, _shown)

    @extend_schema(operation_id="delete_environment", parameters=CHANGING, responses={204: None})
    def delete(self, request: Request, environment_id: str) -> Response:
        """Delete an environment. Its worker queues have to be deleted before."""
        uuid_of(environment_id)
        asked = asked_of(request)
        return deleted(request, _environment(request, environment_id), asked)


class EnvironmentCommandView(WorkerApiView):
    """How a worker of the environment is started with the command line."""

    refusals = (404, 409)

    @extend_schema(operation_id="get_environment_worker_command", responses=EnvironmentCommandSerializer)
    def get(self, request: Request, environment_id: str) -> Response:
        """The command that starts a worker of the environment's queue `default`."""
        return Response(environment_command(_environment(request, environment_id)))


def _environment(request: Request, environment_id: str) -> Environment:
    return reach(Environment.objects.all(), uuid_of(environment_id), key_of(request))


def _shown(environment: Environment, status: int = 200) -> Response:
    (described,) = describe_environments([environment], times.now())
    return with_version(Response(EnvironmentSerializer(described).data, status=status), environment)
