"""What a look at a Temporal connection's task queues found, in words of ours; knows nothing of Temporal's client."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

#: How Temporal's clients call themselves unless they are told another name; no host here is known by one with NUL.
USUAL_IDENTITY = re.compile(r"(?P<pid>[0-9]{1,18})@(?P<hostname>[^\0\n]{1,255})", re.ASCII)
#: A poller that was not seen for so long polls no more: a poll is answered, or asked anew, within 60 s.
POLLS_WITHIN = timedelta(minutes=2)


class Place(NamedTuple):
    """Where a process runs: what both sides know it by."""

    hostname: str
    pid: int


def place_in(identity: str) -> Place | None:
    """The place that an identity of the usual form tells."""
    match = USUAL_IDENTITY.fullmatch(identity)
    return Place(match["hostname"], int(match["pid"])) if match else None


@dataclass(frozen=True)
class SeenPoller:
    """Who polls a task queue: at most 200 printable characters, and when last."""

    identity: str
    polled_at: datetime
    #: Where it runs, as far as its identity or Temporal's list of workers tells; several may share an identity.
    places: frozenset[Place]


@dataclass(frozen=True)
class QueueLook:
    """What Temporal says of one task queue."""

    looked_at: datetime
    workflow_pollers: int = 0
    activity_pollers: int = 0
    pollers: tuple[SeenPoller, ...] = ()
    #: Tasks that wait, and for how long the oldest has; None where the server does not tell.
    backlog: int | None = None
    oldest_age: timedelta | None = None
    #: Processes that do not poll since all of their slots are taken.
    full: frozenset[Place] = frozenset()


@dataclass(frozen=True)
class Look:
    """What Temporal says of a connection's task queues, and why not of all of them."""

    queues: dict[str, QueueLook]
    problem: str = ""
