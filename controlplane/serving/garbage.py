"""Collects garbage after people's and readers' requests, so that workers' calls never wait for much of it.

While Python collects, no thread of the process goes on. Looking through all that a process keeps takes tens of
milliseconds, and more beside others that want its processor. So what lasts is set aside, what a page or a list leaves
is collected when that is done, what anything else leaves every few seconds, and a worker's call leaves none.
"""

import gc
import time

#: How many times more rarely than by itself Python looks through all that is there, unasked.
SELDOM = 100
#: So many objects that are still there after a collection are taken for what pages keep: templates, statements.
MANY = 10_000
#: How often they are set aside in an hour, after which everything is looked through: some were in use by chance.
TIMES, HOUR = 30, 3_600.0


class Garbage:
    """Of a process that serves; in any other one Python collects as it always does."""

    def __init__(self) -> None:
        self._is_serving = False
        self._times, self._until = 0, 0.0

    def serve(self) -> None:
        """From now on it is collected here; what there is by now lasts."""
        young, middle, old = gc.get_threshold()
        gc.set_threshold(young, middle, old * SELDOM)
        self._is_serving = True
        self._set_aside()

    def collect(self) -> None:
        """To be called when something is done that made much, and now and then."""
        if not self._is_serving:
            return
        if time.monotonic() > self._until:
            gc.unfreeze()
            self._set_aside()
            return
        gc.collect()
        if self._times < TIMES and len(gc.get_objects()) > MANY:
            self._times += 1
            gc.freeze()

    def _set_aside(self) -> None:
        gc.collect()
        gc.freeze()
        self._times, self._until = 0, time.monotonic() + HOUR


garbage = Garbage()
