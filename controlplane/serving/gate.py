"""Keeps requests out for as long as it is not safe to serve on the database that the settings lead to.

That is a database that was restored or copied, and a pooler that nobody declared. A process that serves looks when it
boots, and then again and again; before it has looked, it serves nobody.
"""

import logging
import threading
import time

from django.db import DatabaseError, InterfaceError, close_old_connections

from controlplane.engines.troubles import DATABASE_AWAY
from controlplane.serving.restoration import Memory

logger = logging.getLogger(__name__)

#: Seconds between two looks of a process: for so long a database that is restored under it may be served.
INTERVAL = 1.0


class Gate:
    """Open unless a problem is known. Each process has its own; only one that serves looks."""

    def __init__(self) -> None:
        #: Why nobody is let in, in words for an operator.
        self.problem = ""
        self._memory: Memory | None = None

    def watch(self) -> None:
        """Looks now, and from now on in a thread of this process, which ends with it."""
        self.problem = DATABASE_AWAY
        self.look()
        threading.Thread(target=self._look_forever, name="gate", daemon=True).start()

    def look(self) -> None:
        """A database that does not answer leaves the gate as it is: who asks it finds that out."""
        try:
            self._memory = self._memory or Memory()
            problem = self._memory.keep()
        except (DatabaseError, InterfaceError, OSError) as error:
            problem = pooler_problem(error) or self.problem
        if problem != self.problem:
            if problem:
                logger.error("nothing is served: %s", problem)
            else:
                logger.warning("the database may be served")
            self.problem = problem

    def _look_forever(self) -> None:
        while True:
            time.sleep(INTERVAL)
            try:
                self.look()
                close_old_connections()
            except Exception:  # whatever it is, the next look may pass; without any, nothing would be noticed
                logger.exception("the look at the database failed")


def pooler_problem(error: BaseException) -> str:
    """What an error at connecting says of a pooler that nobody declared; empty for any other error."""
    return str(error).strip() if "DATABASE_IS_POOLED" in str(error) else ""


gate = Gate()
