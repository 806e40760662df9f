"""Requests that schemathesis makes up from the served document, and whether their answers are as it says.

Shared by `tests/running/test_conformance.py`, for each change within pytest, and by the drill `fuzzing`, in far larger numbers.
"""

from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from requests.structures import CaseInsensitiveDict
from schemathesis import GenerationMode
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

type Case = schemathesis.Case[Any]
type Ids = Mapping[str, str]
type Change = Callable[[Case, Ids], None]
type Examine = Callable[[Response], None]

#: The contract's own operation, which gets more requests than each of the others.
START = "POST /api/v1/workers/{worker_id}/start"
OPERATIONS = 62
#: What changes what people set up has limits that the document does not tell: of an object's size, of what can be kept.
CONNECTIONS = ("temporal-connections", "litellm-connections", "telemetry-settings")
MANAGING = frozenset(
    {
        "POST /api/v1/environments",
        "PATCH /api/v1/environments/{environment_id}",
        "POST /api/v1/environments/{environment_id}/worker-queues",
        "PATCH /api/v1/worker-queues/{queue_id}",
        "POST /api/v1/registered-workers",
        "PATCH /api/v1/registered-workers/{worker_id}",
        "POST /api/v1/api-keys",
        "POST /api/v1/api-keys/{key_id}/rotate",
        "POST /api/v1/api-keys/{key_id}/revoke",
        "PATCH /api/v1/organization",
        *(f"POST /api/v1/{kind}" for kind in CONNECTIONS),
        *(f"PATCH /api/v1/{kind}/{{connection_id}}" for kind in CONNECTIONS),
    }
)
#: What is not changed of the objects that exist, since other calls are made of them meanwhile.
KEPT = frozenset(
    [
        "name",
        "status",
        "max_workers",
        "is_disabled",
        "is_draining",
        "requires_api_key",
        "api_key",
        "host",
        "namespace",
        "api_url",
        "queue_id",
        "worker_id",
        "environment_id",
        "otel_exporter_otlp_endpoint",
        "otel_service_name",
        "otel_traces_sampler_arg",
        "temporal_connection_id",
        "litellm_connection_id",
        "telemetry_settings_id",
    ]
)
#: What is right of these in what is new.
NEW = {
    "temporal-connections": {"host": "t.example:7233", "namespace": "n", "api_key": "secret"},
    "litellm-connections": {"api_url": "https://l.example", "api_key": "secret"},
}
#: Parameters of which the document does not tell all: a text that has to be one which was answered before.
TOLD = frozenset({"cursor", "If-Match", "Idempotency-Key"})
#: The first would make each call again without a key, which callers without one do. The second minds what fields read
#: beyond what the document says: a number as text, and digits as a number.
EXCLUDED = [ignored_auth, negative_data_rejection]


def operations_of(url: str) -> list[Any]:
    """All operations of the document that the control plane at this URL serves."""
    document: Any = schemathesis.openapi.from_url(f"{url}/api/openapi.json")
    found = [operation.ok() for operation in document.get_all_operations()]
    assert len(found) == OPERATIONS
    return found


def as_generated(case: Case, ids: Ids) -> None:
    """Leaves the ids that were made up, which name nothing."""


def for_these(case: Case, ids: Ids) -> None:
    """Puts in the ids of what exists, so that more than the search for it is tried."""
    kind = case.operation.path.split("/")[3:4]
    case.path_parameters = {name: ids.get(f"{name} of {kind[0]}") or ids[name] for name in case.path_parameters or {}}
    if isinstance(case.body, dict):
        case.body |= {name: ids[name] for name in ("worker_id", "environment_name") if name in case.body}
        if case.operation.label in MANAGING:
            case.body = {name: value for name, value in case.body.items() if name not in KEPT}
            is_new = case.operation.label.startswith("POST ")
            if is_new and not case.operation.path.endswith(("/rotate", "/revoke")):
                case.body |= {"name": f"made-{token_hex(8)}", **NEW.get(kind[0], {})}
                case.body |= {"queue_id": ids["queue_id"]} if kind == ["registered-workers"] else {}
    case.headers = CaseInsensitiveDict()
    case.query = {name: value for name, value in (case.query or {}).items() if name not in TOLD | {"name", "tag"}}


def try_operation(  # noqa: PLR0913  # what distinguishes one campaign from another
    operation: Any,
    examine: Examine,
    *,
    count: int,
    headers: Mapping[str, str],
    change: Change = as_generated,
    ids: Ids | None = None,
    mode: GenerationMode = GenerationMode.POSITIVE,
    number: int | None = None,
) -> None:
    """Makes up to so many requests, checks each answer against the document, and then has it examined.

    An answer that is not as documented raises, after schemathesis has looked for the simplest request that does it.
    `number` is the seed; without one pytest's is used.
    """
    session = requests.Session()

    @settings(max_examples=count, suppress_health_check=list(HealthCheck), deadline=None, database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case) -> None:
        change(case, ids or {})
        case.headers = CaseInsensitiveDict({**case.headers, **headers})
        is_told = not TOLD.isdisjoint(parameter.name for parameter in operation.iter_parameters())
        excluded = [*EXCLUDED, *([positive_data_acceptance] if operation.label in MANAGING or is_told else [])]
        answer = case.call_and_validate(session=session, excluded_checks=excluded)
        examine(answer)

    with session:
        (check if number is None else seed(number)(check))()
