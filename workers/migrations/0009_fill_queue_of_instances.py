"""Fills in the queue of the processes that were recorded without one, in steps that nobody waits for."""

import time
from typing import Any
from uuid import UUID

from django.db import migrations

#: Rows written in one transaction.
BATCH = 2_000
#: Those of which the process or its worker is being changed at the moment are left for the next round.
FILL = """
WITH batch AS (
    SELECT instance.id, worker.queue_id
    FROM workers_workerinstance instance JOIN workers_worker worker ON worker.id = instance.worker_id
    WHERE instance.queue_id IS NULL AND instance.id > %s
    ORDER BY instance.id
    LIMIT %s
    FOR NO KEY UPDATE OF instance SKIP LOCKED
    FOR KEY SHARE OF worker SKIP LOCKED
), filled AS (
    UPDATE workers_workerinstance instance SET queue_id = batch.queue_id
    FROM batch WHERE batch.id = instance.id RETURNING instance.id
)
SELECT id FROM filled ORDER BY id DESC LIMIT 1
"""
FILL_ALL = """
UPDATE workers_workerinstance
SET queue_id = (SELECT queue_id FROM workers_worker WHERE workers_worker.id = workers_workerinstance.worker_id)
WHERE queue_id IS NULL
"""
ROUND_AGAIN_AFTER = 0.1


def fill(_apps: Any, schema_editor: Any) -> None:
    """On SQLite, where the service stands still meanwhile, in one statement."""
    with schema_editor.connection.cursor() as cursor:
        if schema_editor.connection.vendor != "postgresql":
            cursor.execute(FILL_ALL)
            return
        while _is_left(cursor):
            last: UUID | None = UUID(int=0)
            while last:
                cursor.execute(FILL, [last, BATCH])
                last = next((found for (found,) in cursor.fetchall()), None)
            time.sleep(ROUND_AGAIN_AFTER)
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("ALTER TABLE workers_workerinstance VALIDATE CONSTRAINT workers_workerinstance_worker_queue")
        cursor.execute("RESET statement_timeout")


def _is_left(cursor: Any) -> bool:
    cursor.execute("SELECT EXISTS (SELECT FROM workers_workerinstance WHERE queue_id IS NULL)")
    return bool(cursor.fetchone()[0])


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("workers", "0008_queue_of_instances"),
    ]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
