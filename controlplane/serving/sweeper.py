"""Asks Temporal again and again who polls and what waits, in a thread of its own: no request waits for it.

Every process that serves has this thread, and one of all asks at a time (`workers/observation/lease.py`); only that
one loads Temporal's client. Nothing is asked on a database that must not be served, since API keys would leave.
"""

import logging
import threading
import time

from django.db import DatabaseError, InterfaceError, connection

from controlplane.engines.circuit import circuit
from controlplane.serving.garbage import garbage
from controlplane.serving.gate import gate
from workers.observation.lease import INTERVAL as PASS_INTERVAL
from workers.observation.lease import Lease
from workers.observation.sweeps import Backoff, Pass

logger = logging.getLogger(__name__)

#: Seconds after the boot until the first look whether a pass is due, and between two looks.
FIRST_AFTER, INTERVAL = 15.0, 10.0
#: Seconds for which a pass asks further connections: slow ones keep nobody waiting for longer than that and their own.
PASS_SECONDS = PASS_INTERVAL.total_seconds()


class Sweeper:
    """The part that one process has in the sweep."""

    def __init__(self) -> None:
        self._lease = Lease()
        self._backoff = Backoff()

    def look(self) -> bool:
        """Makes a pass if one is due and it is this process's turn; whether it did."""
        if circuit.is_open() or gate.problem:
            return False
        try:
            if not self._lease.take():
                return False
            for asked, _ in Pass(self._lease, self._backoff, seconds=PASS_SECONDS).run():
                if asked.problem:
                    logger.info("temporal connection %s: %s", asked.connection.pk, asked.problem)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("no sweep: %s", type(error.__cause__ or error).__name__)
            return False
        finally:
            connection.close()  # of this thread
        return True

    def keep_looking(self) -> None:
        """Looks from now on in a thread of this process, which ends with it."""
        threading.Thread(target=self._look_forever, name="sweep", daemon=True).start()

    def _look_forever(self) -> None:
        time.sleep(FIRST_AFTER)
        while True:
            try:
                self.look()
            except Exception:  # whatever it is, the next pass may go well
                logger.exception("the sweep failed")
            garbage.collect()
            time.sleep(INTERVAL)


sweeper = Sweeper()
