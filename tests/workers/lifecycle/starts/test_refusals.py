"""In which order a start is refused, and that its record is committed before the answer."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.support import factories
from tests.support.calls import assert_refused, counted_round_trips, fresh_fleet, start
from tests.support.factories import Fleet
from workers.models import Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite


THREADS = 8


@pytest.fixture
def committed_fleet(transactional_db: None) -> Fleet:
    return fresh_fleet()


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
