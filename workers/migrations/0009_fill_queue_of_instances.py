"""Fills in the queue of each worker's current process, in steps for which nobody waits long."""

import time
from typing import Any
from uuid import UUID

from django.db import OperationalError, migrations
from psycopg.errors import LockNotAvailable

from environments.database.schema_changes import lift_statement_timeout

#: Rows written in one transaction.
BATCH = 2_000
#: Those of which the process or its worker is being changed at the moment are left for the next round.
FILL = """
WITH batch AS (
    SELECT instance.id, instance.worker_id, worker.queue_id
    FROM workers_workerinstance instance JOIN workers_worker worker ON worker.id = instance.worker_id
    WHERE instance.is_current AND instance.queue_id IS NULL AND instance.worker_id > %s
    ORDER BY instance.worker_id
    LIMIT %s
    FOR NO KEY UPDATE OF instance SKIP LOCKED
    FOR KEY SHARE OF worker SKIP LOCKED
), filled AS (
    UPDATE workers_workerinstance instance SET queue_id = batch.queue_id
    FROM batch WHERE batch.id = instance.id RETURNING instance.worker_id
)
SELECT worker_id FROM filled ORDER BY worker_id DESC LIMIT 1
"""
FILL_ALL = """
UPDATE workers_workerinstance
SET queue_id = (SELECT queue_id FROM workers_worker WHERE workers_worker.id = workers_workerinstance.worker_id)
WHERE is_current AND queue_id IS NULL
"""
#: In seconds: between rounds, and for all of them; then `migrate` says so and tries again.
PAUSE, PATIENCE = 0.2, 10


def fill(_apps: Any, schema_editor: Any) -> None:
    """On SQLite, where the service stands still meanwhile, in one statement."""
    with schema_editor.connection.cursor() as cursor:
        if schema_editor.connection.vendor != "postgresql":
            cursor.execute(FILL_ALL)
            return
        _fill_in_rounds(cursor)
        lift_statement_timeout(schema_editor)
        cursor.execute("ALTER TABLE workers_workerinstance VALIDATE CONSTRAINT workers_workerinstance_worker_queue")
        cursor.execute("ANALYZE workers_workerinstance")
        cursor.execute("RESET statement_timeout")


def _fill_in_rounds(cursor: Any) -> None:
    """OperationalError, as of a lock that is not to be had, when some are being changed for long."""
    give_way_at = time.monotonic() + PATIENCE
    while _is_left(cursor):
        last = UUID(int=0)
        while found := _fill_after(last, cursor):
            (last,) = found
            give_way_at = time.monotonic() + PATIENCE
        if time.monotonic() > give_way_at:
            message = "A worker or its process is being changed in a transaction that does not end."
            raise OperationalError(message) from LockNotAvailable()
        time.sleep(PAUSE)


def _fill_after(worker_id: UUID, cursor: Any) -> Any:
    """A row with the last worker whose process was filled in; none when there is no further one to be had."""
    cursor.execute(FILL, [worker_id, BATCH])
    return cursor.fetchone()


def _is_left(cursor: Any) -> bool:
    cursor.execute("SELECT EXISTS (SELECT FROM workers_workerinstance WHERE is_current AND queue_id IS NULL)")
    return bool(cursor.fetchone()[0])


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("workers", "0008_queue_of_instances"),
    ]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
