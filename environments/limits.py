"""Counts what is asked for within a minute, in each process."""

import threading
import time

WINDOW_SECONDS = 60


class Counts:
    """What was counted in the current window; forgotten with it, so it grows with one minute's subjects only.

    A cache would keep each count until it is full: tens of megabytes in each process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window = 0
        self._counts: dict[str, int] = {}

    def add(self, subject: str) -> int:
        """Counts one more and returns the count."""
        window = int(time.time()) // WINDOW_SECONDS
        with self._lock:
            if window != self._window:
                self._window, self._counts = window, {}
            self._counts[subject] = found = self._counts.get(subject, 0) + 1
            return found

    def forget(self) -> None:
        """As when a window begins."""
        with self._lock:
            self._counts = {}


counts = Counts()


def count(subject: str) -> int:
    """Counts one more in the current window of this process and returns the count."""
    return counts.add(subject)


def seconds_left() -> int:
    """Seconds until the next window, at least 1."""
    return WINDOW_SECONDS - int(time.time()) % WINDOW_SECONDS
