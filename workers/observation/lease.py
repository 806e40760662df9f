"""Whose turn it is to ask Temporal, or to tell what happened: one process's of all, until it is silent for a while."""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Q

from environments import times
from workers.models import Sweep, Turn

#: From the beginning of one pass to that of the next.
INTERVAL = timedelta(seconds=60)
#: For so long a turn lasts unless it is renewed; it outlasts the pause between two passes.
HELD_FOR = timedelta(seconds=90)


class Lease:
    """The turn, as one holder sees it."""

    def __init__(
        self,
        clock: Callable[[], datetime] = times.now,
        *,
        of: type[Turn] = Sweep,
        interval: timedelta = INTERVAL,
        held_for: timedelta = HELD_FOR,
    ) -> None:
        self.holder = uuid.uuid4()
        self._clock = clock
        self._rows: Any = of._default_manager
        self._interval, self._held_for = interval, held_for
        self._before: uuid.UUID | None = None

    def take(self) -> bool:
        """Whether a pass is due and ours to make; it has begun then.

        The holder keeps the turn from pass to pass, since only it has loaded what a pass needs.
        """
        now = self._clock()
        return self._begin(self._is_free(now) & (Q(started_at=None) | Q(started_at__lte=now - self._interval)), now)

    def take_once(self) -> bool:
        """The same for a pass by hand, which is due whenever no other one is under way."""
        now = self._clock()
        self._before = self._rows.values_list("holder", flat=True).first()
        is_quiet = Q(started_at=None) | Q(finished_at__gte=F("started_at"))
        return self._begin(self._is_free(now) | is_quiet, now)

    def renew(self) -> bool:
        """Whether the turn is still ours; it is for a while then."""
        return bool(self._rows.filter(holder=self.holder).update(expires_at=self._clock() + self._held_for))

    def finish(self, **figures: int) -> None:
        """Notes how the pass went, unless another process has taken over meanwhile."""
        now = self._clock()
        told = {"finished_at": now, "expires_at": now + self._held_for, **figures}
        self._rows.filter(holder=self.holder).update(**told)

    def give_back(self) -> None:
        """After a pass by hand: to whom the turn was taken from."""
        self._rows.filter(holder=self.holder).update(holder=self._before)

    def _is_free(self, now: datetime) -> Q:
        return Q(holder=self.holder) | Q(holder=None) | Q(expires_at__lte=now)

    def _begin(self, condition: Q, now: datetime) -> bool:
        """Looks first, since whoever only looks takes no lock."""
        rows = self._rows.filter(condition)
        if not rows.exists():
            if self._rows.exists():
                return False
            self._rows.bulk_create([self._rows.model()], ignore_conflicts=True)
        begun = {"holder": self.holder, "expires_at": now + self._held_for, "started_at": now, "finished_at": None}
        return bool(rows.update(**begun))


def next_pass_at() -> datetime | None:
    """When the next pass is due, whoever makes it; None before the first one."""
    started_at = Sweep.objects.values_list("started_at", flat=True).first()
    return started_at + INTERVAL if started_at else None
