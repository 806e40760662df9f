"""What is known of a worker's process: computed when read, from its last heartbeat."""

from datetime import timedelta
from enum import StrEnum

#: Multiples of the heartbeat interval after which silence is Late, then Offline, and the least silence for Offline.
LATE_AFTER_INTERVALS = 1.5
OFFLINE_AFTER_INTERVALS = 3
OFFLINE_AFTER_AT_LEAST = timedelta(seconds=90)


class Liveness(StrEnum):
    """What is known of a worker's process, computed when read and stored nowhere."""

    NEVER_STARTED = "Never started"
    ONLINE = "Online"
    LATE = "Late"
    OFFLINE = "Offline"
    STOPPED = "Stopped"
