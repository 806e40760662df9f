"""What a process that serves does beside its requests, now and then, in a thread of its own: no request waits for it.

Every process has the threads; whose turn it is, a row in the database says (`workers/observation/lease.py`). Nothing is
done on a database that must not be served, since secrets would leave.
"""

import logging
import threading
import time

from django.db import DatabaseError, InterfaceError, connection

from controlplane.engines.circuit import circuit
from controlplane.serving.garbage import garbage
from controlplane.serving.gate import gate

logger = logging.getLogger(__name__)


class Background:
    """A task that one process of all does at a time."""

    name: str
    #: Seconds after the boot until the first look whether it is due, and between two looks.
    first_after, interval = 15.0, 10.0
    #: Whether its thread also collects what this process has left, of which one is enough.
    is_collecting = False

    def work(self) -> bool:
        """Does it if it is due and this process's turn; whether it did."""
        raise NotImplementedError

    def look(self) -> bool:
        """Does it where this process may serve; whether it did."""
        if circuit.is_open() or gate.problem:
            return False
        try:
            return self.work()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("no %s: %s", self.name, type(error.__cause__ or error).__name__)
            return False
        finally:
            connection.close()  # of this thread

    def keep_looking(self) -> None:
        """Looks from now on in a thread of this process, which ends with it."""
        threading.Thread(target=self._look_forever, name=self.name, daemon=True).start()

    def _look_forever(self) -> None:
        time.sleep(self.first_after)
        while True:
            try:
                self.look()
            except Exception:  # whatever it is, the next time may go well
                logger.exception("the %s failed", self.name)
            if self.is_collecting:
                garbage.collect()
            time.sleep(self.interval)
