"""Asks Temporal again and again who polls and what waits; only the process whose turn it is loads Temporal's client."""

import logging

from controlplane.serving.background import Background
from workers.observation.lease import INTERVAL as PASS_INTERVAL
from workers.observation.lease import Lease
from workers.observation.sweeps import Backoff, Pass

logger = logging.getLogger(__name__)

#: Seconds for which a pass asks further connections: slow ones keep nobody waiting for longer than that and their own.
PASS_SECONDS = PASS_INTERVAL.total_seconds()


class Sweeper(Background):
    """The part that one process has in the sweep."""

    name = "sweep"
    is_collecting = True

    def __init__(self) -> None:
        self._lease = Lease()
        self._backoff = Backoff()

    def work(self) -> bool:
        """Makes a pass if one is due and it is this process's turn; whether it did."""
        if not self._lease.take():
            return False
        for asked, _ in Pass(self._lease, self._backoff, seconds=PASS_SECONDS).run():
            if asked.problem:
                logger.info("temporal connection %s: %s", asked.connection.pk, asked.problem)
        return True


sweeper = Sweeper()
