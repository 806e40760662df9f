"""One pass: asks Temporal about every task queue, a few connections at once, and writes what it says.

The calls are made in threads of their own, which know no database; what is read and written is so in between, in short
transactions. A connection that does not answer costs its three seconds, and is asked less and less often.
"""

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import batched, zip_longest
from queue import Empty, SimpleQueue
from uuid import UUID

from django.db import DataError, IntegrityError

from environments import times
from environments.connections.verification import ConnectionProblemError
from environments.connections.verification.guard import resolve_name
from environments.connections.verification.looks import Look, QueueLook
from environments.connections.verification.outcome import Deadline
from environments.connections.verification.trial import try_out
from environments.encryption import CannotOpenError, Secret
from environments.models import TemporalConnection
from environments.sealing.data_keys import open_api_key
from workers.observation.judging import judge
from workers.observation.known import current_of, others_at
from workers.observation.lease import INTERVAL, Lease
from workers.observation.recording import record_looks, record_problem
from workers.observation.targets import AskedQueue, Target, find_targets, forget_unasked

logger = logging.getLogger(__name__)

#: Connections that are asked at once.
AT_ONCE = 4
#: Queues whose answers are written together.
WRITTEN_TOGETHER = 50
#: How much of the time between two passes the calls are spread over, and how long a pause is at most.
SPREAD, LONGEST_PAUSE = 0.5, 0.1
#: Seconds after which the turn is renewed while answers are waited for.
RENEWED_AFTER = 10.0
#: A connection that does not answer twice in a row is left out for 1, 3, 7 and at last 15 passes.
MOST_PASSES_LEFT_OUT = 15
UNKEPT = "What Temporal answers cannot be kept."
NO_KEY = "The API key of the Temporal connection cannot be opened at the moment."


@dataclass(frozen=True)
class Asked:
    """What became of one connection in a pass."""

    connection: TemporalConnection
    queues: int
    answered: int
    problem: str = ""


class Backoff:
    """Which connections did not answer of late, and for how many passes they are left out."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], int] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def wanted(self, targets: Iterable[Target]) -> list[Target]:
        """Those that are asked in this pass; those that are gone are forgotten."""
        targets = list(targets)
        keys = {target.key for target in targets}
        for known in (self._failures, self._left_out):
            for key in known.keys() - keys:
                del known[key]
        found = []
        for target in targets:
            left = self._left_out.get(target.key, 0)
            if left:
                self._left_out[target.key] = left - 1
            else:
                found.append(target)
        return found

    def note(self, target: Target, *, is_answered: bool) -> None:
        """Counts what became of a connection."""
        if is_answered:
            self._failures.pop(target.key, None)
            return
        failures = self._failures[target.key] = self._failures.get(target.key, 0) + 1
        self._left_out[target.key] = min(2 ** (failures - 1) - 1, MOST_PASSES_LEFT_OUT)


def by_turns(targets: Iterable[Target]) -> list[Target]:
    """One connection of each organization after the other, so that nobody waits for all of another's slow ones."""
    of: dict[str, list[Target]] = defaultdict(list)
    for target in targets:
        of[target.connection.organization_id].append(target)
    return [target for turn in zip_longest(*of.values()) for target in turn if target]


class Pass:
    """One pass of a holder of the turn."""

    def __init__(
        self, lease: Lease, backoff: Backoff, clock: Callable[[], datetime] = times.now, *, seconds: float = math.inf
    ) -> None:
        self._lease, self._backoff, self._clock = lease, backoff, clock
        #: After which no further connection is asked: it has its turn early in the next pass.
        self._until = time.monotonic() + seconds
        self._is_over = threading.Event()
        self._found: SimpleQueue[tuple[Target, Look]] = SimpleQueue()

    def run(self) -> Iterator[tuple[Asked, int]]:
        """Asks all, and tells of each connection what became of it, and how many there are; the turn is ours before."""
        targets = find_targets()
        forget_unasked(targets)
        wanted = by_turns(self._backoff.wanted(targets))
        # What is left out did not answer the last time.
        queues, unanswered = 0, len(targets) - len(wanted)
        number = sum(len(target.queues) for target in wanted)
        pause = min(LONGEST_PAUSE, SPREAD * INTERVAL.total_seconds() * AT_ONCE / max(1, number))
        try:
            for target, look in self._looks(wanted, pause):
                self._record(target, look)
                self._backoff.note(target, is_answered=not look.problem)
                queues, unanswered = queues + len(look.queues), unanswered + bool(look.problem)
                yield Asked(target.connection, len(target.queues), len(look.queues), look.problem), len(wanted)
        finally:
            self._is_over.set()
            self._lease.finish(queues=queues, unanswered=unanswered)

    def _looks(self, targets: list[Target], pause: float) -> Iterator[tuple[Target, Look]]:
        """As they come in; ends early when another process has the turn."""
        waiting, under_way = iter(targets), 0
        while True:
            while under_way < AT_ONCE and time.monotonic() < self._until and (target := next(waiting, None)):
                self._ask(target, pause)
                under_way += 1
            if not under_way:
                return
            try:
                found = self._found.get(timeout=RENEWED_AFTER)
            except Empty:
                found = None
            if not self._lease.renew():
                return
            if found:
                under_way -= 1
                yield found

    def _ask(self, target: Target, pause: float) -> None:
        """In a thread that ends with the process; the API key is opened here, where there is a database."""
        try:
            key = getattr(target.connection.organization, "active_data_key", None)
            secret = open_api_key(target.connection, data_key=key)
        except CannotOpenError:
            self._found.put((target, Look({}, NO_KEY)))
            return
        thread = threading.Thread(target=self._look, args=[target, secret, pause], name="sweep-look", daemon=True)
        thread.start()

    def _look(self, target: Target, secret: Secret, pause: float) -> None:
        try:
            look = self._look_at(target, secret, pause)
        except Exception:  # whatever it is, whoever waits for the answer has to get one
            logger.exception("the look at %s failed", target.connection.pk)
            look = Look({}, "The look failed; the log says why.")
        self._found.put((target, look))

    def _look_at(self, target: Target, secret: Secret, pause: float) -> Look:
        """Loads Temporal's client once somebody listens, so that whoever finds nobody goes without it."""
        try:
            try_out(target.connection, Deadline(), resolve_name)
        except ConnectionProblemError as error:
            return Look({}, str(error))
        from environments.connections.verification.task_queues import look_at  # noqa: PLC0415  # as said above

        names = [queue.name for queue in target.queues]
        return look_at(target.connection, secret, names, clock=self._clock, pause=pause, is_wanted=self._is_wanted)

    def _is_wanted(self) -> bool:
        return not self._is_over.is_set()

    def _record(self, target: Target, look: Look) -> None:
        answered = [queue for queue in target.queues if queue.name in look.queues]
        left = [queue for queue in target.queues if queue.name not in look.queues] if look.problem else []
        for part in batched(answered, WRITTEN_TOGETHER):
            looks = {queue.id: look.queues[queue.name] for queue in part}
            try:
                _join(target, part, looks, self._clock())
            except IntegrityError:  # a queue or a process was deleted meanwhile; the next pass knows
                logger.info("a look at %s was not kept: what it tells of has gone", target.connection.pk)
            except (DataError, OverflowError, ValueError):  # no column holds it; the others are to have their look
                logger.exception("a look at %s cannot be kept", target.connection.pk)
                self._record_problem(target, part, UNKEPT)
        self._record_problem(target, left, look.problem)

    def _record_problem(self, target: Target, queues: Iterable[AskedQueue], problem: str) -> None:
        try:
            record_problem(target, queues, problem, self._clock())
        except IntegrityError:
            logger.info("a problem of %s was not kept: a queue has gone", target.connection.pk)


def _join(target: Target, queues: tuple[AskedQueue, ...], looks: dict[UUID, QueueLook], now: datetime) -> None:
    current = current_of(queues, target, now)
    others = others_at(looks, current, target, now)
    verdicts = {
        queue.id: judge(looks[queue.id], [*(each.seen_from(queue.id) for each in others), *current[queue.id]])
        for queue in queues
    }
    record_looks(target, queues, looks, verdicts)
