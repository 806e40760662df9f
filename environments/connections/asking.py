"""How often, and by how many at once, other servers are asked for somebody who waits for a page."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from environments.limits import count, seconds_left

#: Of one person in one process, whatever they ask for.
MOST_PER_MINUTE = 30
#: Seconds after which the one that asks has been answered, or has given up.
LONGEST_TURN = 3
#: Seconds for which who came in vain goes before those who had a turn since.
WANTED_FOR = 2.0 * LONGEST_TURN


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
    would hold all threads of the process, and with them everybody's pages and all calls of workers. Of those who want
    it, the one who had it longest ago has it next: who asks again and again keeps nobody else from it.
    """

    def __init__(self) -> None:
        self._lock, self._is_taken = threading.Lock(), False
        self.forget()

    def forget(self) -> None:
        """Nobody has had it, nobody wants it."""
        #: When each had it last, and when each came in vain.
        self._had: dict[str, float] = {}
        self._wanted: dict[str, float] = {}

    @contextmanager
    def of(self, person: str) -> Iterator[None]:
        """The turn, which counts as one question of the person's; NotAskedError if it cannot be had now.

        All keys of an organization are one person.
        """
        if not self._take(person):
            msg = "Another check is under way; try again in a moment."
            raise AnotherAsksError(msg, LONGEST_TURN)
        try:
            if count(f"asks:{person}") > MOST_PER_MINUTE:
                msg = f"You asked other servers {MOST_PER_MINUTE} times within a minute: try again in a minute."
                raise AskedTooOftenError(msg, seconds_left())
            yield
        finally:
            self._is_taken = False

    def _take(self, person: str) -> bool:
        with self._lock:
            now = time.monotonic()
            self._wanted = {each: at for each, at in self._wanted.items() if at > now - WANTED_FOR}
            self._had = {each: at for each, at in self._had.items() if at > now - 10 * WANTED_FOR}
            had = self._had.get(person, 0.0)
            if self._is_taken or any(self._had.get(each, 0.0) < had for each in self._wanted if each != person):
                self._wanted[person] = now
                return False
            self._wanted.pop(person, None)
            self._had[person], self._is_taken = now, True
            return True


#: Connections are verified in one turn, boots are watched in another: neither keeps people from the other.
VERIFYING, WATCHING = Turn(), Turn()
