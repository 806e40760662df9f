"""Collects garbage after people's and readers' requests, so that workers' calls never wait for much of it.

While Python collects, no thread of the process goes on. Looking through all that a process keeps takes tens of
milliseconds, and more beside others that want its processor. So what lasts is set aside, what a page or a list leaves
is collected when that is done, what anything else leaves every few seconds, and a worker's call leaves none.
"""

import gc
import itertools

#: How many times more rarely than by itself Python looks through all that is there, unasked.
SELDOM = 100


class Garbage:
    """Of a process that serves; in any other one Python collects as it always does."""

    def __init__(self) -> None:
        self._times: itertools.count[int] | None = None

    def set_aside(self) -> None:
        """What there is now stays, and is not looked through again."""
        gc.collect()
        gc.freeze()
        young, middle, old = gc.get_threshold()
        gc.set_threshold(young, middle, old * SELDOM)
        self._times = itertools.count(1)

    def collect(self) -> None:
        """To be called when something is done that made much, and now and then.

        After the 1st, 2nd, 4th, 8th... time what is still there is set aside, too: templates, statements, all that
        pages keep. What is in use by chance is little, since that becomes ever rarer.
        """
        if self._times is None:
            return
        times = next(self._times)
        gc.collect()
        if times & (times - 1) == 0:
            gc.freeze()


garbage = Garbage()
