"""The worker API: each view translates HTTP in, makes one call to the domain, and translates out."""

from typing import IO, Any, ClassVar, cast
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from workers.authentication import key_of
from workers.lifecycle import Client, UnknownWorkerError, start_worker
from workers.serializers import WorkerConfigResponseSerializer, WorkerStartRequestSerializer
from workers.throttles import ApiKeyThrottle, WorkerThrottle
from workers.tokens import UUID_TEXT


class StartWorkerView(APIView):
    """The boot call of a worker."""

    http_method_names = ("post",)
    default_response_headers: ClassVar[dict[str, str]] = {}  # DRF's would tell a known route's 404 from another's
    throttle_classes = (ApiKeyThrottle, WorkerThrottle)

    @extend_schema(
        operation_id="start_worker_api_v1_workers__worker_id__start_post",
        request=WorkerStartRequestSerializer,
        responses={200: WorkerConfigResponseSerializer},
    )
    def post(self, request: Request, worker_id: str) -> Response:
        """Start a worker and fetch its configuration."""
        identifier = worker_uuid(worker_id)
        configuration = start_worker(
            identifier,
            api_key=key_of(request),
            system_info=valid_body(request, WorkerStartRequestSerializer)["system_info"],
            client=client_of(request),
            now=timezone.now(),
        )
        return Response(WorkerConfigResponseSerializer(configuration).data)


def worker_uuid(text: str) -> UUID:
    """The id in its canonical spelling; UnknownWorkerError for others, which `uuid.UUID` would take."""
    if not UUID_TEXT.fullmatch(text):
        raise UnknownWorkerError
    return UUID(text)


def valid_body(request: Request, serializer_class: type[Serializer[Any]]) -> dict[str, Any]:
    """The validated body.

    The parser is called directly, since `request.data` takes an empty body for `{}`, where the contract requires one.
    """
    (parser,) = request.parsers or ()
    serializer = serializer_class(data=parser.parse(cast("IO[Any]", request._request)))
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def client_of(request: Request) -> Client:
    """Where the request comes from, as the proxy middleware established it."""
    return Client(request.META.get("REMOTE_ADDR") or None, printable(request.headers.get("User-Agent", "")))


def printable(text: str, limit: int = 300) -> str:
    """A header's text without control characters."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:limit])
