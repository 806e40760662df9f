"""Whether the process lives and whether it is ready to serve."""

import logging
from typing import Any, ClassVar

from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.api.errors import RETRY_AFTER_SECONDS
from controlplane.engines.circuit import circuit
from controlplane.engines.troubles import DATABASE_AWAY
from controlplane.releases import CURRENT
from controlplane.serving.gate import gate, pooler_problem
from controlplane.serving.restoration import Memory
from environments import times
from environments.sealing.checks import key_ring_problems

logger = logging.getLogger(__name__)


def livez(request: HttpRequest) -> JsonResponse:  # noqa: ARG001  # a view
    """200 as long as the process answers; touches nothing else."""
    return JsonResponse({"status": "alive"})


def readyz(request: HttpRequest) -> JsonResponse:  # noqa: ARG001  # a view
    """200 when database, migrations and key ring are in order, else 503 naming what is not."""
    problems = readiness_problems()
    status = "not ready" if problems else "ready"
    answer = {"status": status, "problems": problems, "version": CURRENT}
    return JsonResponse(answer, status=503 if problems else 200)


def readiness_problems() -> list[str]:
    """What keeps this process from serving, in words for an operator; empty when it is ready.

    While requests are refused since the database was found away, it is not asked: one whose disk is full still reads.
    """
    if circuit.is_open():
        return [gate.problem or DATABASE_AWAY]
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return ["Migrations are pending: run python manage.py migrate."]
        restored = Memory().problem()
        return [*([restored] if restored else []), *key_ring_problems()]
    except (DatabaseError, InterfaceError) as error:
        if undeclared := pooler_problem(error):
            return [undeclared]
        logger.warning("not ready: %s", type(error.__cause__ or error).__name__)
        return [DATABASE_AWAY]


@extend_schema_serializer(component_name="Health")
class HealthSerializer(serializers.Serializer[dict[str, Any]]):
    """That all is well."""

    status = serializers.CharField()


@extend_schema_serializer(component_name="Readiness")
class ReadinessSerializer(serializers.Serializer[dict[str, Any]]):
    """That calls are served, and the time here."""

    status = serializers.CharField()
    timestamp = serializers.DateTimeField()


@extend_schema_serializer(component_name="DetailedHealth")
class DetailedHealthSerializer(ReadinessSerializer):
    """The same by the names that existing clients look for; of what this control plane needs all is well, or none."""

    api = serializers.CharField()
    database = serializers.CharField()
    redis = serializers.CharField()
    temporal = serializers.CharField()


class OpenView(APIView):
    """Answers everybody, and nobody more than whether all is well."""

    authentication_classes = ()
    refusals: ClassVar[tuple[int, ...]] = ()
    default_response_headers: ClassVar[dict[str, str]] = {}

    def well(self, **told: Any) -> Response:
        """What is told when this control plane is ready to serve; else 503."""
        if readiness_problems():
            return Response({"detail": "Not ready."}, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        return Response(told)


class HealthView(OpenView):
    """Whether this control plane serves, for clients that ask before they start."""

    @extend_schema(operation_id="get_health", responses=HealthSerializer)
    def get(self, request: Request) -> Response:  # noqa: ARG002  # a view
        """200 when this control plane is ready to serve, else 503."""
        return self.well(status="healthy")


class ReadyView(OpenView):
    """The same in another client's words."""

    @extend_schema(operation_id="get_readiness", responses=ReadinessSerializer)
    def get(self, request: Request) -> Response:  # noqa: ARG002  # a view
        """200 when this control plane is ready to serve, else 503."""
        return self.well(status="ready", timestamp=times.now())


class DetailedHealthView(OpenView):
    """The same with a member for each part that a client may look for."""

    @extend_schema(operation_id="get_detailed_health", responses=DetailedHealthSerializer)
    def get(self, request: Request) -> Response:  # noqa: ARG002  # a view
        """200 when this control plane is ready to serve, else 503. Redis is not used, and Temporal is not asked."""
        parts = {"api": "healthy", "database": "healthy", "redis": "not used", "temporal": "not asked"}
        return self.well(status="healthy", timestamp=times.now(), **parts)
