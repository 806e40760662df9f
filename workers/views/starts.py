"""The boot calls: of a worker by its id, of a new worker in a queue, of one that registers in an environment."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from workers.authentication import key_of, presented_key
from workers.lifecycle import register_worker, start_in_queue, start_worker
from workers.lifecycle.starts import Attempt
from workers.serializers import (
    QueueStartRequestSerializer,
    QueueStartResponseSerializer,
    RegisterRequestSerializer,
    RegisterResponseSerializer,
    WorkerConfigResponseSerializer,
    WorkerStartRequestSerializer,
)
from workers.throttles import ApiKeyThrottle, WorkerThrottle
from workers.views.requests import WorkerApiView, client_of, uuid_of, valid_body


class StartWorkerView(WorkerApiView):
    """The boot call of a worker."""

    http_method_names = ("post",)
    refusals = (404, 409)
    throttle_classes = (ApiKeyThrottle, WorkerThrottle)

    @extend_schema(
        operation_id="start_worker_api_v1_workers__worker_id__start_post",
        request=WorkerStartRequestSerializer,
        responses={200: WorkerConfigResponseSerializer},
    )
    def post(self, request: Request, worker_id: str) -> Response:
        """Start a worker and fetch its configuration."""
        identifier = uuid_of(worker_id)
        body = valid_body(request, WorkerStartRequestSerializer)
        configuration = start_worker(identifier, _attempt(request, body["system_info"]))
        return Response(WorkerConfigResponseSerializer(configuration).data)


class StartInQueueView(WorkerApiView):
    """The boot call of a worker that knows only its queue."""

    http_method_names = ("post",)
    refusals = (404, 409)
    is_body_optional = True

    @extend_schema(
        operation_id="start_worker_in_queue",
        request=QueueStartRequestSerializer,
        responses={200: QueueStartResponseSerializer},
    )
    def post(self, request: Request, queue_id: str) -> Response:
        """Make a worker in this queue, start it, and fetch its configuration."""
        identifier = uuid_of(queue_id)
        body = valid_body(request, QueueStartRequestSerializer, is_optional=self.is_body_optional)
        started = start_in_queue(identifier, _attempt(request, body["system_info"]))
        return Response(QueueStartResponseSerializer(started, context={"own_url": body["control_plane_url"]}).data)


class RegisterWorkerView(WorkerApiView):
    """The boot call of a worker that knows only its environment."""

    http_method_names = ("post",)
    refusals = (404, 409)

    @extend_schema(
        operation_id="register_worker",
        request=RegisterRequestSerializer,
        responses={200: RegisterResponseSerializer},
    )
    def post(self, request: Request) -> Response:
        """Make a worker in the environment's queue `default`, start it, and fetch how to reach Temporal."""
        body = valid_body(request, RegisterRequestSerializer)
        told = {"hostname": body["hostname"], "worker_metadata": body["worker_metadata"]}
        attempt = _attempt(request, {name: value for name, value in told.items() if value})
        started = register_worker(body["environment_name"], attempt)
        return Response(RegisterResponseSerializer(started, context={"presented_key": presented_key(request)}).data)


def _attempt(request: Request, system_info: dict[str, Any]) -> Attempt:
    return Attempt(key_of(request), system_info, client_of(request), timezone.now())
