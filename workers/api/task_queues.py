"""Task queues with the processes that poll them, as the SDK lists workers."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from workers.api.authentication import key_of
from workers.api.listing import each, page
from workers.api.requests import WorkerApiView
from workers.api.serializers.queues import PageSerializer, TaskQueueSerializer
from workers.api_keys.access import UnknownObjectError, permit
from workers.models import WorkerQueue
from workers.reports.task_queues import describe_task_queues


class TaskQueuesView(WorkerApiView):
    """The task queues that the key reaches."""

    refusals = ()

    @extend_schema(operation_id="list_workers", parameters=[PageSerializer], responses=TaskQueueSerializer(many=True))
    def get(self, request: Request) -> Response:
        """The task queues that the key covers and who polls them; none for a worker's key."""
        queues = WorkerQueue.objects.covered_by(key_of(request)).select_related("environment")
        rows, headers = page(request, queues)
        return Response(each(TaskQueueSerializer, describe_task_queues(rows, times.now())), headers=headers)


class TaskQueueView(WorkerApiView):
    """One task queue."""

    @extend_schema(operation_id="get_workers", responses=TaskQueueSerializer)
    def get(self, request: Request, runner_name: str) -> Response:
        """One task queue, named `environment.queue`, and who polls it."""
        environment, _, name = runner_name.partition(".")
        key = key_of(request)
        if not (environment.isascii() and name.isascii() and environment.isprintable() and name.isprintable()):
            raise UnknownObjectError
        queues = WorkerQueue.objects.select_related("environment").filter(organization=key.organization_id)
        queue = permit(queues.filter(environment__name=environment, name=name).first(), key)
        return Response(TaskQueueSerializer(describe_task_queues([queue], times.now())[0]).data)
