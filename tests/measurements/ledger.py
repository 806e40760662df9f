"""What the ledger costs on PostgreSQL with 10,000,000 starts: `make measure-ledger`.

Prints how long a start takes before and after the ledger is filled, what tables and indexes weigh, how long each query
takes that reads them and by which index, how fast old starts are removed, and the longest start in the meantime. The
server is as durable as in production. It judges nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.support.databases import PostgresqlServer, prepare_environment
from tests.support.processes import ROOT

#: Filling a table that was just truncated then writes no log, which spares half the time; it changes nothing later.
SERVER = {"wal_level": "minimal", "max_wal_senders": "0", "shared_buffers": "1GB", "max_wal_size": "8GB"}
ORGANIZATIONS, QUEUES = 20, 200
#: The ledger goes back that far, evenly.
DAYS = 360
TABLES = ("workers_workerstart", "workers_workerinstance")
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=100_000)
    parser.add_argument("--starts", type=int, default=10_000_000)
    parser.add_argument("--pruned", type=int, default=200_000, help="starts that are old enough to be removed")
    parser.add_argument("--samples", type=int, default=500, help="starts that are timed, before and after")
    options = parser.parse_args()
    prepare_environment("sqlite")  # for its secrets; the server below is not a throwaway one
    with tempfile.TemporaryDirectory() as directory:
        server = PostgresqlServer(Path(directory), SERVER)
        try:
            os.environ |= {"DATABASE_URL": server.url, "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
            os.environ["DATABASE_STATEMENT_TIMEOUT"] = "0"
            _measure(options, Path(directory))
        finally:
            server.stop()


def _measure(options: argparse.Namespace, directory: Path) -> None:
    import django  # noqa: PLC0415  # the settings read the environment that was just prepared

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415  # as above

    call_command("migrate", verbosity=0)
    size = (f"--organizations={ORGANIZATIONS}", f"--queues={QUEUES}", f"--workers={options.workers}", "--starts=0")
    call_command("seed_fleet", *size, f"--output={directory / 'ids'}")
    starters = {"no limit": _Starter(is_limited=False), "a limit": _Starter(is_limited=True)}
    _print_starts("an empty ledger", starters, options)
    began = time.monotonic()
    _fill(options)
    print(f"filled in {time.monotonic() - began:.0f} s")
    _print_sizes()
    _print_starts(f"{options.starts:,} starts in the ledger", starters, options)
    _print_queries()
    _prune(options, starters["no limit"])


class _Starter:
    """Starts one worker after the other, as the API does, and takes the time until each is committed.

    A queue with a limit counts its live processes at each start, so its workers are started by a starter of their own.
    """

    def __init__(self, *, is_limited: bool) -> None:
        from workers.models import ApiKey, Worker  # noqa: PLC0415  # as above

        keys = {key.organization_id: key for key in ApiKey.objects.select_related("organization")}
        workers = Worker.objects.filter(queue__max_workers__isnull=not is_limited).order_by("?")
        some = workers.values_list("pk", "organization_id")[:5_000]
        self._workers = [(pk, keys[organization]) for pk, organization in some]
        self._next = 0

    def start(self) -> float:
        """The seconds that the next one took."""
        from django.utils import timezone  # noqa: PLC0415  # as above

        from tests.support.factories import presented  # noqa: PLC0415  # as above
        from workers.lifecycle import Client, start_worker  # noqa: PLC0415  # as above
        from workers.lifecycle.starts import Attempt  # noqa: PLC0415  # as above

        worker, key = self._workers[self._next % len(self._workers)]
        self._next += 1
        attempt = Attempt(presented(key), SYSTEM_INFO, Client("10.0.0.1", "python-httpx/0.28.1"), timezone.now())
        began = time.perf_counter()
        start_worker(worker, attempt)
        return time.perf_counter() - began

    def record(self) -> float:
        """The seconds that the ledger's part of a start takes: one row, committed."""
        from workers.models import WorkerStart  # noqa: PLC0415  # as above

        row = WorkerStart.objects.latest("started_at")
        row.pk = uuid.uuid4()
        began = time.perf_counter()
        row.save(force_insert=True)
        return time.perf_counter() - began

    def times(self, count: int) -> list[float]:
        """Those of the first workers, whoever was started before."""
        self._next = 0
        self.start()  # connects, and has the statements planned
        return [self.start() for _ in range(count)]


#: The 21 keys that workers in the field send.
SYSTEM_INFO = {
    "hostname": "worker-000123.seed-1.example",
    "platform": "Linux-6.8.0-45-generic-x86_64-with-glibc2.39",
    "os_name": "Linux",
    "os_version": "6.8.0-45-generic",
    "python_version": "3.12.7",
    "cli_version": "1.0.2",
    "sdk_version": "1.0.2",
    "pid": 12345,
    "cwd": "/app",
    "supported_runtimes": ["default", "claude_code"],
    "docker_available": True,
    "docker_version": "27.3.1",
    "cpu_count": 8,
    "cpu_percent": 12.3,
    "memory_total": 34359738368,
    "memory_used": 12345678901,
    "memory_percent": 35.9,
    "disk_total": 107374182400,
    "disk_used": 51234567890,
    "disk_percent": 47.7,
    "uptime_seconds": 1234567,
}
#: Starts evenly over the time and the workers, each with its process.
FILL = """
CREATE TEMP TABLE fleet AS
SELECT row_number() OVER (ORDER BY worker.id) - 1 AS number, worker.id, worker.organization_id, worker.name,
       worker.organization_id || '.' || environment.name || '.' || queue.name AS task_queue, key.id AS key_id,
       organization.temporal_connection_id AS temporal, organization.litellm_connection_id AS litellm
FROM workers_worker worker
JOIN workers_workerqueue queue ON queue.id = worker.queue_id
JOIN environments_environment environment ON environment.id = queue.environment_id
JOIN environments_organization organization ON organization.id = worker.organization_id
JOIN LATERAL (SELECT id FROM workers_apikey WHERE organization_id = worker.organization_id ORDER BY id LIMIT 1) key
     ON true;
ANALYZE fleet;
TRUNCATE workers_workerstart, workers_workerinstance CASCADE;
INSERT INTO workers_workerstart (
    id, organization_id, worker_id, api_key_id, started_at, worker_name, task_queue_name, client_address, user_agent,
    system_info, configuration_revision, temporal_connection_id, temporal_api_key_version, litellm_connection_id,
    litellm_api_key_version)
SELECT gen_random_uuid(), fleet.organization_id, fleet.id, fleet.key_id,
       now() - interval '1 hour' - ({starts} - start) * (interval '{days} days' / {starts}), fleet.name,
       fleet.task_queue, '10.0.0.1', 'python-httpx/0.28.1', '{system_info}'::jsonb, '0123456789ab', fleet.temporal, 1,
       fleet.litellm, 1
FROM generate_series(1, {starts}::bigint) start JOIN fleet ON fleet.number = start % {workers};
INSERT INTO workers_workerinstance (
    id, organization_id, worker_id, is_current, is_contested, hostname, pid, client_address, api_key_id,
    configuration_revision, started_at, last_heartbeat_at, activity, tasks_processed, current_task_id, stopped_at,
    stop_reason, error_message, queue_id)
SELECT id, organization_id, worker_id, rank = 1, false, 'worker-000123.seed-1.example', 12345, '10.0.0.1', api_key_id,
       '0123456789ab', started_at, CASE rank WHEN 1 THEN now() ELSE started_at + interval '1 hour' END, 'active', 0, '',
       CASE rank WHEN 1 THEN NULL ELSE started_at + interval '1 hour' END,
       CASE rank WHEN 1 THEN '' ELSE 'shutdown' END, '',
       CASE rank WHEN 1 THEN (SELECT queue_id FROM workers_worker worker WHERE worker.id = worker_id) END
FROM (
    SELECT *, CASE WHEN started_at > (
        SELECT started_at FROM workers_workerstart ORDER BY started_at DESC OFFSET {workers} LIMIT 1
    ) THEN 1 ELSE 2 END AS rank
    FROM workers_workerstart
) start
"""


def _fill(options: argparse.Namespace) -> None:
    """Fills the tables without their secondary indexes and then makes these, which is several times faster."""
    from django.db import connection, transaction  # noqa: PLC0415  # as above

    statements = FILL.format(
        starts=options.starts,
        days=DAYS,
        workers=options.workers,
        system_info=json.dumps(SYSTEM_INFO),
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")  # what is made here refers to what is there
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'workers_worker%'"
            " AND (indexname LIKE 'workers_start_%' OR indexname LIKE 'workers_instance_%')"
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}")
        for statement in statements.split(";"):
            cursor.execute(statement.replace("%", "%%"), [])
        for _, definition in indexes:
            cursor.execute(definition)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE workers_workerstart, workers_workerinstance")


def _print_starts(state: str, starters: dict[str, _Starter], options: argparse.Namespace) -> None:
    """Twice: the first of each worker finds nothing of it in memory where the tables are larger than that."""
    for name, starter in starters.items():
        for turn in ("first", "again"):
            _print_times(f"starts with {state}, queues with {name}, {turn}", starter.times(options.samples))
    _print_times("    the ledger's row of a start", [starter.record() for _ in range(options.samples)])


def _print_times(name: str, seconds: list[float]) -> None:
    times = sorted(1000 * each for each in seconds)
    median, late = statistics.median(times), times[int(0.99 * (len(times) - 1))]
    print(f"{name}: median {median:.1f} ms, 99th percentile {late:.1f} ms, longest {times[-1]:.1f} ms ({len(times)})")


def _print_sizes() -> None:
    """In megabytes, and in megabytes for a million rows."""
    from django.db import connection  # noqa: PLC0415  # as above

    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"SELECT count(*), pg_table_size('{table}'), pg_indexes_size('{table}') FROM {table}")  # noqa: S608
            rows, heap, indexes = cursor.fetchone()
            print(f"{table}: {rows:,} rows, table {_size(heap, rows)}, indexes {_size(indexes, rows)}")
            cursor.execute(
                "SELECT indexrelname, pg_relation_size(indexrelid) FROM pg_stat_user_indexes"
                " WHERE relname = %s ORDER BY 2 DESC",
                [table],
            )
            for name, size in cursor.fetchall():
                print(f"    {name}: {_size(size, rows)}")


def _size(size: int, rows: int) -> str:
    megabytes = size / 2**20
    return f"{megabytes:,.0f} MB ({megabytes * 1_000_000 / rows:,.0f} per million)"


def _print_queries() -> None:
    """Each with the median of its times, and the indexes of the two tables that it goes by."""
    from django.db import connection  # noqa: PLC0415  # as above

    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname FROM pg_indexes WHERE tablename = ANY(%s)", [list(TABLES)])
        known = {name for (name,) in cursor.fetchall()}
    print(f"{'median ms':>10}  query, and by which indexes")
    for name, query in _queries():
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            list(query.all())
            times.append(1000 * (time.perf_counter() - began))
        indexes = sorted(known.intersection(query.explain().split()))
        print(f"{statistics.median(times):>10.1f}  {name}: {', '.join(indexes) or 'none: reads the table'}")


def _queries() -> list[tuple[str, Any]]:
    """What the console, the API and the commands ask of the two tables."""
    from django.db.models import Count  # noqa: PLC0415  # as above
    from django.utils import timezone  # noqa: PLC0415  # as above

    from workers.models import ApiKey, WorkerInstance, WorkerQueue, WorkerStart  # noqa: PLC0415  # as above
    from workers.models.instances import live_in_queue  # noqa: PLC0415  # as above
    from workers.reports.attention import crash_looping  # noqa: PLC0415  # as above

    now = timezone.now()
    starts, instances = WorkerStart.objects.defer("system_info"), WorkerInstance.objects.all()
    some = starts.order_by("started_at")[1_000]
    key = ApiKey.objects.get(pk=some.api_key_id)
    queue = WorkerQueue.objects.filter(workers=some.worker_id).annotate(live=live_in_queue(now)).order_by()
    lately = starts.filter(started_at__gt=now - timedelta(hours=24)).order_by()
    return [
        ("the latest starts (Starts)", starts.order_by("-started_at")[:100]),
        ("... of an organization", starts.filter(organization=some.organization_id).order_by("-started_at")[:100]),
        ("... of a worker (its page)", starts.filter(worker=some.worker_id).order_by("-started_at", "-id")[:11]),
        ("... of an API key (its page, its last use)", starts.filter(api_key=key).order_by("-started_at")[:1_000]),
        ("a start by its id (a process's page, rotation wave)", starts.filter(pk=some.pk)),
        ("starts per hour over a day (dashboard)", lately.values_list("started_at__hour").annotate(count=Count("*"))),
        ("crash loops (dashboard)", crash_looping(now)),
        ("the oldest starts (audit, prune_starts)", starts.order_by("started_at", "pk")[:1_000]),
        (
            "the current process of a worker (start, heartbeat)",
            instances.filter(worker=some.worker_id, is_current=True),
        ),
        ("all processes of a worker (heartbeat in doubt, its page)", instances.filter(worker=some.worker_id)[:20]),
        ("live processes with an API key (its page)", instances.live(now).filter(api_key_id=key.pk).order_by()[:51]),
        ("duplicates (dashboard)", instances.duplicates(now)[:100]),
        ("the newest processes (Instances)", instances.order_by("-started_at")[:100]),
        ("live processes of a queue (start, the list of queues)", queue),
        (
            "goodbyes in order (audit)",
            instances.filter(stopped_at__isnull=False).order_by("stopped_at", "pk")[:500],
        ),
    ]


def _prune(options: argparse.Namespace, starter: _Starter) -> None:
    """Has the command remove the oldest starts while workers start without pause."""
    from workers.models import WorkerStart  # noqa: PLC0415  # as above

    age = DAYS - int(DAYS * options.pruned / options.starts)
    command = [sys.executable, "manage.py", "prune_starts", f"--older-than={age}d", "--format=json"]
    oldest = WorkerStart.objects.earliest("started_at").started_at
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own
    times = []
    while process.poll() is None:
        times.append(starter.start())
    took = time.monotonic() - began
    result, _ = process.communicate()
    removed = json.loads(result)["removed"]
    print(f"prune_starts --older-than {age}d: {took:.0f} s, {removed / took:,.0f} starts per second ({result.strip()})")
    print(f"oldest start: {oldest:%Y-%m-%d}, then {WorkerStart.objects.earliest('started_at').started_at:%Y-%m-%d}")
    _print_times("starts meanwhile", times)


if __name__ == "__main__":
    main()
