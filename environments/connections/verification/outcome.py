"""What a verification ends with, and the three seconds that it has."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from environments.endpoints.hosts import UnusableError

#: Seconds for all of a verification: look-up, connection, TLS and every answer together.
TIME_LIMIT = 3.0
LONGEST_DETAILS = 100
#: Where a user of a network without a way out except a proxy finds out that the control plane does not take it.
DIRECTLY = "The control plane takes no egress proxy: if your network has one, see docs/operate/private-networks.md."
UNSAFE = re.compile(r"[^A-Za-z0-9 .,:;()+/_-]")


class ConnectionProblemError(Exception):
    """Why a connection does not work: a sentence for the operator, without secrets and without what a server wrote."""


@dataclass(frozen=True)
class Verification:
    """The result of really connecting."""

    is_ok: bool
    #: One sentence for people; "" when ok.
    problem: str
    #: Milliseconds from the first look-up to the last answer, or to the problem.
    latency_ms: int
    #: Such as the server's version, at most 100 printable characters; "" when unknown.
    details: str = ""


class Deadline:
    """The moment at which everything has to be over."""

    def __init__(self, seconds: float = TIME_LIMIT) -> None:
        self._started_at = time.monotonic()
        self._seconds = seconds

    def left(self) -> float:
        """Seconds that are left, more than 0; TimeoutError when none are."""
        seconds = self._seconds - self.elapsed()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.elapsed() >= self._seconds

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at


def measured(check: Callable[[Deadline], str]) -> Verification:
    """Runs a check, which returns the details or raises a ConnectionProblemError."""
    deadline = Deadline()
    problem = details = ""
    try:
        details = printable(check(deadline))
    except (ConnectionProblemError, UnusableError) as error:
        problem = str(error)
    return Verification(not problem, problem, round(deadline.elapsed() * 1000), details)


def printable(text: str, *, limit: int = LONGEST_DETAILS) -> str:
    """What is harmless of a text that a server wrote."""
    return UNSAFE.sub("", text[:limit])
