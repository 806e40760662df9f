"""What an apply locks, in which order and during which statements; and what it does about changes meanwhile."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments import audit
from environments.audit import Actor
from environments.models import AuditEvent, Environment, LiteLLMConnection, Organization, TemporalConnection
from tests.support import factories
from tests.support.calls import start
from tests.support.documents import ACME, apply, everything, told
from tests.support.waiting import LONG, wait_for_a_waiting_session
from workers.fleet import FleetError
from workers.fleet.apply import ATTEMPTS
from workers.models import Worker, WorkerQueue

MANY = 2_000
LAST_READ = 'FROM "environments_datakey"'

#: Every kind of object is changed; w2 is pruned.
CHANGED = """\
organizations:
  - id: acme
    name: Acme again
    temporal_connections: [{name: cloud, namespace: another}]
    litellm_connections: [{name: gateway, api_url: "https://llm2.acme.example"}]
    all_telemetry_settings: [{name: standard, otel_service_name: other}]
    environments:
      - name: production
        description: changed
        worker_queues:
          - name: default
            description: changed
            workers: [{name: w1, description: changed}]
          - {name: new, workers: [{name: w3}]}
"""


def in_queue(*workers: str, **queue: Any) -> str:
    """A document about the workers, each as YAML, of the one queue."""
    fields = "".join(f", {name}: {value}" for name, value in queue.items())
    listed = f"workers: [{', '.join(workers)}]"
    return f"organizations: [{{id: acme, environments: [{{name: production, worker_queues: [{{name: default{fields}, {listed}}}]}}]}}]"


@contextmanager
def at_each_statement(act: Callable[[str], None]) -> Iterator[None]:
    """Acts right after each statement of this thread, so while the statement's locks are held."""

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        act(sql)
        return result

    with connection.execute_wrapper(watch):
        yield


def elsewhere(act: Callable[[], Any]) -> Any:
    """Acts in a session of its own and waits for it."""

    def run() -> Any:
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(LONG)


def short(sql: str) -> str:
    """A statement's verb and table."""
    verb = re.match(r"\w+", sql)
    table = re.search(r'(?:FROM|INTO|UPDATE) "\w+?_(\w+)"', sql)
    return f"{verb and verb[0]} {table and table[1]}"


# --- Locks -----------------------------------------------------------------------------------------------------------------


def test_a_row_is_locked_for_a_handful_of_statements_however_many_change(another: psycopg.Connection[Any]) -> None:
    """What a start refers to is never locked against it; its own row and its queue's are, while these are written."""
    apply(ACME)
    queue = WorkerQueue.objects.get()
    Worker.objects.bulk_create(
        Worker(organization_id="acme", queue=queue, name=f"many-{number}") for number in range(MANY)
    )
    another.autocommit = True
    held: dict[str, list[str]] = {"workers_worker": [], "workers_workerqueue": []}
    ids = {"workers_worker": Worker.objects.get(name="many-7").pk, "workers_workerqueue": queue.pk}

    def probe(sql: str) -> None:
        another.execute("SELECT 1 FROM environments_organization WHERE id = 'acme' FOR KEY SHARE NOWAIT")
        for table, statements in held.items():
            row = f"SELECT 1 FROM {table} WHERE id = %s FOR"  # noqa: S608  # a name of ours
            another.execute(f"{row} KEY SHARE NOWAIT", [ids[table]])
            try:
                another.execute(f"{row} NO KEY UPDATE NOWAIT", [ids[table]])
            except psycopg.errors.LockNotAvailable:
                statements.append(short(sql))

    document = in_queue(*(f"{{name: many-{number}, description: new}}" for number in range(MANY)), description="new")
    with at_each_statement(probe):
        changes = apply(document)
    assert len(changes) == MANY + 1
    assert held == {
        "workers_worker": ["SELECT worker", "UPDATE worker", "SELECT workerqueue", "UPDATE workerqueue"],
        "workers_workerqueue": ["SELECT workerqueue", "UPDATE workerqueue"],
    }


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one lock for all tables")
def test_locks_are_weak_and_in_the_order_of_a_start() -> None:
    apply(ACME)
    with CaptureQueriesContext(connection) as queries:
        apply(CHANGED, prune=True)
    locking = [query["sql"] for query in queries if " FOR " in query["sql"]]
    assert all(sql.endswith("FOR NO KEY UPDATE") for sql in locking)
    assert [short(sql) for sql in locking] == [
        f"SELECT {table}"
        for table in (
            "organization",
            "worker",
            "workerqueue",
            "environment",
            "temporalconnection",
            "litellmconnection",
            "telemetrysettings",
        )
    ]
    written = [short(query["sql"]).split() for query in queries if query["sql"].startswith(("UPDATE", "DELETE"))]
    tables = [table for _, table in written if table != "updatelock"]
    assert tables == [
        "worker",
        "worker",  # deleted
        "workerqueue",
        "environment",
        "temporalconnection",
        "litellmconnection",
        "telemetrysettings",
        "organization",
    ]


@pytest.mark.django_db
def test_what_is_wrong_is_found_before_the_first_write() -> None:
    apply(ACME)
    with CaptureQueriesContext(connection) as queries, pytest.raises(FleetError):
        apply(in_queue("{name: w1, description: new}", "{name: Not A Slug}", description="new"))
    assert {query["sql"].split()[0] for query in queries} == {"SELECT"}
    assert not any(" FOR " in query["sql"] for query in queries)


def test_a_start_that_goes_on_to_its_queue_is_waited_for_and_waits_for_nobody(another: psycopg.Connection[Any]) -> None:
    """Who has the worker's row and then wants its queue's gets it, though an apply waits that wants both."""
    apply(ACME)
    queue, worker = WorkerQueue.objects.get(), Worker.objects.get(name="w1")
    another.execute("SELECT 1 FROM workers_worker WHERE id = %s FOR NO KEY UPDATE", [worker.pk])
    document = in_queue("{name: w1, description: new}", description="new", max_workers=3)

    def run() -> list[str]:
        try:
            return told(apply(document))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        applying = pool.submit(run)
        wait_for_a_waiting_session()
        another.execute("SELECT 1 FROM environments_organization WHERE id = 'acme' FOR KEY SHARE NOWAIT")
        another.execute("SELECT 1 FROM workers_workerqueue WHERE id = %s FOR NO KEY UPDATE NOWAIT", [queue.pk])
        another.commit()
        assert len(applying.result(LONG)) == 2


def test_two_runs_that_name_the_same_organizations_in_another_order_both_end(transactional_db: None) -> None:
    one, two = "{id: one, name: %s}", "{id: two, name: %s}"
    apply(f"organizations: [{one % 'first'}, {two % 'first'}]")
    with ThreadPoolExecutor(2) as pool:
        for number in range(5):
            texts = [f"organizations: [{one % f'a{number}'}, {two % f'a{number}'}]"]
            texts.append(f"organizations: [{two % f'b{number}'}, {one % f'b{number}'}]")
            for outcome in [pool.submit(lambda text=text: elsewhere(lambda: apply(text))) for text in texts]:
                outcome.result(LONG)
            names = set(Organization.objects.values_list("name", flat=True))
            assert names in ({f"a{number}"}, {f"b{number}"})


# --- Dry runs ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_needs_no_lock_that_writers_need(transactional_db: None) -> None:
    apply(ACME)
    before = everything()
    with all_writing_elsewhere():
        changes = apply(CHANGED, is_dry_run=True, prune=True)
    assert everything() == before
    assert told(apply(CHANGED, prune=True)) == told(changes)


@contextmanager
def all_writing_elsewhere() -> Iterator[None]:
    """Somebody else writes: to the one file, or to any of the tables."""
    if connection.vendor == "sqlite":
        writer: Any = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
    else:
        settings = connection.get_connection_params()
        writer = psycopg.connect(**{name: settings[name] for name in ("dbname", "user", "password", "host", "port")})
        models = (Organization, Environment, TemporalConnection, LiteLLMConnection, WorkerQueue, Worker, AuditEvent)
        tables = ", ".join(model._meta.db_table for model in models)
        writer.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE")
    try:
        yield
    finally:
        writer.rollback()
        writer.close()


# --- Changes meanwhile ---------------------------------------------------------------------------------------------------


@contextmanager
def once_read(act: Callable[[], Any], *, times: int = 1) -> Iterator[None]:
    """Acts elsewhere as soon as a run has read everything, the first so many times, and before it writes."""
    left = [times]

    def watch(sql: str) -> None:
        if LAST_READ in sql and '"active_for_id"' in sql and left[0] and not connection.in_atomic_block:
            left[0] -= 1
            elsewhere(act)

    with at_each_statement(watch):
        yield
    assert left != [times]


def edit(**values: Any) -> Callable[[], Any]:
    """Somebody changes the queue, on record."""

    def act() -> None:
        queue = WorkerQueue.objects.get(name="default")
        before = audit.snapshot(queue)
        WorkerQueue.objects.filter(pk=queue.pk).update(**values)
        queue.refresh_from_db()
        changes = audit.difference(before, audit.snapshot(queue))
        audit.record("worker_queue.updated", queue, actor=Actor("user:ann"), now=timezone.now(), changes=changes)

    return act


def test_a_change_of_the_same_row_meanwhile_is_told_as_what_was_there(transactional_db: None) -> None:
    apply(ACME)
    with once_read(edit(description="ann's", heartbeat_interval=40)):
        apply(in_queue(heartbeat_interval=50))
    event = AuditEvent.objects.get(actor="command:apply", action="worker_queue.updated")
    assert event.changes == {"heartbeat_interval": [40, 50]}
    assert WorkerQueue.objects.get().description == "ann's"


def test_a_change_that_the_document_overrules_is_overruled_however_it_read_before(transactional_db: None) -> None:
    """The interval was as the document says when it was read, so that only the worker was to be changed."""
    apply(ACME)
    with once_read(edit(heartbeat_interval=40)):
        changes = apply(in_queue("{name: w1, description: new}", heartbeat_interval=30))
    assert len(changes) == 2
    assert WorkerQueue.objects.get().heartbeat_interval == 30


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (
            lambda: factories.create_worker(WorkerQueue.objects.get(), "w3", description="another's"),
            ["updated worker acme/production/default/w3"],
        ),
        (
            lambda: Worker.objects.filter(name="w1").update(description="new"),
            ["created worker acme/production/default/w3"],
        ),
        (
            lambda: Worker.objects.filter(name="w1").delete(),
            ["created worker acme/production/default/w1", "created worker acme/production/default/w3"],
        ),
    ],
    ids=["made", "done", "gone"],
)
def test_what_was_made_done_or_deleted_meanwhile_is_no_error(
    transactional_db: None, act: Callable[[], Any], outcome: list[str]
) -> None:
    apply(ACME)
    extra = ["updated worker acme/production/default/w1"] if "updated" in outcome[0] else []
    with once_read(act):
        changes = told(apply(in_queue("{name: w1, description: new}", "{name: w3, description: new}")))
    assert changes == extra + outcome


def test_a_worker_that_starts_meanwhile_is_disabled_and_not_deleted(transactional_db: None) -> None:
    apply(ACME)
    fleet = factories.create_fleet("acme-2")
    document = "organizations: [{id: acme-2, environments: [{name: production, worker_queues: [{name: default}]}]}]"
    token = factories.issue_token(fleet.organization)
    fleet.worker.api_keys.all().delete()
    with once_read(lambda: start(fleet, token=token)):
        changes = apply(document, prune=True)
    assert [str(change) for change in changes if change.kind == "worker"] == [
        "disabled worker acme-2/production/default/worker-1 (it has starts on record)"
    ]


def test_who_is_always_overtaken_is_told_so_and_changes_nothing(transactional_db: None) -> None:
    apply(ACME)
    numbers = iter(range(100, 200))

    def overtake() -> None:
        edit(heartbeat_interval=next(numbers))()

    with (
        once_read(overtake, times=ATTEMPTS),
        pytest.raises(FleetError, match="again and again: run it again"),
    ):
        apply(in_queue("{name: w1, description: new}", description="new"))
    assert WorkerQueue.objects.get().description == Worker.objects.get(name="w1").description == ""
    assert WorkerQueue.objects.get().heartbeat_interval == 99 + ATTEMPTS


def test_starts_of_ephemeral_workers_meanwhile_are_no_change(transactional_db: None) -> None:
    apply(ACME)
    numbers = iter(range(ATTEMPTS))

    def come() -> None:
        factories.create_worker(WorkerQueue.objects.get(), f"pod-{next(numbers)}", is_ephemeral=True)

    with once_read(come, times=ATTEMPTS):
        apply(in_queue("{name: w1, description: new}"))
    assert Worker.objects.filter(is_ephemeral=True).count() == 1
