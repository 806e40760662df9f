"""Knows whether the database was found away a moment ago, so that requests need not queue to find it out one by one.

A request that waits for the database holds a thread, and those behind it wait as well: their waits add up beyond what
is promised, and even `/livez` waits with them. So while the database is away, one request at a time finds out whether
it is back, and all others are refused at once.
"""

import logging
import threading
import time
from collections import deque
from typing import NamedTuple

from controlplane.server import THREADS

logger = logging.getLogger(__name__)

#: Seconds between two requests that find out whether the database is back.
PAUSE = 1.0
#: Seconds after which such a request is given up, longer than any waits for the database.
LONGEST_TRIAL = 6.0
#: A lock that was waited for in vain says little of the database. When within this many seconds it happened as often as
#: there are threads, all of them are held up.
LOCK_SECONDS = 3.0
LOCK_NOT_AVAILABLE = "55P03"


class Admission(NamedTuple):
    """Whether a request may ask the database, and until when it is the one that finds out."""

    is_granted: bool
    trial_until: float | None = None


class Circuit:
    """Open while the database is away. Each process has its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_trial_at: float | None = None
        self._lock_waits: deque[float] = deque(maxlen=THREADS)

    def admit(self) -> Admission:
        """Granted always while the database is there, else to one request in a while."""
        if self._next_trial_at is None:
            return Admission(is_granted=True)
        with self._lock:
            now = time.monotonic()
            if self._next_trial_at is None:
                return Admission(is_granted=True)
            if now < self._next_trial_at:
                return Admission(is_granted=False)
            self._next_trial_at = now + LONGEST_TRIAL
            return Admission(is_granted=True, trial_until=self._next_trial_at)

    def is_refusing(self) -> bool:
        """Whether nobody but the one that is finding out may ask at the moment."""
        next_trial_at = self._next_trial_at
        return next_trial_at is not None and time.monotonic() < next_trial_at

    def found_away(self, error: BaseException) -> None:
        """A request found the database away, with this error of Django's."""
        with self._lock:
            now = time.monotonic()
            is_closed = self._next_trial_at is None
            if is_closed and getattr(error.__cause__, "sqlstate", None) == LOCK_NOT_AVAILABLE:
                self._lock_waits.append(now)
                if len(self._lock_waits) < THREADS or now - self._lock_waits[0] > LOCK_SECONDS:
                    return
            self._next_trial_at = now + PAUSE
        if is_closed:
            logger.error("database away: requests are refused until it is back")

    def settle(self, admission: Admission) -> None:
        """A request is answered; if it was to find out and nobody has found the database away since, it is back."""
        if admission.trial_until is not None and admission.trial_until == self._next_trial_at:
            self.close()
            logger.warning("the database is back")

    def close(self) -> None:
        """Lets all requests ask the database."""
        with self._lock:
            self._next_trial_at = None
            self._lock_waits.clear()


circuit = Circuit()
