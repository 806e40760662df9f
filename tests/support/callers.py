"""Every endpoint, and every kind of caller."""

import functools
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from django.test import Client
from django.utils import timezone

from environments.models import Environment, TelemetrySettings
from tests.support import factories
from tests.support.calls import told_by
from tests.support.factories import ACTOR, Fleet
from workers.api_keys.issuing import revoke_api_key, rotate_api_key
from workers.models import KeyRole, Worker, WorkerQueue

UNUSABLE = ("no key", "malformed", "revoked", "expired", "rotated out")
#: Keys of the object's organization by their scope; `another` is one that does not cover the object.
OF_THE_ORGANIZATION = (
    "organization",
    "environment",
    "queue",
    "worker",
    "another environment",
    "another queue",
    "another worker",
)
#: A key for all of the organization that is a worker's, while all others are managers' that can be.
WORKERS_ROLE = "in a worker's role"
CALLERS = (*UNUSABLE, "another organization", *OF_THE_ORGANIZATION, WORKERS_ROLE)
# Columns as in CALLERS:   none mal. rev. exp. rot. | org2 | org env que wor | env2 que2 wor2 | role
STARTING_A_WORKER = "       401 401 401 401 401   404    200 200 200 200   403  403  403   200"
OF_A_RUNNING_WORKER = "     401 401 401 401 401   404    204 204 204 204   403  403  403   204"
OF_A_QUEUE = "              401 401 401 401 401   404    200 200 200 403   403  403  403   200"
#: Each organization has one of the name.
OF_A_QUEUE_BY_NAME = "      401 401 401 401 401   200    200 200 200 403   403  403  403   200"
RELEASING = "               401 401 401 401 401   404    204 204 204 403   403  403  403   204"
OF_AN_ENVIRONMENT = "       401 401 401 401 401   404    200 200 403 403   403  403  403   200"
LIST = "                    401 401 401 401 401   200    200 200 200 200   200  200  200   200"
MAKING = "                  401 401 401 401 401   201    201 403 403 403   403  403  403   403"
CHANGING_AN_ENVIRONMENT = " 401 401 401 401 401   404    200 200 403 403   403  403  403   403"
MAKING_A_QUEUE = "          401 401 401 401 401   404    201 201 403 403   403  403  403   403"
CHANGING_A_QUEUE = "        401 401 401 401 401   404    200 200 200 403   403  403  403   403"
#: What is in use, as all of these is, cannot be deleted.
DELETING_A_QUEUE = "        401 401 401 401 401   404    409 409 409 403   403  403  403   403"
DELETING_AN_ENVIRONMENT = " 401 401 401 401 401   404    409 409 403 403   403  403  403   403"
#: What is right in the organization is for its keys alone.
OF_ALL = "                  401 401 401 401 401   200    200 403 403 403   403  403  403   200"
OF_ALL_FOR_MANAGERS = "     401 401 401 401 401   200    200 403 403 403   403  403  403   403"
OF_A_CONNECTION = "         401 401 401 401 401   404    200 403 403 403   403  403  403   403"
OF_A_KEY = "                401 401 401 401 401   404    200 200 200 403   403  403  403   403"
LIST_FOR_MANAGERS = "       401 401 401 401 401   200    200 200 200 403   200  200  403   403"
CHANGING_A_WORKER = "       401 401 401 401 401   404    200 200 200 403   403  403  403   403"
MAKING_WITHIN_A_QUEUE = "   401 401 401 401 401   404    201 201 201 403   403  403  403   403"
ROTATING = "                401 401 401 401 401   404    201 201 201 403   403  403  403   403"
DELETING_A_WORKER = "       401 401 401 401 401   404    409 409 409 403   403  403  403   403"
DELETING_A_CONNECTION = "   401 401 401 401 401   404    409 403 403 403   403  403  403   403"
PUBLIC = "                  200 200 200 200 200   200    200 200 200 200   200  200  200   200"
NOWHERE = "                 404 404 404 404 404   404    404 404 404 404   404  404  404   404"
MATRIX = {
    "POST /api/v1/workers/register": OF_A_QUEUE,
    "POST /api/v1/workers/heartbeat": OF_A_RUNNING_WORKER,
    "POST /api/v1/workers/{worker_id}/start": STARTING_A_WORKER,
    "POST /api/v1/workers/{worker_id}/heartbeat": OF_A_RUNNING_WORKER,
    "POST /api/v1/workers/{worker_id}/disconnect": OF_A_RUNNING_WORKER,
    "GET /api/v1/worker-queues": LIST,
    "GET /api/v1/worker-queues/{queue_id}": OF_A_QUEUE,
    "POST /api/v1/worker-queues/{queue_id}/start": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/workers": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/config": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/metrics": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/worker-command": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/install-script": OF_A_QUEUE,
    "GET /api/v1/worker-queues/{queue_id}/update-lock-status": OF_A_QUEUE,
    "POST /api/v1/worker-queues/{queue_id}/workers/{worker_id}/update-lock": OF_A_QUEUE,
    "DELETE /api/v1/worker-queues/{queue_id}/workers/{worker_id}/update-lock": RELEASING,
    "PATCH /api/v1/worker-queues/{queue_id}": CHANGING_A_QUEUE,
    "DELETE /api/v1/worker-queues/{queue_id}": DELETING_A_QUEUE,
    "GET /api/v1/environments": LIST,
    "POST /api/v1/environments": MAKING,
    "GET /api/v1/environments/{environment_id}": OF_AN_ENVIRONMENT,
    "PATCH /api/v1/environments/{environment_id}": CHANGING_AN_ENVIRONMENT,
    "DELETE /api/v1/environments/{environment_id}": DELETING_AN_ENVIRONMENT,
    "GET /api/v1/environments/{environment_id}/worker-queues": OF_AN_ENVIRONMENT,
    "POST /api/v1/environments/{environment_id}/worker-queues": MAKING_A_QUEUE,
    "GET /api/v1/environments/{environment_id}/worker-command": OF_AN_ENVIRONMENT,
    "GET /api/v1/workers": LIST,
    "GET /api/v1/workers/{runner_name}": OF_A_QUEUE_BY_NAME,
    "GET /api/v1/registered-workers": LIST,
    "POST /api/v1/registered-workers": MAKING_WITHIN_A_QUEUE,
    "GET /api/v1/registered-workers/{worker_id}": STARTING_A_WORKER,
    "PATCH /api/v1/registered-workers/{worker_id}": CHANGING_A_WORKER,
    "DELETE /api/v1/registered-workers/{worker_id}": DELETING_A_WORKER,
    "GET /api/v1/api-keys": LIST_FOR_MANAGERS,
    "POST /api/v1/api-keys": MAKING_WITHIN_A_QUEUE,
    "GET /api/v1/api-keys/{key_id}": OF_A_KEY,
    "POST /api/v1/api-keys/{key_id}/rotate": ROTATING,
    "POST /api/v1/api-keys/{key_id}/revoke": OF_A_KEY,
    "GET /api/v1/organization": OF_ALL,
    "PATCH /api/v1/organization": OF_ALL_FOR_MANAGERS,
    "GET /api/v1/members": OF_ALL_FOR_MANAGERS,
    **{
        endpoint: row
        for kind in ("temporal-connections", "litellm-connections", "telemetry-settings")
        for endpoint, row in {
            f"GET /api/v1/{kind}": OF_ALL_FOR_MANAGERS,
            f"POST /api/v1/{kind}": MAKING,
            f"GET /api/v1/{kind}/{{connection_id}}": OF_A_CONNECTION,
            f"PATCH /api/v1/{kind}/{{connection_id}}": OF_A_CONNECTION,
            f"DELETE /api/v1/{kind}/{{connection_id}}": DELETING_A_CONNECTION,
            f"POST /api/v1/{kind}/{{connection_id}}/verify": OF_A_CONNECTION,
        }.items()
    },
    "GET /api/health": PUBLIC,
    "GET /api/health/detailed": PUBLIC,
    "GET /api/ready": PUBLIC,
    "GET /api/openapi.json": PUBLIC,
    "GET /api/docs": PUBLIC,
    "GET /api/": NOWHERE,
}
#: The path's part that names an object of ours; a lock's holder is any text.
ID = re.compile(
    r"\{(?:queue_id|environment_id|key_id|connection_id)\}|(?:(?<=/v1/workers/)|(?<=ed-workers/))\{worker_id\}"
)
#: Statuses of what a key that reaches the object is answered: what is in use is not deleted.
SERVED = {200, 201, 204}
IN_USE = {endpoint for endpoint, row in MATRIX.items() if row.split()[6] == "409"}
#: Kinds of connections whose views are those of the first kind, so that one kind stands for all.
ALIKE = ("litellm-connections", "telemetry-settings")
WITH_A_KEY = [
    endpoint
    for endpoint, row in MATRIX.items()
    if row not in {PUBLIC, NOWHERE} and not any(kind in endpoint for kind in ALIKE)
]


@dataclass
class World:
    """The objects that the calls are about, and others of the same organization and of another one."""

    fleet: Fleet
    other_environment: Environment
    other_queue: WorkerQueue
    other_worker: Worker
    foreign: Fleet

    def authorization(self, caller: str) -> str | None:
        now = timezone.now()
        match caller:
            case "no key":
                return None
            case "malformed":
                return "Bearer nonsense"
            case "revoked":
                issued = factories.issue_key(self.fleet.organization)
                revoke_api_key(issued.row.pk, reason="leaked", actor=ACTOR, now=now)
            case "expired":
                issued = factories.issue_key(self.fleet.organization, age=timedelta(days=91))
            case "rotated out":
                issued = factories.issue_key(self.fleet.organization)
                rotate_api_key(issued.row.pk, actor=ACTOR, now=now, grace_period=timedelta(0))
            case _:
                issued = factories.issue_key(self.target(caller), role=role_of(caller))
        return f"Bearer {issued.token.reveal()}"

    def target(self, caller: str) -> Any:
        if caller == WORKERS_ROLE:
            return self.fleet.organization
        if caller == "another organization":
            return self.foreign.organization
        if caller.startswith("another "):
            return getattr(self, caller.replace("another", "other").replace(" ", "_"))
        return getattr(self.fleet, caller)


def role_of(caller: str) -> KeyRole:
    """A manager's, where there can be one."""
    return KeyRole.WORKER if caller in {"worker", "another worker", WORKERS_ROLE} else KeyRole.MANAGER


@functools.cache
def strict_client() -> Client:
    """One that, as a server does and Django's test client does not, has requests checked for forgery."""
    return Client(raise_request_exception=False, enforce_csrf_checks=True)


def body_of(endpoint: str, fleet: Fleet) -> dict[str, Any]:
    bodies = {
        "POST /api/v1/workers/register": {"environment_name": f"{fleet.organization.pk}.{fleet.environment.name}"},
        "POST /api/v1/workers/heartbeat": {
            "worker_id": str(fleet.worker.pk),
            "environment_name": fleet.environment.name,
        },
        "POST /api/v1/worker-queues/{queue_id}/workers/{worker_id}/update-lock": {"worker_id": "build-7"},
        "POST /api/v1/environments": {"name": "made"},
        "POST /api/v1/environments/{environment_id}/worker-queues": {"name": "made"},
        "PATCH /api/v1/environments/{environment_id}": {"description": "changed"},
        "PATCH /api/v1/worker-queues/{queue_id}": {"description": "changed"},
        "POST /api/v1/registered-workers": {"name": "made", "queue_id": str(fleet.queue.pk)},
        "PATCH /api/v1/registered-workers/{worker_id}": {"description": "changed", "is_draining": True},
        "POST /api/v1/api-keys": {"name": "made", "queue_id": str(fleet.queue.pk)},
        "POST /api/v1/api-keys/{key_id}/revoke": {"reason": "leaked"},
        "PATCH /api/v1/organization": {"name": "changed"},
        "POST /api/v1/temporal-connections": {"name": "made", "host": "t:7233", "namespace": "n", "api_key": "secret"},
        "POST /api/v1/litellm-connections": {"name": "made", "api_url": "https://l.example", "api_key": "secret"},
        "POST /api/v1/telemetry-settings": {"name": "made"},
        "PATCH /api/v1/temporal-connections/{connection_id}": {"namespace": "changed", "api_key": "changed"},
        "PATCH /api/v1/litellm-connections/{connection_id}": {
            "api_url": "https://changed.example",
            "api_key": "changed",
        },
        "PATCH /api/v1/telemetry-settings/{connection_id}": {"otel_enabled": False},
    }
    return bodies.get(endpoint, {})


def path_of(endpoint: str, fleet: Fleet, identifier: str | None = None) -> str:
    """The path about the fleet's objects; `identifier` in the place of their id."""
    path = endpoint.partition(" ")[2]
    if identifier is not None:
        path = ID.sub(quote(identifier, safe=""), path)
    path = path.replace("/{worker_id}/update-lock", "/build-7/update-lock")
    ids = {
        "worker_id": fleet.worker.pk,
        "queue_id": fleet.queue.pk,
        "environment_id": fleet.environment.pk,
        "runner_name": f"{fleet.environment.name}.{fleet.queue.name}",
        "key_id": fleet.api_key.pk,
        "connection_id": connection_of(path, fleet),
    }
    return re.sub(r"\{(\w+)\}", lambda found: str(ids[found[1]]), path)


def connection_of(path: str, fleet: Fleet) -> Any:
    """The id of the fleet's connection of the kind that the path names."""
    if "telemetry" in path:
        return TelemetrySettings.objects.filter(organization=fleet.organization).values_list("pk", flat=True).first()
    return (fleet.litellm if "litellm" in path else fleet.temporal).pk


def send(  # noqa: PLR0913  # the parts of a request that tests vary
    endpoint: str,
    fleet: Fleet,
    authorization: str | None,
    *,
    identifier: str | None = None,
    body: Any = None,
    content_type: str = "application/json",
    **environ: Any,
) -> Any:
    headers: dict[str, Any] = {} if authorization is None else {"HTTP_AUTHORIZATION": authorization}
    method, data = endpoint.partition(" ")[0], b""
    if method in {"POST", "PATCH"}:
        data = body if isinstance(body, bytes) else json.dumps(body_of(endpoint, fleet) | (body or {})).encode()
    path = path_of(endpoint, fleet, identifier)
    return strict_client().generic(method, path, data, content_type if data else "", **headers, **environ)


def is_served(endpoint: str, response: Any) -> bool:
    """Whether the call got as far as its object, and was answered as it is to be."""
    return bool(response.status_code in ({409} if endpoint in IN_USE else SERVED))


def seen_by_the_client(response: Any) -> tuple[int, bytes, str]:
    return response.status_code, *told_by(response)
