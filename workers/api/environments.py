"""Environments: what readers ask of them, and what managers make of them."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from environments.models import Environment
from workers.api.authentication import key_of
from workers.api.listing import each, page
from workers.api.managing import ManagingView, editor_of
from workers.api.requests import WorkerApiView, uuid_of, valid_body
from workers.api.serializers.management import (
    EnvironmentChangeSerializer,
    EnvironmentCreateSerializer,
    environment_values,
)
from workers.api.serializers.queues import EnvironmentCommandSerializer, EnvironmentSerializer, PageSerializer
from workers.api_keys.access import environments_covered_by, reach
from workers.fleet.editing import change, create_environment, delete_environment
from workers.installation.command_line import environment_command
from workers.reports.queues import describe_environments


class EnvironmentsView(ManagingView):
    """The environments that the key reaches."""

    refusals = ()

    @extend_schema(
        operation_id="list_environments", parameters=[PageSerializer], responses=EnvironmentSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        """The environments that the key covers, `default` first; none for a key of a queue or a worker."""
        rows, headers = page(request, environments_covered_by(key_of(request)))
        return Response(each(EnvironmentSerializer, describe_environments(rows, times.now())), headers=headers)

    @extend_schema(
        operation_id="create_environment", request=EnvironmentCreateSerializer, responses={201: EnvironmentSerializer}
    )
    def post(self, request: Request) -> Response:
        """Create an environment. It takes a manager's key for the organization."""
        values = environment_values(valid_body(request, EnvironmentCreateSerializer), {})
        environment = create_environment(key_of(request).organization_id, values, editor_of(request))
        return _shown(environment, 201)


class EnvironmentView(ManagingView):
    """One environment."""

    @extend_schema(operation_id="get_environment", responses=EnvironmentSerializer)
    def get(self, request: Request, environment_id: str) -> Response:
        """One environment and its live processes."""
        return _shown(_environment(request, environment_id))

    @extend_schema(
        operation_id="update_environment", request=EnvironmentChangeSerializer, responses=EnvironmentSerializer
    )
    def patch(self, request: Request, environment_id: str) -> Response:
        """Change an environment. Members that are left out stay as they are."""
        uuid_of(environment_id)
        told = valid_body(request, EnvironmentChangeSerializer)
        environment = _environment(request, environment_id)
        values = environment_values(told, environment.execution_environment)
        return _shown(change(environment, values, editor_of(request)))

    @extend_schema(operation_id="delete_environment", responses={204: None})
    def delete(self, request: Request, environment_id: str) -> Response:
        """Delete an environment. Its worker queues have to be deleted before."""
        delete_environment(_environment(request, environment_id), editor_of(request))
        return Response(status=204)


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
    return Response(EnvironmentSerializer(described).data, status=status)
