"""Whether the process lives and whether it is ready to serve."""

import logging

from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse

from environments.checks import key_ring_problems

logger = logging.getLogger(__name__)


def livez(request: HttpRequest) -> JsonResponse:  # noqa: ARG001  # a view
    """200 as long as the process answers; touches nothing else."""
    return JsonResponse({"status": "alive"})


def readyz(request: HttpRequest) -> JsonResponse:  # noqa: ARG001  # a view
    """200 when database, migrations and key ring are in order, else 503 naming what is not."""
    problems = readiness_problems()
    status = "not ready" if problems else "ready"
    return JsonResponse({"status": status, "problems": problems}, status=503 if problems else 200)


def readiness_problems() -> list[str]:
    """What keeps this process from serving, in words for an operator; empty when it is ready."""
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return ["Migrations are pending: run python manage.py migrate."]
        return key_ring_problems()
    except (DatabaseError, InterfaceError) as error:
        logger.warning("not ready: %s", type(error).__name__)
        return ["The database is not available."]
