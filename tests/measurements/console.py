"""How long the console's pages take on PostgreSQL with 100,000 workers and 1,000,000 starts: `make measure-console`.

Prints a line per page: its statements, the median and the slowest of several requests in milliseconds. It judges nothing;
the statements are pinned in tests/workers/admin/test_dashboard.py.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

PAGES = (
    "/admin/",
    "/admin/?period=7d",
    "/admin/workers/worker/",
    "/admin/workers/worker/?liveness=Offline",
    "/admin/workers/worker/?attention=outdated",
    "/admin/workers/worker/?attention=crash-loop",
    "/admin/workers/worker/?attention=duplicate",
    "/admin/workers/worker/?q=worker-000123",
    "/admin/workers/workerqueue/",
    "/admin/workers/workerstart/",
    "/admin/workers/workerinstance/",
    "/admin/workers/apikey/",
    "/admin/environments/auditevent/",
    "/admin/search/?s=worker-000123",
    "/metrics",
)
ROUNDS = 9
METRICS_TOKEN = "the-token-with-which-figures-are-read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=100_000)
    parser.add_argument("--starts", type=int, default=1_000_000)
    options = parser.parse_args()
    from tests.support.databases import prepare_environment, pytest_unconfigure  # noqa: PLC0415  # before the settings load

    prepare_environment("postgresql")
    os.environ |= {"METRICS_TOKEN": METRICS_TOKEN, "DATABASE_STATEMENT_TIMEOUT": "0"}
    try:
        _measure(options)
    finally:
        pytest_unconfigure()


def _measure(options: argparse.Namespace) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    import django  # noqa: PLC0415  # as above

    django.setup()
    warnings.simplefilter("ignore")
    from django.contrib.auth import get_user_model  # noqa: PLC0415  # as above
    from django.core.management import call_command  # noqa: PLC0415  # as above
    from django.test import Client  # noqa: PLC0415  # as above

    call_command("migrate", verbosity=0)
    size = ("--organizations=20", "--queues=200", f"--workers={options.workers}", f"--starts={options.starts}")
    with tempfile.TemporaryDirectory() as directory:
        call_command("seed_fleet", *size, f"--output={Path(directory) / 'ids'}")
    _let_workers_live()
    client = Client(headers={"host": "127.0.0.1", "authorization": f"Bearer {METRICS_TOKEN}"})
    client.force_login(get_user_model().objects.create_superuser("measure"))
    print(f"{'statements':>10} {'median ms':>10} {'slowest ms':>10}  page")
    for page in PAGES:
        statements, times = _time(client, page)
        print(f"{statements:>10} {statistics.median(times):>10.0f} {max(times):>10.0f}  {page}")


#: Seeding makes the latest process of each worker; here are those of its other starts, all of which said goodbye.
PROCESSES = """
INSERT INTO workers_workerinstance (
    id, organization_id, worker_id, is_current, is_contested, hostname, pid, client_address, api_key_id,
    configuration_revision, started_at, last_heartbeat_at, activity, tasks_processed, current_task_id, stopped_at,
    stop_reason, error_message)
SELECT id, organization_id, worker_id, false, false, worker_name, 12345, client_address, api_key_id,
       configuration_revision, started_at, started_at + interval '1 hour', 'active', 0, '',
       started_at + interval '1 hour', 'shutdown', ''
FROM workers_workerstart start
WHERE NOT EXISTS (SELECT FROM workers_workerinstance instance WHERE instance.id = start.id)
"""


def _let_workers_live() -> None:
    """Seeding took longer than a heartbeat interval: most workers beat again now; and statistics are as in operation."""
    from django.db import connection, transaction  # noqa: PLC0415  # as above

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")  # what is made here refers to what is there
        cursor.execute(PROCESSES)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_workerinstance SET last_heartbeat_at = now() - random() * interval '60 s'"
            " WHERE stopped_at IS NULL AND random() < 0.9"
        )
        cursor.execute("VACUUM ANALYZE")


def _time(client: Any, page: str) -> tuple[int, list[float]]:
    from django.db import connection, reset_queries  # noqa: PLC0415  # as above

    connection.force_debug_cursor = True
    reset_queries()
    status = client.get(page).status_code
    statements = len(connection.queries)
    connection.force_debug_cursor = False
    if status != 200:
        sys.exit(f"{page} answered {status}")
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        client.get(page)
        times.append(1000 * (time.perf_counter() - began))
    return statements, times


if __name__ == "__main__":
    main()
