"""The lock by which the command line coordinates updates of a queue's workers."""

from datetime import timedelta

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from environments import times
from workers.api.authentication import key_of
from workers.api.requests import WorkerApiView, client_of, uuid_of, valid_body
from workers.api.serializers.queues import (
    UpdateLockRequestSerializer,
    UpdateLockSerializer,
    UpdateLockStatusSerializer,
    lock_status,
)
from workers.api_keys.access import UnknownObjectError, reach
from workers.lifecycle.process import Process
from workers.lifecycle.update_locks import acquire_update_lock, held_lock, release_update_lock
from workers.models import WorkerQueue

LONGEST_HOLDER = 200


class UpdateLockView(WorkerApiView):
    """A queue's update lock, for one holder."""

    refusals = (404, 409)

    @extend_schema(
        operation_id="acquire_update_lock", request=UpdateLockRequestSerializer, responses=UpdateLockSerializer
    )
    def post(self, request: Request, queue_id: str, worker_id: str) -> Response:
        """Take the queue's update lock, or prolong it."""
        identifier, holder = uuid_of(queue_id), _holder(worker_id)
        body = valid_body(request, UpdateLockRequestSerializer)
        lock = acquire_update_lock(
            identifier,
            holder=holder,
            duration=timedelta(seconds=body["lock_duration_seconds"]),
            api_key=key_of(request),
            now=times.now(),
            process_digest=Process.of(body["system_info"], client_of(request)).digest,
        )
        return Response(UpdateLockSerializer(lock).data)

    @extend_schema(operation_id="release_update_lock", responses={204: None})
    def delete(self, request: Request, queue_id: str, worker_id: str) -> Response:
        """Give the queue's update lock back."""
        identifier, holder = uuid_of(queue_id), _holder(worker_id)
        release_update_lock(identifier, holder=holder, api_key=key_of(request), now=times.now())
        return Response(status=204)


class UpdateLockStatusView(WorkerApiView):
    """Whether a queue's update lock is held."""

    @extend_schema(operation_id="get_update_lock_status", responses=UpdateLockStatusSerializer)
    def get(self, request: Request, queue_id: str) -> Response:
        """Who holds the queue's update lock, and for how long."""
        now = times.now()
        queue = reach(WorkerQueue.objects.all(), uuid_of(queue_id), key_of(request))
        return Response(UpdateLockStatusSerializer(lock_status(queue, held_lock(queue, now), now)).data)


def _holder(text: str) -> str:
    """The worker as the caller names it: any printable text."""
    if len(text) > LONGEST_HOLDER or not text.isprintable():
        raise UnknownObjectError
    return text
