"""The boot calls: of a worker by its id, of a new worker in a queue, of one that registers in an environment."""

from dataclasses import replace
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from environments.encryption import CannotOpenError
from workers.api.authentication import key_of, presented_key, signed_key_of
from workers.api.refusals import NotingView
from workers.api.requests import answer, client_of, uuid_of, valid_body
from workers.api.serializers.workers import (
    QueueStartRequestSerializer,
    QueueStartResponseSerializer,
    RegisterRequestSerializer,
    RegisterResponseSerializer,
    WorkerConfigResponseSerializer,
    WorkerStartRequestSerializer,
    http_url,
)
from workers.api.throttles import ApiKeyThrottle, WorkerThrottle
from workers.api_keys.presented import UnusableKeyError
from workers.lifecycle import register_worker, start_in_queue, start_worker
from workers.lifecycle.process import EVIDENCE
from workers.lifecycle.refusals import record_refused_start
from workers.lifecycle.starts import Attempt

#: Refusals of the caller, beside a secret that does not open: no other method, no throttle, no failure of ours.
REFUSALS = frozenset({400, 401, 403, 404, 409, 413, 415, 422})


class BootView(NotingView):
    """A boot call: of a refused one it is noted why, with its key."""

    asks_key_itself = True
    refusals = (404, 409)
    #: Whether it makes the worker that it starts, so that its path names none.
    makes_worker = False
    tried: Attempt | None = None

    def attempt(self, request: Request, system_info: dict[str, Any]) -> Attempt:
        """Who would start what, from where."""
        self.tried = Attempt(signed_key_of(request), system_info, client_of(request), times.now())
        return self.tried

    def note(self, error: Exception, response: Response) -> None:
        """With the key, be it usable or not, if it is genuine."""
        if response.status_code not in REFUSALS and not isinstance(error, CannotOpenError):
            return
        hostname = self.tried.process.hostname if self.tried else ""
        refused = replace(self.refused(error, response), hostname=hostname)
        is_named = self.makes_worker or self.named_worker is not None
        is_known = is_named and response.status_code != HTTPStatus.NOT_FOUND
        if isinstance(error, UnusableKeyError):
            record_refused_start(error.api_key, refused, is_known=is_known)
        elif self.request.auth and response.status_code != HTTPStatus.UNAUTHORIZED:
            record_refused_start(key_of(self.request), refused, is_known=is_known)


class StartWorkerView(BootView):
    """The boot call of a worker."""

    throttle_classes = (ApiKeyThrottle, WorkerThrottle)

    @extend_schema(
        operation_id="start_worker_api_v1_workers__worker_id__start_post",
        request=WorkerStartRequestSerializer,
        responses={200: WorkerConfigResponseSerializer},
    )
    def post(self, request: Request, worker_id: str) -> HttpResponse:
        """Start a worker and fetch its configuration."""
        identifier = uuid_of(worker_id)
        body = valid_body(request, WorkerStartRequestSerializer)
        configuration = start_worker(identifier, self.attempt(request, body["system_info"]))
        return answer(WorkerConfigResponseSerializer, configuration)


class StartInQueueView(BootView):
    """The boot call of a worker that knows only its queue."""

    makes_worker = True
    is_body_optional = True

    @extend_schema(
        operation_id="start_worker_in_queue",
        request=QueueStartRequestSerializer,
        responses={200: QueueStartResponseSerializer},
    )
    def post(self, request: Request, queue_id: str) -> HttpResponse:
        """Make a worker in this queue, start it, and fetch its configuration."""
        identifier = uuid_of(queue_id)
        body = valid_body(request, QueueStartRequestSerializer)
        started = start_in_queue(identifier, self.attempt(request, body["system_info"]))
        if own_url := http_url(body["control_plane_url"]):  # the one that works from where the worker runs
            started = replace(started, configuration=replace(started.configuration, control_plane_url=own_url))
        return answer(QueueStartResponseSerializer, started)


class RegisterWorkerView(BootView):
    """The boot call of a worker that knows only its environment."""

    makes_worker = True

    @extend_schema(
        operation_id="register_worker",
        request=RegisterRequestSerializer,
        responses={200: RegisterResponseSerializer},
    )
    def post(self, request: Request) -> Response:
        """Make a worker in the environment's queue `default`, start it, and fetch how to reach Temporal."""
        body = valid_body(request, RegisterRequestSerializer)
        metadata = body["worker_metadata"]
        named = {"hostname": body["hostname"], "worker_metadata": metadata}
        told = {name: metadata[name] for name in EVIDENCE if name in metadata} | body["system_info"]
        attempt = self.attempt(request, told | {name: value for name, value in named.items() if value})
        started = register_worker(body["environment_name"], attempt)
        return Response(RegisterResponseSerializer(started, context={"presented_key": presented_key(request)}).data)
