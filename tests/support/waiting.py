"""Waits for what PostgreSQL knows, instead of for a time."""

import time

from django.db import connection

#: Seconds after which something that others wait for will not come any more.
LONG = 30


def wait_for_a_waiting_session() -> None:
    """Returns as soon as some session waits for a lock of another."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError
