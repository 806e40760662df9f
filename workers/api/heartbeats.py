"""What running workers call: heartbeats in both forms, and the goodbye."""

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from workers.api.authentication import key_of, signed_key_of
from workers.api.refusals import RunningWorkerView
from workers.api.requests import client_of, uuid_of, valid_body
from workers.api.serializers.workers import (
    DisconnectRequestSerializer,
    HeartbeatRequestSerializer,
    SimpleHeartbeatRequestSerializer,
)
from workers.lifecycle import Goodbye, Heartbeat, disconnect_worker, record_heartbeat


class HeartbeatApiView(RunningWorkerView):
    """What every heartbeat has in common: the statement that notes it asks the key's row, too."""

    call = "heartbeat"
    asks_key_itself = True
    refusals = (404, 409)


class HeartbeatView(HeartbeatApiView):
    """The heartbeat of a worker, full or light."""

    @extend_schema(operation_id="record_heartbeat", request=HeartbeatRequestSerializer, responses={204: None})
    def post(self, request: Request, worker_id: str) -> HttpResponse:
        """Tell that a worker lives. Without `system_info` and `logs` the last ones are kept."""
        identifier = uuid_of(worker_id)
        return _record(request, identifier, valid_body(request, HeartbeatRequestSerializer))


class SimpleHeartbeatView(HeartbeatApiView):
    """The heartbeat of a worker that names itself in the body."""

    @extend_schema(
        operation_id="record_simple_heartbeat", request=SimpleHeartbeatRequestSerializer, responses={204: None}
    )
    def post(self, request: Request) -> HttpResponse:
        """Tell that a worker lives, naming it and its environment in the body."""
        body = valid_body(request, SimpleHeartbeatRequestSerializer)
        environment_name = body.pop("environment_name")
        self.worker_in_body = uuid_of(body.pop("worker_id"))
        return _record(request, self.worker_in_body, body, environment_name)


class DisconnectView(RunningWorkerView):
    """The goodbye of a worker."""

    call = "goodbye"

    @extend_schema(operation_id="disconnect_worker", request=DisconnectRequestSerializer, responses={204: None})
    def post(self, request: Request, worker_id: str) -> Response:
        """Tell that a worker ends, and why. Repeating it changes nothing."""
        identifier = uuid_of(worker_id)
        goodbye = Goodbye(**valid_body(request, DisconnectRequestSerializer))
        disconnect_worker(identifier, goodbye, api_key=key_of(request), client=client_of(request), now=times.now())
        return Response(status=204)


def _record(request: Request, worker_id: UUID, body: dict[str, Any], environment_name: str = "") -> HttpResponse:
    record_heartbeat(
        worker_id,
        Heartbeat(activity=body.pop("status"), **body),
        environment_name=environment_name,
        key=signed_key_of(request),
        client=client_of(request),
        now=times.now(),
    )
    return HttpResponse(status=204)
