"""One pass: a look at what stands, then the messages that wait."""

from collections.abc import Callable
from datetime import datetime, timedelta

from environments import times
from workers.models import Lookout
from workers.notifications.looks import look
from workers.notifications.messages import AddressOf
from workers.notifications.outbox import Outbox, forget_old
from workers.observation.lease import Lease

#: From the beginning of one look to that of the next.
INTERVAL = timedelta(seconds=20)
#: For so long a turn lasts unless it is renewed; it outlasts the pause between two passes.
HELD_FOR = timedelta(seconds=45)


def lookout_lease(clock: Callable[[], datetime] = times.now) -> Lease:
    """The turn to look and to send."""
    return Lease(clock, of=Lookout, interval=INTERVAL, held_for=HELD_FOR)


def make_pass(lease: Lease, address_of: AddressOf, clock: Callable[[], datetime] = times.now) -> None:
    """What the holder of the turn does, once it has taken it; what waits is sent whatever became of the look."""
    try:
        look(lease, clock(), address_of)
    finally:
        Outbox(lease, clock, seconds=INTERVAL.total_seconds()).run()
    forget_old(clock())
    lease.finish()
