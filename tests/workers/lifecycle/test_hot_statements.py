"""The statements of starts and heartbeats: their text stays within what the driver remembers, and cursors are kept."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DataError, connection, models
from psycopg import _queries

from environments.database.statements import Parameter, Select, Statement
from environments.models import Organization
from tests.support.calls import start
from tests.support.factories import Fleet
from tests.support.heartbeats import assert_accepted, heartbeat
from tests.support.plans import rows_read
from workers.lifecycle import circumstances, heartbeats, starts
from workers.models import Worker, WorkerQueue

STATEMENTS: dict[str, Statement] = {
    "circumstances of a worker": circumstances._OF_WORKER,
    "circumstances of a queue": circumstances._OF_QUEUE,
    "writing of an ephemeral worker": starts._WRITING_OF_EPHEMERAL,
    **{f"writing after {len(steps)} steps, {at}": each for at, (steps, each) in enumerate(starts._WRITINGS.items())},
    **{f"heartbeat {which}": each for which, each in heartbeats._BEATS.items()},
}
on_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="its driver's limits")
NAMED = Select(lambda: Organization.objects.filter(name=Parameter("name", models.CharField())).order_by())


@on_postgresql
@pytest.mark.parametrize("name", STATEMENTS)
def test_the_driver_remembers_the_text_of_a_hot_statement(name: str, db) -> None:
    statement = STATEMENTS[name]
    statement.prepare()
    assert len(statement._sql) <= _queries.MAX_CACHED_STATEMENT_LENGTH
    assert len(statement._given) + len(statement._fixed) <= _queries.MAX_CACHED_STATEMENT_PARAMS


def test_a_statement_keeps_its_cursor_for_as_long_as_its_connection(transactional_db) -> None:
    Organization.objects.create(id="acme", name="Acme")
    assert [each.pk for each in NAMED(name="Acme")] == ["acme"]
    kept = NAMED._cursor
    assert [each.pk for each in NAMED(name="Acme")] == ["acme"]
    assert NAMED._cursor is kept
    connection.close()
    assert [each.pk for each in NAMED(name="Acme")] == ["acme"]
    assert NAMED._cursor is not kept


@on_postgresql
def test_a_statement_that_failed_runs_again(db) -> None:
    Organization.objects.create(id="acme", name="Acme")
    with pytest.raises(DataError, match="NUL"):
        NAMED(name="\0")
    assert [each.pk for each in NAMED(name="Acme")] == ["acme"]


def test_what_is_recorded_is_run_by_a_cursor_that_records(db, django_assert_num_queries) -> None:
    NAMED(name="Acme")
    with django_assert_num_queries(2):
        NAMED(name="Acme")
        NAMED(name="Acme")


@on_postgresql
def test_the_driver_parses_nothing_anew(db, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    split = _queries._split_query
    monkeypatch.setattr(_queries, "_split_query", lambda *given, **named: asked.append(given) or split(*given, **named))
    NAMED(name="once")
    NAMED(name="twice")
    asked.clear()
    NAMED(name="thrice")
    assert not asked


def plan_of(sql: str, params: object) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
        ((answer,),) = cursor.fetchall()
    (plan,) = json.loads(answer) if isinstance(answer, str) else answer
    return plan["Plan"]


def analyze() -> None:
    """What PostgreSQL knows of a new installation: all tables are nearly empty."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


@on_postgresql
def test_a_heartbeat_reads_its_own_rows_where_nothing_is_known_of_the_tables_sizes(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    queues = (
        WorkerQueue(organization=fleet.organization, environment=fleet.environment, name=f"q{n}") for n in range(900)
    )
    analyze()
    WorkerQueue.objects.bulk_create(queues)
    ran: list[tuple[str, object]] = []

    def note(execute, sql, params, many, context):
        ran.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        assert_accepted(heartbeat(fleet))
    ((sql, params),) = ran
    assert rows_read(plan_of(sql, params)) <= 4  # the process, the worker, its queue, the key


@on_postgresql
def test_the_constraint_of_a_process_finds_its_worker_by_its_key_once_many_rows_were_made(
    db: None, tmp_path: Path
) -> None:
    analyze()
    size = ("--organizations=1", "--queues=20", "--workers=900", "--starts=0")
    call_command("seed_fleet", *size, f"--output={tmp_path / 'ids'}", stdout=StringIO())
    worker = Worker.objects.filter(organization="seed-1")[0]
    # What PostgreSQL itself asks for a foreign key of organization and worker.
    asked = "SELECT 1 FROM ONLY workers_worker x WHERE organization_id = %s AND id = %s FOR KEY SHARE OF x"
    (scan,) = plan_of(asked, [worker.organization_id, worker.pk])["Plans"]
    assert scan["Index Name"] in {f"workers_worker_{name}" for name in ("pkey", "tenant_key", "queue_key")}


def test_a_start_in_a_queue_asks_of_each_process_whether_its_worker_is_ephemeral(db: None) -> None:
    """PostgreSQL joined what is asked of both, and where it had not heard of ephemeral workers it read those first: all."""
    statement = starts._END_IN_QUEUE
    statement.prepare()
    assert "workers_worker" in statement._sql.partition("WHERE")[2]
    assert " IN (SELECT" not in statement._sql
    assert " JOIN " not in statement._sql
