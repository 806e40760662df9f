"""Keeps the control plane's pulse, for as long as workers get through to this process.

A worker that we refuse is silent through no fault of its own. So there is no beat while requests are refused, nor while
every heartbeat ends in an error of ours; the next beat then notes an outage.
"""

import logging
import threading
import time
from contextlib import suppress
from http import HTTPStatus

from django.db import DatabaseError, InterfaceError, close_old_connections
from django.http import HttpRequest

from controlplane.engines.circuit import circuit
from controlplane.engines.troubles import Trouble, trouble_of
from environments import times
from workers.lifecycle.pulse import INTERVAL, beat, reach

logger = logging.getLogger(__name__)

#: Seconds for which a heartbeat's answer tells how others fare: a worker that ended after it is asked no more.
TELLS_FOR = 300.0
#: How many workers' latest heartbeats are kept in mind.
KEPT = 10_000


class Heart:
    """What this process's heartbeats were answered, and whether it beats."""

    def __init__(self) -> None:
        #: By path, and so by worker, when its heartbeat was noted, the latest last; gone when its next one is not.
        self._noted: dict[str, float] = {}
        self._refused_at: float | None = None

    def hear(self, request: HttpRequest, status: int) -> None:
        """A call of the worker API was answered; what is wrong with a call itself says nothing of us."""
        path = request.path_info
        if not path.endswith("/heartbeat"):
            return
        if status < HTTPStatus.BAD_REQUEST:
            self._noted.pop(path, None)
            self._noted[path] = time.monotonic()
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._noted.pop(path, None)
            self._refused_at = time.monotonic()
        if len(self._noted) > KEPT:
            self._noted = dict(list(self._noted.items())[KEPT // 2 :])

    def is_heard(self) -> bool:
        """Whether workers get through, as far as is known: one whose latest heartbeat was noted is enough."""
        lately = time.monotonic() - TELLS_FOR
        if self._refused_at is None or self._refused_at < lately:
            return True
        return max([-1.0, *list(self._noted.values())[-1:]]) >= lately

    def beat(self) -> None:
        """Beats if workers get through.

        A beat asks for nobody's row, so one that waits in vain may mean that everybody does.
        """
        if circuit.is_open() or not self.is_heard():
            logger.warning("no pulse: workers are refused")
            return
        try:
            beat()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("no pulse: %s", type(error.__cause__ or error).__name__)
            if trouble_of(error) in {Trouble.LOCKED, Trouble.BUSY}:
                circuit.suspect()

    def look(self) -> None:
        """Raises unless the database serves workers; an outage that is over goes on record with it."""
        (beat if self.is_heard() else reach)()

    def keep_beating(self) -> None:
        """Beats from now on in a thread of this process, which ends with it."""
        circuit.probe = self.look
        threading.Thread(target=self._beat_forever, name="pulse", daemon=True).start()

    def _beat_forever(self) -> None:
        while True:
            try:
                self.beat()
                with suppress(DatabaseError, InterfaceError):
                    times.follow()
                close_old_connections()
            except Exception:  # whatever it is, the next beat may pass; without any all workers would seem excused
                logger.exception("no pulse")
            time.sleep(INTERVAL)


heart = Heart()
