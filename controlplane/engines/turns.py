"""Who computes: of the calls of workers one at a time in a process, which leaves its turn while it waits.

Python runs one thread at a time anyway. Left to themselves, threads take that from each other at each call of the
system, of which a start makes a dozen: the changes from thread to thread then cost an eighth of a start.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: Seconds after which a call goes ahead without its turn, since whoever has it waits for a body or the disk.
PATIENCE = 0.02
#: Seconds for which an organization's calls leave their turn to read a body, after one of its bodies came slowly.
LATELY = 2.0


@dataclass(eq=False)
class Turn:
    """Of one call: whose key it has, whether it has its turn or had one before, since when it reads its body."""

    holder: str
    is_held: bool = False
    was_held: bool = False
    reads_since: float | None = None
    #: Locked by the call that waits; whoever gives it the turn releases it.
    signal: threading.Lock = field(default_factory=threading.Lock)


class Turns:
    """Organizations have their turns one after the other, however many calls each of them makes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Turn | None = None
        #: By organization, that whose turn is next first.
        self._waiting: dict[str, deque[Turn]] = {}
        #: When a body of an organization came slowly.
        self._slow: dict[str, float] = {}
        self._thread = threading.local()

    def waiting(self) -> int:
        """How many calls wait for their turn."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    @contextmanager
    def taken(self, holder: str) -> Iterator[Turn]:
        """The turn of a call of this thread, while it is entered; it is not waited for long."""
        turn = self._thread.turn = Turn(holder)
        self._take(turn)
        try:
            yield turn
        finally:
            self._thread.turn = None
            self._leave(turn)

    @contextmanager
    def left(self) -> Iterator[None]:
        """While it is entered this thread waits for something, and others have the turn."""
        turn: Turn | None = getattr(self._thread, "turn", None)
        if turn is None:
            yield
            return
        self._leave(turn)
        try:
            yield
        finally:
            self._take(turn)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While it is entered this thread reads a body, which may come slowly: then who waits takes its turn."""
        turn: Turn | None = getattr(self._thread, "turn", None)
        if turn is None:
            yield
            return
        if self._slow.get(turn.holder, 0.0) > time.monotonic() - LATELY:
            self._leave(turn)
        turn.reads_since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                turn.reads_since = None
            if not turn.is_held:
                self._take(turn)

    def _take(self, turn: Turn) -> None:
        """Waits for the turn, but not for long. Who had one already comes before other calls of its organization."""
        with self._lock:
            if self._held is None:
                self._give(turn)
                return
            turn.signal.acquire()
            own = self._waiting.setdefault(turn.holder, deque())
            (own.appendleft if turn.was_held else own.append)(turn)
        if not turn.signal.acquire(timeout=PATIENCE):
            self._give_up(turn)
        turn.signal.release()

    def _give_up(self, turn: Turn) -> None:
        """Goes ahead without the turn, unless whoever has it waits for a body, and does not need it."""
        with self._lock:
            held, since = self._held, time.monotonic() - PATIENCE
            if held and held.reads_since is not None and held.reads_since < since:
                self._slow[held.holder] = time.monotonic()
                self._pass_on(held)
            if turn.is_held:
                turn.signal.acquire()  # it was given the turn just now
                return
            own = self._waiting[turn.holder]
            own.remove(turn)
            if not own:
                del self._waiting[turn.holder]

    def _leave(self, turn: Turn) -> None:
        with self._lock:
            if turn.is_held:
                self._pass_on(turn)

    def _give(self, turn: Turn) -> None:
        self._held, turn.is_held, turn.was_held = turn, True, True

    def _pass_on(self, turn: Turn) -> None:
        """To the organization that has waited longest, which then is the last."""
        self._held, turn.is_held = None, False
        if not self._waiting:
            return
        holder = next(iter(self._waiting))
        own = self._waiting.pop(holder)
        following = own.popleft()
        if own:
            self._waiting[holder] = own
        self._give(following)
        following.signal.release()


turns = Turns()
