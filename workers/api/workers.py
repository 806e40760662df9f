"""Registered workers and what managers make of them; what existing clients list as workers are task queues."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from workers.api.authentication import key_of
from workers.api.listing import BY_NAME, FilterSerializer, each, narrowed, page_of, slice_of
from workers.api.managing import CHANGING, MAKING, ClosedView, asked_of, changed, created, deleted, with_version
from workers.api.requests import uuid_of, valid_body, valid_query
from workers.api.serializers.exact import Id
from workers.api.serializers.managed import WorkerChangeSerializer, WorkerCreateSerializer, WorkerSerializer
from workers.api_keys.access import reach
from workers.models import ApiKey, Liveness, State, Worker, WorkerQueue
from workers.reports.registered import describe_workers, with_what_is_told

WORKER_PAGE = page_of(WorkerSerializer, "RegisteredWorker")
LOOKUPS = {
    "name": "name",
    "environment_id": "queue__environment",
    "queue_id": "queue",
    "liveness": "liveness",
    "state": "state",
    "is_ephemeral": "is_ephemeral",
}


class WorkerFilterSerializer(FilterSerializer):
    """Which workers are asked for."""

    name = serializers.CharField(required=False)
    environment_id = Id(required=False)
    queue_id = Id(required=False)
    liveness = serializers.ChoiceField([str(one) for one in Liveness], required=False)
    state = serializers.ChoiceField([str(one) for one in State], required=False)
    is_ephemeral = serializers.BooleanField(required=False)


class WorkersView(ClosedView):
    """The workers that the key reaches."""

    refusals = ()
    refusals_of_writing = (404, 409)

    @extend_schema(operation_id="list_registered_workers", parameters=[WorkerFilterSerializer], responses=WORKER_PAGE)
    def get(self, request: Request) -> Response:
        """The workers that the key covers, by name."""
        asked, key, now = valid_query(request, WorkerFilterSerializer), key_of(request), times.now()
        keys = ApiKey.objects.filter(pk=key.pk)
        rows = Worker.objects.filter(organization=key.organization_id).covered_by(keys)
        shown = with_what_is_told(rows, now)
        found, cursor = slice_of(asked, narrowed(shown, asked, LOOKUPS), BY_NAME)
        return Response({"items": each(WorkerSerializer, describe_workers(found, now)), "next_cursor": cursor})

    @extend_schema(
        operation_id="create_registered_worker",
        parameters=MAKING,
        request=WorkerCreateSerializer,
        responses={201: WorkerSerializer},
    )
    def post(self, request: Request) -> Any:
        """Create a worker in a worker queue."""
        told = valid_body(request, WorkerCreateSerializer)

        def place() -> tuple[Worker, dict[str, Any]]:
            queue = _queue(request, told)
            worker = Worker(organization_id=queue.organization_id, queue=queue)
            return worker, {name: value for name, value in told.items() if name != "queue_id"}

        return created(request, told, place, _shown)


class WorkerView(ClosedView):
    """One registered worker."""

    @extend_schema(operation_id="get_registered_worker", responses=WorkerSerializer)
    def get(self, request: Request, worker_id: str) -> Response:
        """One worker, and how it is."""
        return _shown(_worker(request, worker_id))

    @extend_schema(
        operation_id="update_registered_worker",
        parameters=CHANGING,
        request=WorkerChangeSerializer,
        responses=WorkerSerializer,
    )
    def patch(self, request: Request, worker_id: str) -> Any:
        """Change a worker, disable, drain or enable it. Members that are left out stay as they are."""
        uuid_of(worker_id)
        told, asked = valid_body(request, WorkerChangeSerializer), asked_of(request)
        worker = _worker(request, worker_id)
        values = dict(told)
        if values.pop("queue_id", worker.queue_id) != worker.queue_id:
            values["queue"] = _queue(request, told)
        return changed(request, worker, values, asked, _shown)

    @extend_schema(operation_id="delete_registered_worker", parameters=CHANGING, responses={204: None})
    def delete(self, request: Request, worker_id: str) -> Response:
        """Delete a worker of which no process lives, and for which no usable API key is."""
        uuid_of(worker_id)
        asked = asked_of(request)
        return deleted(request, _worker(request, worker_id), asked)


def _queue(request: Request, told: dict[str, Any]) -> WorkerQueue:
    return reach(WorkerQueue.objects.select_related("environment"), told["queue_id"], key_of(request))


def _worker(request: Request, worker_id: str) -> Worker:
    return reach(Worker.objects.select_related("queue__environment"), uuid_of(worker_id), key_of(request))


def _shown(worker: Worker, status: int = 200) -> Response:
    now = times.now()
    found = with_what_is_told(Worker.objects.all(), now).get(pk=worker.pk)
    (described,) = describe_workers([found], now)
    return with_version(Response(WorkerSerializer(described).data, status=status), found)
