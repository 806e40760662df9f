"""Joins who polls a task queue with the processes that are known here, by the evidence that both sides have."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from environments.connections.verification.looks import Place, QueueLook, SeenPoller

#: A process may poll on for so long after its goodbye: its last polls are answered within a minute.
ENDS_WITHIN = timedelta(minutes=1)


@dataclass(frozen=True)
class KnownProcess:
    """A process that is known here."""

    id: UUID
    organization_id: str
    queue_id: UUID
    hostname: str
    pid: int | None
    is_live: bool
    stopped_at: datetime | None = None
    #: Whether it is to be judged by this look: it is its worker's current one, and asks the same Temporal.
    is_judged: bool = True
    #: Whether a newer one of its worker has started, beside which it asks the same Temporal about this queue: that it
    #: polls is said of it, and never that it does not, since it is looked for only where a poller is unknown.
    is_older: bool = False

    @property
    def place(self) -> Place | None:
        """Where it runs, if it has told."""
        return Place(self.hostname, self.pid) if self.hostname and self.pid is not None else None

    def seen_from(self, queue_id: UUID) -> Self:
        """As it is for the look at a queue: of an older process of another one that look says nothing."""
        return self if self.queue_id == queue_id or not self.is_older else replace(self, is_older=False)


@dataclass(frozen=True)
class Judged:
    """What is known of a process from now on."""

    process: KnownProcess
    is_polling: bool
    is_full: bool = False

    @property
    def is_conspicuous(self) -> bool:
        """Whether polling and heartbeats do not go together."""
        return self.is_polling != self.process.is_live


@dataclass(frozen=True)
class Verdict:
    """What the look at one queue says."""

    judged: tuple[Judged, ...]
    strangers: tuple[SeenPoller, ...]


def judge(look: QueueLook, processes: Iterable[KnownProcess]) -> Verdict:
    """Who of the processes polls, and which pollers are none of them; of one that is told twice the latter counts.

    A process is known not to poll only where no poller could be it: one that has not told where it runs could be any
    stranger, and a stranger whose name does not tell where it runs could be any process.
    """
    at: dict[Place, list[KnownProcess]] = defaultdict(list)
    known = list({process.id: process for process in processes}.values())
    for process in known:
        if process.place:
            at[process.place].append(process)
    polling: dict[UUID, KnownProcess] = {}
    strangers = []
    for poller in look.pollers:
        found = [process for place in poller.places for process in at.get(place, ())]
        polling |= {process.id: process for process in found if _polls(process, poller)}
        if not found:
            strangers.append(poller)
    is_nameless = any(not poller.places for poller in strangers)
    judged = [Judged(process, is_polling=True) for process in polling.values() if process.is_judged or process.is_older]
    for process in known:
        could_be = bool(strangers) if process.place is None else is_nameless
        if process.is_judged and process.is_live and process.id not in polling and not could_be:
            judged.append(Judged(process, is_polling=False, is_full=process.place in look.full))
    # Where one cannot be told from the other, nobody is called a stranger.
    is_silent = any(process.is_judged and process.is_live and process.id not in polling for process in known)
    named = tuple(poller for poller in strangers if poller.places or not is_silent)
    return Verdict(tuple(judged), named)


def _polls(process: KnownProcess, poller: SeenPoller) -> bool:
    return process.stopped_at is None or poller.polled_at > process.stopped_at + ENDS_WITHIN
