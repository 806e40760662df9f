"""Sends the messages that wait, and sends again what was not taken: a few at once, by turns of organizations.

A message is claimed before it is sent. So a process that dies in between loses none: it is sent again, once the claim
has run out. Whoever receives knows it by its id.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue

from django.db.models import Exists, OuterRef, QuerySet, Window
from django.db.models.functions import RowNumber

from environments import times
from environments.encryption import CannotOpenError
from workers.models import Incident, NotificationDelivery, NotificationTarget, TargetKind
from workers.notifications.sending import UNOPENED, Attempt, Outgoing, outgoing, send
from workers.observation.lease import Lease

logger = logging.getLogger(__name__)

#: Messages that are sent at once, and of those how many of one organization; one target is sent one at a time.
AT_ONCE, OF_ONE = 8, 2
#: Of one target, how many that are due are looked at together.
LOOKED_AT = 5
#: How long after each failed attempt the next one is made; after the last one it is given up: about a day in all.
DELAYS = tuple(
    timedelta(seconds=seconds)
    for seconds in (30, 60, 120, 300, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 21_600, 21_600)
)
#: What may have been taken all the same is sent so often at most: people read it each time.
MOST_UNCERTAIN = 3
#: An attempt that has told nothing for so long was lost with its process.
CLAIMED_FOR = timedelta(seconds=60)
#: Seconds after which the turn is renewed while answers are waited for.
RENEWED_AFTER = 5.0
#: What has been told, and what is over, is kept for so long; what was given up needs attention for a week.
KEPT_FOR, ATTENTION_FOR = timedelta(days=30), timedelta(days=7)
#: Rows removed at a time.
REMOVED_AT_ONCE = 1_000
FAILED = "The attempt failed; the log says why."


class Outbox:
    """The sending of one pass, by who has the turn."""

    def __init__(self, lease: Lease, clock: Callable[[], datetime] = times.now, *, seconds: float) -> None:
        self._lease, self._clock = lease, clock
        #: After which no further message is begun: a look is due again.
        self._until = time.monotonic() + seconds
        self._ended: SimpleQueue[tuple[NotificationDelivery, Attempt]] = SimpleQueue()
        self._under_way: dict[object, NotificationDelivery] = {}
        self._served = Counter[str]()

    def run(self) -> None:
        """Sends what is due until there is no more of it, the time is over, or another process has the turn."""
        due = self._due()
        while due or self._under_way:
            while len(self._under_way) < AT_ONCE and (delivery := self._next(due)):
                due.remove(delivery)
                self._begin(delivery)
            if not self._hear():
                return
            if not due and time.monotonic() < self._until:
                due = self._due()

    def _due(self) -> list[NotificationDelivery]:
        """The oldest of each target that may be told now; two statements."""
        now = self._clock()
        rows = NotificationDelivery.objects.filter(next_attempt_at__lte=now)
        here = rows.filter(target=OuterRef("pk")).order_by()
        targets = NotificationTarget.objects.filter(Exists(here), is_enabled=True).order_by()
        ready = [target.pk for target in targets if not target.is_held_back(now)]
        place = Window(RowNumber(), partition_by="target_id", order_by=["next_attempt_at", "pk"])
        first = rows.filter(target__in=ready).annotate(place=place).filter(place__lte=LOOKED_AT)
        under_way = [delivery.pk for delivery in self._under_way.values()]
        return (
            list(first.exclude(pk__in=under_way).select_related("target__organization__active_data_key"))
            if ready
            else []
        )

    def _next(self, due: list[NotificationDelivery]) -> NotificationDelivery | None:
        """One of the organization that was served least, unless the time is over."""
        if time.monotonic() >= self._until:
            due.clear()
        busy = Counter(delivery.organization_id for delivery in self._under_way.values())
        free = [row for row in due if _lane(row) not in self._under_way and busy[row.organization_id] < OF_ONE]
        return min(free, key=lambda row: self._served[row.organization_id], default=None)

    def _begin(self, delivery: NotificationDelivery) -> None:
        """In a thread that ends with the process; what is sealed is opened here, where there is a database."""
        now = self._clock()
        same = NotificationDelivery.objects.filter(pk=delivery.pk, next_attempt_at=delivery.next_attempt_at)
        self._served[delivery.organization_id] += 1
        delivery.attempts += 1
        if not same.update(next_attempt_at=now + CLAIMED_FOR, attempts=delivery.attempts):
            return  # it is gone, or somebody else's
        self._under_way[_lane(delivery)] = delivery
        try:
            message = outgoing(delivery.target, delivery.payload, delivery.taken_by)
        except CannotOpenError:
            self._ended.put((delivery, Attempt(UNOPENED)))
            return
        threading.Thread(target=self._send, args=[delivery, message, now], name="notification", daemon=True).start()

    def _send(self, delivery: NotificationDelivery, message: Outgoing, now: datetime) -> None:
        try:
            attempt = send(message, now)
        except Exception:  # whatever it is, whoever waits for the answer has to get one
            logger.exception("the attempt to send %s failed", delivery.pk)
            attempt = Attempt(FAILED)
        self._ended.put((delivery, attempt))

    def _hear(self) -> bool:
        """Waits for the next answer and keeps it; whether the turn is still ours."""
        if not self._under_way:
            return True
        try:
            delivery, attempt = self._ended.get(timeout=RENEWED_AFTER)
        except Empty:
            return self._lease.renew()
        del self._under_way[_lane(delivery)]
        keep_outcome(delivery, attempt, self._clock())
        return self._lease.renew()


def _lane(delivery: NotificationDelivery) -> object:
    """What is done one at a time: a target, and the mail server."""
    return TargetKind.EMAIL if delivery.target.kind == TargetKind.EMAIL else delivery.target_id


def keep_outcome(delivery: NotificationDelivery, attempt: Attempt, now: datetime) -> None:
    """Notes how an attempt ended: it was taken, is made again later, or is given up."""
    waiting = NotificationDelivery.objects.filter(pk=delivery.pk, next_attempt_at__isnull=False)
    if not attempt.problem:
        waiting.update(delivered_at=now, next_attempt_at=None, last_error="")
        return
    logger.info("notification %s: not taken at attempt %s", delivery.pk, delivery.attempts)
    values = {
        "last_error": attempt.problem,
        "taken_by": ", ".join(filter(None, [delivery.taken_by, *attempt.taken_by])),
    }
    if delivery.attempts >= (MOST_UNCERTAIN if attempt.may_be_taken else len(DELAYS) + 1):
        waiting.update(given_up_at=now, next_attempt_at=None, **values)
        return
    waiting.update(next_attempt_at=now + DELAYS[delivery.attempts - 1], **values)


def try_again(deliveries: QuerySet[NotificationDelivery], now: datetime) -> int:
    """Has those be sent anew that were given up; how many they were."""
    given_up = deliveries.filter(given_up_at__isnull=False)
    return given_up.update(given_up_at=None, next_attempt_at=now, attempts=0)


def forget_old(now: datetime) -> None:
    """Removes messages that ended, and incidents that were over, long ago."""
    before = now - KEPT_FOR
    taken = NotificationDelivery.objects.filter(created_at__lt=before, delivered_at__isnull=False)
    given_up = NotificationDelivery.objects.filter(given_up_at__lt=now - ATTENTION_FOR)
    incidents = Incident.objects.filter(opened_at__lt=before, ended_at__lt=before)
    for rows in (taken, given_up, incidents):
        old = list(rows.order_by().values_list("pk", flat=True)[:REMOVED_AT_ONCE])
        if old:
            rows.model._default_manager.filter(pk__in=old).delete()
