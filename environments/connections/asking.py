"""How often, and by how many at once, other servers are asked for somebody who waits for a page."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from environments.limits import count, seconds_left

#: Of one person in one process, whatever they ask for.
MOST_PER_MINUTE = 30
#: Seconds after which the one that asks has been answered, or has given up.
LONGEST_TURN = 3


class NotAskedError(Exception):
    """Why no other server is asked now, and in how many seconds one may be."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


class AskedTooOftenError(NotAskedError):
    """The person has asked as often as anybody may within a minute."""


class AnotherAsksError(NotAskedError):
    """Another thread of the process is asking."""


class Turn:
    """What one thread of a process does at a time; whoever comes meanwhile is told so at once, and holds no thread.

    A server that never answers holds the thread that asks for three seconds. Were there no turns, a few people who ask
    would hold all threads of the process, and with them everybody's pages and all calls of workers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def of(self, person: str) -> Iterator[None]:
        """The turn, which counts as one question of the person's; NotAskedError if it cannot be had now."""
        if not self._lock.acquire(blocking=False):
            msg = "Another check is under way; try again in a moment."
            raise AnotherAsksError(msg, LONGEST_TURN)
        try:
            if count(f"asks:{person}") > MOST_PER_MINUTE:
                msg = f"You asked other servers {MOST_PER_MINUTE} times within a minute: try again in a minute."
                raise AskedTooOftenError(msg, seconds_left())
            yield
        finally:
            self._lock.release()


#: Connections are verified in one turn, boots are watched in another: neither keeps people from the other.
VERIFYING, WATCHING = Turn(), Turn()
