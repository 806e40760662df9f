"""The examination: each check in its order, as far as the database lets itself be looked at."""

from collections.abc import Iterator
from datetime import datetime

from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor

from controlplane.doctor import clocks, installation, keys, restoration, sealed, workers
from controlplane.doctor.findings import Finding, problem
from environments.management.progress import ProgressDisplay


def examine(now: datetime, progress: ProgressDisplay) -> Iterator[Finding]:
    """All that is found, check by check; without a database in order, only what can be told without one."""
    yield from installation.examine_settings()
    reason = _database_problem()
    if reason:
        yield problem("database", reason, "Start the database or mend DATABASE_URL.")
    elif _has_pending_migrations():
        yield problem("migrations", "Migrations are pending.", "Run python manage.py migrate.")
    else:
        yield from installation.examine_database()
        yield from restoration.examine_mark()
        yield from clocks.examine_clocks()
        now = clocks.database_now(now)
        yield from sealed.examine_sealed_rows(progress)
        yield from sealed.examine_encryption_keys()
        yield from keys.examine_signing_keys(now)
        yield from keys.examine_api_keys(now)
        yield from workers.examine_starts(now)
        yield from workers.examine_incomplete(now)
        yield from workers.examine_running(now)
        yield from workers.examine_workers(now)


def _database_problem() -> str:
    try:
        connection.ensure_connection()
    except (DatabaseError, InterfaceError) as error:
        return f"The database is not available: {str(error).partition(chr(10))[0]}."
    return ""


def _has_pending_migrations() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
