"""One start: what is answered, what is recorded, in which order it is refused, and at what cost."""

import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import assert_nothing_recorded, assert_refused, counted_round_trips, fresh_fleet, start
from tests.support.contract import SCHEMAS
from tests.support.factories import ACTOR, Fleet
from workers.api_keys.access import UnknownObjectError
from workers.api_keys.issuing import revoke_api_key
from workers.configuration.effective import revision_of, sections_of, show_configuration
from workers.lifecycle import Client as LifecycleClient
from workers.lifecycle import start_worker
from workers.lifecycle.starts import Attempt
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite

THREADS = 8


@pytest.fixture
def committed_fleet(transactional_db: None) -> Fleet:
    return fresh_fleet()


# --- 200 ---------------------------------------------------------------------------------------------------------------


def test_answers_the_contracts_17_fields(fleet: Fleet) -> None:
    telemetry = factories.create_telemetry(
        fleet.organization,
        otel_enabled=False,
        otel_exporter_otlp_endpoint="https://otel.example.com:4317",
        otel_service_name="svc",
        otel_traces_sampler="traceidratio",
        otel_traces_sampler_arg=0.25,
    )
    factories.point(fleet.organization, telemetry_settings=telemetry)
    WorkerQueue.objects.update(heartbeat_interval=45)
    response = start(fleet)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    assert response.json() == {
        "worker_id": str(fleet.worker.pk),
        "worker_queue_name": "default",
        "environment_name": "production",
        "task_queue_name": f"{fleet.organization.id}.production.default",
        "temporal_namespace": f"{fleet.organization.id}-temporal",
        "temporal_host": "temporal.example.com:7233",
        "temporal_api_key": fleet.temporal_secret,
        "organization_id": fleet.organization.id,
        "control_plane_url": "http://127.0.0.1:8000",
        "heartbeat_interval": 45,
        "litellm_api_url": "https://litellm.example.com",
        "litellm_api_key": fleet.litellm_secret,
        "otel_enabled": False,
        "otel_exporter_otlp_endpoint": "https://otel.example.com:4317",
        "otel_service_name": "svc",
        "otel_traces_sampler": "traceidratio",
        "otel_traces_sampler_arg": 0.25,
    }


def test_the_answer_has_exactly_the_contracts_fields_in_its_types(fleet: Fleet) -> None:
    answer = start(fleet).json()
    schema = SCHEMAS["WorkerConfigResponse"]
    assert list(answer) == list(schema["properties"])
    assert len(answer) == 17
    jsonschema.validate(answer, schema)
    assert all(answer[name] for name in schema["required"])
    assert type(answer["heartbeat_interval"]) is int


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"system_info": 1}', b""])
def test_a_422_is_the_contracts_validation_error(fleet: Fleet, body: bytes) -> None:
    answer = start(fleet, body).json()
    strict = json.loads(json.dumps(SCHEMAS).replace("#/components/schemas/", "#/$defs/"))
    for schema in strict.values():
        schema["additionalProperties"] = False
    jsonschema.validate(answer, {"$ref": "#/$defs/HTTPValidationError", "$defs": strict})
    assert answer["detail"]


def test_the_control_plane_url_comes_from_the_settings_and_never_from_the_host(
    fleet: Fleet, settings: Settings
) -> None:
    assert start(fleet, HTTP_HOST="localhost:1234").json()["control_plane_url"] == "http://127.0.0.1:8000"
    settings.CONTROL_PLANE_URL = "https://controlplane.example.com"
    spoofed = start(fleet, HTTP_X_FORWARDED_HOST="evil.example.com")
    assert spoofed.json()["control_plane_url"] == "https://controlplane.example.com"


# --- What is recorded ------------------------------------------------------------------------------------------------------


def test_the_ledger_tells_who_started_with_what_from_where_and_what_it_was_given(fleet: Fleet) -> None:
    telemetry = factories.create_telemetry(fleet.organization)
    factories.point(fleet.organization, telemetry_settings=telemetry)
    info = {"hostname": "a", "cpu_count": 8, "runtimes": ["x", None], "disk": {"used": 0.5}}
    before = timezone.now()
    start(fleet, {"system_info": info}, HTTP_USER_AGENT="worker/1.0 (Linux)")
    row = WorkerStart.objects.get()
    assert (row.organization_id, row.worker_id, row.api_key_id) == (
        fleet.organization.id,
        fleet.worker.pk,
        fleet.api_key.pk,
    )
    assert before <= row.started_at <= timezone.now()
    assert (row.worker_name, row.task_queue_name) == ("worker-1", f"{fleet.organization.id}.production.default")
    assert (row.client_address, row.user_agent) == ("127.0.0.1", "worker/1.0 (Linux)")
    assert row.system_info == info
    worker = Worker.objects.with_chain().get()
    assert row.configuration_revision == revision_of(show_configuration(worker, sections_of(worker)))
    assert (row.temporal_connection_id, row.temporal_api_key_version) == (fleet.temporal.pk, 1)
    assert (row.litellm_connection_id, row.litellm_api_key_version) == (fleet.litellm.pk, 1)
    assert row.telemetry_settings_id == telemetry.pk


def test_no_secret_is_on_record(fleet: Fleet) -> None:
    start(fleet, {"system_info": {"a": 1}})
    text = str(list(WorkerStart.objects.values())) + str(list(AuditEvent.objects.values()))
    for secret in (fleet.temporal_secret, fleet.litellm_secret, fleet.token):
        assert secret not in text


def test_a_start_gets_no_second_audit_record(fleet: Fleet) -> None:
    before = AuditEvent.objects.count()
    start(fleet)
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, ""),
        ("", ""),
        ("a\x00b\x1b[31mc\r\nd\x7f", "a\ufffdb\ufffd[31mc\ufffd\ufffdd\ufffd"),
        ("x" * 10_000, "x" * 300),
        ("a\u0085b\u00adc", "a\ufffdb\ufffdc"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("caf\u00e9", "caf\u00e9"),
        ("\udcff\ud800", "\ufffd\ufffd"),
    ],
    ids=["absent", "empty", "control characters", "long", "invisible", "markup", "latin-1", "surrogates"],
)
def test_the_user_agent_is_kept_without_control_characters(fleet: Fleet, sent: str | None, kept: str) -> None:
    environ = {} if sent is None else {"HTTP_USER_AGENT": sent}
    assert start(fleet, **environ).status_code == 200
    assert WorkerStart.objects.get().user_agent == kept


def test_a_start_makes_its_instance_the_current_one_in_place_of_the_one_before(fleet: Fleet) -> None:
    start(fleet)
    start(fleet)
    newest, oldest = WorkerStart.objects.order_by("-started_at")
    current = WorkerInstance.objects.get(is_current=True)
    assert current.pk == newest.pk
    assert (current.worker_id, current.organization_id) == (fleet.worker.pk, fleet.organization.id)
    assert current.started_at == current.last_heartbeat_at == newest.started_at
    assert WorkerInstance.objects.get(pk=oldest.pk).is_current is False


def test_the_ledger_says_which_key_each_start_used(fleet: Fleet) -> None:
    second = factories.issue_key(fleet.queue)
    start(fleet)
    start(fleet, token=second.token.reveal())
    assert {row.api_key_id for row in WorkerStart.objects.all()} == {fleet.api_key.pk, second.row.pk}


def test_starting_one_worker_leaves_the_others_alone(fleet: Fleet) -> None:
    other = factories.create_fleet()
    start(other)
    start(fleet)
    assert WorkerInstance.objects.filter(is_current=True).count() == 2


# --- State -----------------------------------------------------------------------------------------------------------------


def test_a_disabled_worker_is_403(fleet: Fleet) -> None:
    Worker.objects.update(is_disabled=True)
    assert_refused(start(fleet), 403)
    Worker.objects.update(is_disabled=False)
    assert start(fleet).status_code == 200


def test_a_worker_of_a_disabled_queue_is_409(fleet: Fleet) -> None:
    WorkerQueue.objects.update(is_disabled=True)
    assert_refused(start(fleet), 409)


SCOPES: dict[str, Callable[[Fleet], Any]] = {
    "another worker": lambda fleet: factories.create_worker(fleet.queue, "sibling"),
    "another queue": lambda fleet: factories.create_queue(fleet.environment, "elsewhere"),
    "another environment": lambda fleet: factories.create_environment(fleet.organization, "staging"),
}


@pytest.mark.parametrize("target", SCOPES.values(), ids=SCOPES)
def test_a_key_for_something_else_of_the_organization_is_403_insufficient_scope(
    fleet: Fleet, target: Callable[[Fleet], Any]
) -> None:
    response = start(fleet, token=factories.issue_token(target(fleet)))
    assert_refused(response, 403)
    assert response["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'


@pytest.mark.parametrize("level", ["worker", "queue", "environment", "organization"])
def test_a_key_of_any_level_above_the_worker_starts_it(fleet: Fleet, level: str) -> None:
    assert start(fleet, token=factories.issue_token(getattr(fleet, level))).status_code == 200


def test_a_disabled_worker_does_not_show_to_a_key_that_is_not_for_it(fleet: Fleet) -> None:
    token = factories.issue_token(factories.create_queue(fleet.environment, "elsewhere"))
    enabled = start(fleet, token=token)
    Worker.objects.update(is_disabled=True)
    WorkerQueue.objects.update(is_disabled=True)
    assert start(fleet, token=token).content == enabled.content


# --- Order of refusal --------------------------------------------------------------------------------------------------------

type Violation = Callable[[Fleet, dict[str, Any]], None]


def violate(**values: Any) -> Violation:
    return lambda _fleet, request: request.update(values)


def out_of_scope(fleet: Fleet, request: dict[str, Any]) -> None:
    request["token"] = factories.issue_token(factories.create_queue(fleet.environment, f"q-{uuid4()}"))


#: In the order of security.md. What shares a place in it cannot meet in one request, or is ordered within the domain.
ORDER: list[tuple[str, int, Violation]] = [
    ("no key", 401, violate(token="x.y.z")),
    ("id that is no UUID", 404, violate(worker_id="nonsense")),
    ("media type", 415, violate(content_type="text/plain")),
    ("size", 413, violate(CONTENT_LENGTH="70000")),
    ("shape", 422, violate(body=b"[]")),
    ("unknown worker", 404, violate(worker_id=uuid4())),
    ("key scope", 403, out_of_scope),
    ("worker disabled", 403, lambda _fleet, _request: Worker.objects.update(is_disabled=True)),
    ("queue disabled", 409, lambda _fleet, _request: WorkerQueue.objects.update(is_disabled=True)),
    ("incomplete", 409, lambda fleet, _request: factories.point(fleet.organization, temporal_connection=None)),
]
IMPOSSIBLE = {("id that is no UUID", "unknown worker"), ("no key", "key scope")}  # one request has one id and one key
PAIRS = [pair for pair in itertools.combinations(ORDER, 2) if (pair[0][0], pair[1][0]) not in IMPOSSIBLE]


def violating(fleet: Fleet, *violations: Violation) -> Any:
    request: dict[str, Any] = {}
    for violation in violations:
        violation(fleet, request)
    return start(fleet, request.pop("body", b"{}"), **request)


@pytest.mark.parametrize(("name", "status", "violation"), ORDER, ids=[name for name, *_ in ORDER])
def test_each_violation_alone_is_refused(fleet: Fleet, name: str, status: int, violation: Violation) -> None:
    assert_refused(violating(fleet, violation), status)


@pytest.mark.parametrize("pair", PAIRS, ids=[f"{first[0]} before {second[0]}" for first, second in PAIRS])
def test_of_two_violations_the_earlier_one_is_answered(fleet: Fleet, pair: Any) -> None:
    (_, status, earlier), (_, _, later) = pair
    alone = violating(fleet, earlier)
    both = violating(fleet, later, earlier)
    assert_refused(both, status)
    assert both.content == alone.content


def test_all_violations_at_once_are_refused_for_the_first(fleet: Fleet) -> None:
    assert_refused(violating(fleet, *(violation for *_, violation in reversed(ORDER))), 401)


# --- Committed before it is answered -------------------------------------------------------------------------------------------


def test_a_start_that_is_answered_is_committed(committed_fleet: Fleet) -> None:
    """Another connection sees it; `durable` refuses to run within another transaction."""
    assert start(committed_fleet).status_code == 200
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_count_starts).result() == 1


def _count_starts() -> int:
    try:
        return WorkerStart.objects.count()
    finally:
        connection.close()


def test_eight_starts_of_one_worker_at_once_are_all_recorded_and_one_is_current(committed_fleet: Fleet) -> None:
    barrier = Barrier(THREADS)

    def run(number: int) -> int:
        try:
            barrier.wait(10)
            return start(committed_fleet, {"system_info": {"number": number}}, client=Client()).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        statuses = list(pool.map(run, range(THREADS)))
    assert statuses == [200] * THREADS
    assert sorted(row.system_info["number"] for row in WorkerStart.objects.all()) == list(range(THREADS))
    assert WorkerInstance.objects.count() == THREADS
    assert WorkerInstance.objects.filter(is_current=True).count() == 1


def test_eight_workers_at_once_do_not_wait_for_each_other(committed_fleet: Fleet) -> None:
    fleets = [committed_fleet, *(factories.create_fleet() for _ in range(THREADS - 1))]

    def run(fleet: Fleet) -> str:
        try:
            return str(start(fleet, client=Client()).json()["temporal_api_key"])
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(run, fleets)) == [fleet.temporal_secret for fleet in fleets]
    assert WorkerStart.objects.count() == THREADS


@pytest.fixture
def statements(committed_fleet: Fleet) -> Callable[[], list[str]]:
    def run() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert start(committed_fleet).status_code == 200
        return [query["sql"].split()[0] for query in captured.captured_queries]

    return run


def first_start() -> list[str]:
    """What is read in one statement; the start and the new instance, on PostgreSQL in one statement, too."""
    return (
        ["SELECT", "WITH"] if connection.vendor == "postgresql" else ["BEGIN", "SELECT", "INSERT", "INSERT", "COMMIT"]
    )


def next_start() -> list[str]:
    """The same, which retires the instance before, and those that it came after."""
    if connection.vendor == "postgresql":
        return first_start()
    return ["BEGIN", "SELECT", "UPDATE", "UPDATE", *first_start()[2:]]


def test_a_start_is_a_statement_that_reads_and_one_that_writes(statements: Callable[[], list[str]]) -> None:
    assert statements() == first_start()
    assert statements() == next_start()


def test_a_start_costs_no_more_with_connections_at_every_level(
    committed_fleet: Fleet, statements: Callable[[], list[str]]
) -> None:
    fleet = committed_fleet
    for name in ("environment", "queue", "worker"):
        factories.point(
            getattr(fleet, name),
            temporal_connection=factories.create_temporal(fleet.organization, f"t-{name}"),
            litellm_connection=factories.create_litellm(fleet.organization, f"l-{name}"),
            telemetry_settings=factories.create_telemetry(fleet.organization, f"o-{name}"),
        )
    assert statements() == first_start()


def test_a_start_where_there_is_a_limit_locks_the_queue_and_counts_before_it_writes(
    committed_fleet: Fleet, statements: Callable[[], list[str]]
) -> None:
    factories.point(committed_fleet.queue, max_workers=2)
    if connection.vendor == "postgresql":
        assert statements() == ["SELECT", "BEGIN", "SELECT", "SELECT", "WITH", "COMMIT"]
    else:
        assert statements() == ["BEGIN", "SELECT", "SELECT", "INSERT", "INSERT", "COMMIT"]
    assert statements() == next_start(), "it has its place already"


def test_a_start_takes_two_round_trips_to_the_database(committed_fleet: Fleet, tmp_path: Path) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite is called, not sent anything")
    start(committed_fleet)
    with counted_round_trips(tmp_path / "trace") as round_trips:
        assert start(committed_fleet).status_code == 200
    assert round_trips() == 2


# --- The domain function itself -----------------------------------------------------------------------------------------------


def call(fleet: Fleet, worker_id: Any, now: datetime) -> Any:
    client = LifecycleClient("203.0.113.7", "test")
    key = factories.presented(ApiKey.objects.get(pk=fleet.api_key.pk))
    return start_worker(worker_id, Attempt(key, {}, client, now))


def test_takes_the_time_that_it_is_given(fleet: Fleet) -> None:
    now = timezone.now() - timedelta(days=400)
    call(fleet, fleet.worker.pk, now)
    assert WorkerStart.objects.get().started_at == WorkerInstance.objects.get().last_heartbeat_at == now


def test_knows_no_worker_of_another_organization(fleet: Fleet) -> None:
    with pytest.raises(UnknownObjectError):
        call(fleet, factories.create_fleet().worker.pk, timezone.now())
    assert_nothing_recorded()


def test_a_revoked_key_no_longer_starts_after_it_did(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=timezone.now())
    assert start(fleet).status_code == 401
    assert WorkerStart.objects.count() == 1
