"""Django's `migrate`, which gives way to whoever uses a table that it has to change, and tries again."""

import time
from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError

ATTEMPTS = 60
#: Seconds in which starts go on before the next attempt.
PAUSE = 0.5
#: PostgreSQL's codes of a lock, and of a statement, that took too long.
TOOK_TOO_LONG = {"55P03", "57014"}


class Command(migrate.Command):
    """Starts and heartbeats go on meanwhile. What is applied stays applied; safe to run again."""

    help = f"{migrate.Command.help} {__doc__}"

    def handle(self, *args: Any, **options: Any) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                super().handle(*args, **options)
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", "") not in TOOK_TOO_LONG:
                    raise
                self.stderr.write(f"Attempt {attempt} of {ATTEMPTS}: somebody uses a table that is to be changed.")
                time.sleep(PAUSE)
            else:
                return
        msg = (
            "Gave up: a transaction, such as a backup's, uses a table that is to be changed. Nothing waits for it, the "
            "migrations before stay applied: run this again when it is over."
        )
        raise CommandError(msg)
