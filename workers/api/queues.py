"""Worker queues: what readers ask of them, and what managers make of them."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from environments.models import Environment
from workers.api.authentication import key_of
from workers.api.listing import each, page, part
from workers.api.managing import CHANGING, MAKING, ManagingView, asked_of, changed, created, deleted, with_version
from workers.api.requests import WorkerApiView, uuid_of, valid_body, valid_query
from workers.api.serializers.exact import Id
from workers.api.serializers.management import STATES, QueueChangeSerializer, QueueCreateSerializer, queue_values
from workers.api.serializers.queues import (
    PageSerializer,
    QueueConfigSerializer,
    QueueMetricsSerializer,
    WorkerCommandSerializer,
    WorkerDetailSerializer,
    WorkerQueueSerializer,
    queue_status,
)
from workers.api_keys.access import reach
from workers.installation.queue import DeploymentType, install_script, worker_command
from workers.models import WorkerQueue
from workers.models.states import state_of
from workers.reports.queues import (
    configuration_of,
    describe_queues,
    instances_of,
    live_instances_of,
    measure_queue,
    with_reports,
)

#: How many processes of a queue are told of with those that ended: the ones heard of last.
MOST_PROCESSES = 1_000


LOOKUPS = {"name": "name", "environment_id": "environment", "tag": "tags__has_tag"}


class QueueFilterSerializer(PageSerializer):
    """Which worker queues of an environment are asked for."""

    name = serializers.CharField(required=False)
    status = serializers.ChoiceField(list(STATES), required=False)
    tag = serializers.CharField(required=False)


class AnyQueueFilterSerializer(QueueFilterSerializer):
    """Which worker queues are asked for."""

    environment_id = Id(required=False)


class QueuesView(WorkerApiView):
    """The worker queues that the key reaches."""

    refusals = ()

    @extend_schema(
        operation_id="list_worker_queues",
        parameters=[AnyQueueFilterSerializer],
        responses=WorkerQueueSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """The worker queues that the key covers; none for a worker's key."""
        return _queues(request, WorkerQueue.objects.covered_by(key_of(request)), AnyQueueFilterSerializer)


class EnvironmentQueuesView(ManagingView):
    """The worker queues of one environment."""

    @extend_schema(
        operation_id="list_environment_worker_queues",
        parameters=[QueueFilterSerializer],
        responses=WorkerQueueSerializer(many=True),
    )
    def get(self, request: Request, environment_id: str) -> Response:
        """The worker queues of one environment, `default` first."""
        environment = reach(Environment.objects.all(), uuid_of(environment_id), key_of(request))
        return _queues(request, WorkerQueue.objects.filter(environment=environment), QueueFilterSerializer)

    @extend_schema(
        operation_id="create_worker_queue",
        parameters=MAKING,
        request=QueueCreateSerializer,
        responses={201: WorkerQueueSerializer},
    )
    def post(self, request: Request, environment_id: str) -> Any:
        """Create a worker queue in the environment."""
        identifier = uuid_of(environment_id)
        told = valid_body(request, QueueCreateSerializer)

        def place() -> tuple[WorkerQueue, dict[str, Any]]:
            environment = reach(Environment.objects.all(), identifier, key_of(request))
            row = WorkerQueue(organization_id=environment.organization_id, environment=environment)
            return row, queue_values({**told})

        return created(request, told, place, _shown)


class QueueView(ManagingView):
    """One worker queue."""

    @extend_schema(operation_id="get_worker_queue", responses=WorkerQueueSerializer)
    def get(self, request: Request, queue_id: str) -> Response:
        """One worker queue and its live processes."""
        return _shown(_queue(request, queue_id))

    @extend_schema(
        operation_id="update_worker_queue",
        parameters=CHANGING,
        request=QueueChangeSerializer,
        responses=WorkerQueueSerializer,
    )
    def patch(self, request: Request, queue_id: str) -> Any:
        """Change a worker queue. Members that are left out stay as they are."""
        uuid_of(queue_id)
        told, asked = valid_body(request, QueueChangeSerializer), asked_of(request)
        queue = _queue(request, queue_id)
        return changed(request, queue, queue_values(told, queue), asked, _shown)

    @extend_schema(operation_id="delete_worker_queue", parameters=CHANGING, responses={204: None})
    def delete(self, request: Request, queue_id: str) -> Response:
        """Delete a worker queue with its ephemeral workers, all of which have to have ended."""
        uuid_of(queue_id)
        asked = asked_of(request)
        return deleted(request, _queue(request, queue_id), asked)


class ProcessesSerializer(PageSerializer):
    """Which processes are asked for; what comes and goes has no cursor."""

    cursor = None  # type: ignore[assignment]  # how DRF leaves a field out
    status = serializers.ChoiceField(
        ["live", "all"], default="live", help_text=f"`all`: with those that ended; at most {MOST_PROCESSES}."
    )


class QueueWorkersView(WorkerApiView):
    """The processes of a queue's workers."""

    @extend_schema(
        operation_id="list_worker_queue_workers",
        parameters=[ProcessesSerializer],
        responses=WorkerDetailSerializer(many=True),
    )
    def get(self, request: Request, queue_id: str) -> Response:
        """The processes that live or, if asked for, the latest of each worker, too; heard of last comes first."""
        queue, asked = _queue(request, queue_id), valid_query(request, ProcessesSerializer)
        now = times.now()
        is_live = asked["status"] == "live"
        found = live_instances_of(queue, now) if is_live else instances_of(now, worker__queue=queue)[:MOST_PROCESSES]
        rows, headers = part(asked, found)
        return Response(each(WorkerDetailSerializer, with_reports(rows)), headers=headers)


class QueueConfigView(WorkerApiView):
    """A queue's configuration, by version."""

    @extend_schema(operation_id="get_worker_queue_config", responses=QueueConfigSerializer)
    def get(self, request: Request, queue_id: str) -> Response:
        """The version of what the queue's workers are given; it reveals no secret."""
        queue = reach(WorkerQueue.objects.with_chain(), uuid_of(queue_id), key_of(request))
        return Response(QueueConfigSerializer(configuration_of(queue)).data)


class QueueMetricsView(WorkerApiView):
    """A queue's figures."""

    @extend_schema(operation_id="get_worker_queue_metrics", responses=QueueMetricsSerializer)
    def get(self, request: Request, queue_id: str) -> Response:
        """How many processes live and what they did."""
        return Response(QueueMetricsSerializer(measure_queue(_queue(request, queue_id), times.now())).data)


class WorkerCommandView(WorkerApiView):
    """How a worker of the queue is started."""

    @extend_schema(operation_id="get_worker_command", responses=WorkerCommandSerializer)
    def get(self, request: Request, queue_id: str) -> Response:
        """The command that starts a worker of the queue; it takes the API key from its environment."""
        queue = _queue(request, queue_id)
        (described,) = describe_queues([queue], times.now())
        active, status, command = described.counts.active, queue_status(queue), worker_command(queue)
        shown = {
            "queue_id": queue.pk,
            "command": command.command,
            "command_parts": command.parts,
            "can_register": status == "active" and (queue.max_workers is None or active < queue.max_workers),
            "queue_status": status,
            "active_workers": active,
            "max_workers": queue.max_workers,
        }
        return Response(WorkerCommandSerializer(shown).data)


class DeploymentSerializer(serializers.Serializer[dict[str, Any]]):
    """Where the worker is to run."""

    deployment_type = serializers.ChoiceField(DeploymentType.choices, default=DeploymentType.LOCAL)


class InstallScriptView(WorkerApiView):
    """The text that installs and starts a worker of the queue."""

    @extend_schema(
        operation_id="get_install_script",
        parameters=[DeploymentSerializer],
        responses={(200, "text/plain"): OpenApiResponse(OpenApiTypes.STR)},
    )
    def get(self, request: Request, queue_id: str) -> HttpResponse:
        """A shell script, or a manifest, that starts a worker of the queue, or scales it; it holds no key."""
        queue = _queue(request, queue_id)
        deployment_type = DeploymentType(valid_query(request, DeploymentSerializer)["deployment_type"])
        return HttpResponse(install_script(queue, deployment_type), content_type="text/plain; charset=utf-8")


def _queue(request: Request, queue_id: str) -> WorkerQueue:
    return reach(WorkerQueue.objects.select_related("environment"), uuid_of(queue_id), key_of(request))


def _queues(request: Request, queues: QuerySet[WorkerQueue], filters: type[QueueFilterSerializer]) -> Response:
    status = valid_query(request, filters).get("status")
    queues = queues.alias(state=state_of(times.now())).filter(state=STATES[status]) if status else queues
    rows, headers = page(request, queues.select_related("environment"), filters, LOOKUPS)
    return Response(each(WorkerQueueSerializer, describe_queues(rows, times.now())), headers=headers)


def _shown(queue: WorkerQueue, status: int = 200) -> Response:
    (described,) = describe_queues([queue], times.now())
    return with_version(Response(WorkerQueueSerializer(described).data, status=status), queue)
