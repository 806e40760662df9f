"""Whose turn it is to ask Temporal: one process's of all, until it has been silent for a while."""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db.models import F, Q

from environments import times
from workers.models import Sweep

#: From the beginning of one pass to that of the next.
INTERVAL = timedelta(seconds=60)
#: For so long a turn lasts unless it is renewed; it outlasts the pause between two passes.
HELD_FOR = timedelta(seconds=90)


class Lease:
    """The turn, as one holder sees it."""

    def __init__(self, clock: Callable[[], datetime] = times.now) -> None:
        self.holder = uuid.uuid4()
        self._clock = clock
        self._before: uuid.UUID | None = None

    def take(self) -> bool:
        """Whether a pass is due and ours to make; it has begun then.

        The holder keeps the turn from pass to pass, since only it has Temporal's client loaded.
        """
        now = self._clock()
        return self._begin(self._is_free(now) & (Q(started_at=None) | Q(started_at__lte=now - INTERVAL)), now)

    def take_once(self) -> bool:
        """The same for a pass by hand, which is due whenever no other one is under way."""
        now = self._clock()
        self._before = Sweep.objects.values_list("holder", flat=True).first()
        is_quiet = Q(started_at=None) | Q(finished_at__gte=F("started_at"))
        return self._begin(self._is_free(now) | is_quiet, now)

    def renew(self) -> bool:
        """Whether the turn is still ours; it is for a while then."""
        return bool(Sweep.objects.filter(holder=self.holder).update(expires_at=self._clock() + HELD_FOR))

    def finish(self, *, queues: int, unanswered: int) -> None:
        """Notes how the pass went, unless another process has taken over meanwhile."""
        now = self._clock()
        told = {"finished_at": now, "queues": queues, "unanswered": unanswered, "expires_at": now + HELD_FOR}
        Sweep.objects.filter(holder=self.holder).update(**told)

    def give_back(self) -> None:
        """After a pass by hand: to whom the turn was taken from."""
        Sweep.objects.filter(holder=self.holder).update(holder=self._before)

    def _is_free(self, now: datetime) -> Q:
        return Q(holder=self.holder) | Q(holder=None) | Q(expires_at__lte=now)

    def _begin(self, condition: Q, now: datetime) -> bool:
        """Looks first, since whoever only looks takes no lock."""
        rows = Sweep.objects.filter(condition)
        if not rows.exists():
            if Sweep.objects.exists():
                return False
            Sweep.objects.bulk_create([Sweep()], ignore_conflicts=True)
        begun = {"holder": self.holder, "expires_at": now + HELD_FOR, "started_at": now, "finished_at": None}
        return bool(rows.update(**begun))


def next_pass_at() -> datetime | None:
    """When the next pass is due, whoever makes it; None before the first one."""
    started_at = Sweep.objects.values_list("started_at", flat=True).first()
    return started_at + INTERVAL if started_at else None
