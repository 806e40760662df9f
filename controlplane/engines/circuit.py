"""Knows whether the database is away, so that requests need not queue to find it out one by one.

A request that waits for the database holds a thread, and those behind it wait as well: their waits add up beyond what
is promised, and even `/livez` waits with them. So while the database is away all requests are refused at once, and a
thread of the circuit's own finds out when it is back: no request is needed for that, and none is risked.

The engines tell it of every error that says so (`controlplane.engines.troubles`); whatever concerns one caller's
statement does not. Where an error alone does not tell, the circuit asks the database itself.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from django.db import DatabaseError, InterfaceError, connection, connections

logger = logging.getLogger(__name__)

#: Seconds between two looks whether the database is back.
PAUSE = 0.25
#: Seconds within which a database that is there answers, whatever it is busy with.
PROMPT = 0.75


def ask() -> None:
    """Asks the database something that no table's lock holds up."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


class Circuit:
    """Open while the database is away. Each process has its own."""

    def __init__(self, probe: Callable[[], object] = ask) -> None:
        #: What tells that the database serves, run in a thread of the circuit's own: it raises if not.
        self.probe = probe
        #: Only a process that serves requests is told; a command goes on trying as it always does.
        self.is_used = False
        self._is_open = False
        self._is_silent = False
        #: When somebody last wanted to know, and when the question was asked that was answered last.
        self._wanted_at = self._answered_at = -1.0
        self._changed = threading.Condition()
        self._asking: threading.Thread | None = None

    def is_open(self) -> bool:
        """Whether requests are refused."""
        return self._is_open

    def is_looking(self) -> bool:
        """Whether its thread is finding out at the moment."""
        return self._asking is not None

    def may_connect(self) -> bool:
        """Whether this thread may open a connection: to a silent database only the one that finds out, as it waits."""
        return not self._is_silent or threading.current_thread() is self._asking

    def found_away(self, *, is_silent: bool = False) -> None:
        """Refuses requests from now on, until the database answers."""
        if not self.is_used:
            return
        with self._changed:
            self._is_silent = self._is_silent or is_silent
            self._open()
            self._look()

    def suspect(self) -> None:
        """Somebody waited in vain, which says nothing of others: finds out whether the database serves those."""
        if not self.is_used:
            return
        with self._changed:
            self._look()

    def answers(self) -> bool:
        """Whether the database answers now; at once where that is known, else within PROMPT seconds."""
        if not self.is_used:
            return False
        with self._changed:
            if self._is_open:
                return False
            self._look()
            since = self._wanted_at
            return self._changed.wait_for(lambda: self._answered_at >= since, PROMPT)

    def close(self) -> None:
        """Lets all requests ask the database."""
        with self._changed:
            if self._is_open:
                logger.warning("the database is back")
            self._is_open = self._is_silent = False

    def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            logger.error("database away: requests are refused until it is back")

    def _look(self) -> None:
        self._wanted_at = time.monotonic()
        if self._asking is None:
            self._asking = threading.Thread(target=self._find_out, name="circuit", daemon=True)
            self._asking.start()

    def _find_out(self) -> None:
        """Asks until the database answers, and answers whoever wanted to know before it was asked."""
        while True:
            began = time.monotonic()
            is_there = self._serves()
            with self._changed:
                if not is_there:
                    self._open()
                else:
                    self._answered_at = began
                    self._changed.notify_all()
                    if self._wanted_at <= began:
                        self.close()
                        self._asking = None
                        return
            if not is_there:
                time.sleep(PAUSE)

    def _serves(self) -> bool:
        try:
            self.probe()
        except (DatabaseError, InterfaceError) as error:
            logger.info("still no database: %s", type(error.__cause__ or error).__name__)
            return False
        except Exception:
            logger.exception("the look at the database failed")  # which says nothing of the database
        finally:
            with suppress(Exception):
                connections.close_all()
        return True


circuit = Circuit()
