"""What the console's first page tells: what runs, what does not and why, and what is about to fail."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Case, CharField, Count, DateField, DateTimeField, Exists, F, Q, Value, When
from django.db.models.functions import Cast, TruncHour

from environments.database.statements import Parameter, kept
from environments.models import Environment, LiteLLMConnection, Organization, TemporalConnection
from environments.models.connections import CONNECTION_KINDS, CREDENTIAL_KINDS
from environments.roles import Staff
from workers.configuration.revisions import queues_of
from workers.lifecycle.refusals import REFUSED_FOR
from workers.models import (
    ApiKey,
    Liveness,
    NotificationDelivery,
    RefusedStart,
    Work,
    Worker,
    WorkerInstance,
    WorkerQueue,
    WorkerStart,
)
from workers.models.api_keys import EXPIRY_WARNING_DAYS
from workers.reports.attention import (
    CRASH_LOOP_WINDOW,
    NOW,
    Running,
    crash_looping_since,
    live_among,
    on_looping_hosts,
    refused_starts,
    running,
    stale,
)
from workers.reports.charts import HOUR, Chart, hourly_chart
from workers.reports.incomplete import incomplete_queues
from workers.reports.observed import AMISS, amiss, polled_by_strangers, waiting_in_vain

#: How many queues and starts are shown; a list has the rest.
MOST_QUEUES = 8
LATEST_STARTS = 10
MOST_REFUSED = 8
SOON = timedelta(days=max(EXPIRY_WARNING_DAYS))
WORKERS, CRASH_LOOPING, EXPIRING_KEYS = "workers", "crash looping", "expiring keys"
LOOPING_HOSTS, DOUBLED = "looping hosts", "doubled"
REFUSED_WORKERS, REFUSED_HOSTS, INCOMPLETE_QUEUES = "refused workers", "refused hosts", "incomplete queues"
WAITING_QUEUES, STRANGERS, UNDELIVERED = "waiting queues", "strangers", "undelivered"
KINDS = {
    WORKERS,
    CRASH_LOOPING,
    LOOPING_HOSTS,
    DOUBLED,
    EXPIRING_KEYS,
    REFUSED_WORKERS,
    REFUSED_HOSTS,
    INCOMPLETE_QUEUES,
    WAITING_QUEUES,
    STRANGERS,
    UNDELIVERED,
    *AMISS,
    *(model._meta.model_name for model in CONNECTION_KINDS),
}


@dataclass(frozen=True)
class QueueLoad:
    """How full a queue is; `share` is a percentage of its limit or, without one, of the busiest queue shown."""

    queue: WorkerQueue
    live: int
    share: int


class Tally(NamedTuple):
    """Two counts of one kind."""

    first: int = 0
    second: int = 0


class Trouble(NamedTuple):
    """Connections of one kind whose verification failed, and whose API key expires soon or has expired."""

    failing: int = 0
    expiring: int = 0


@dataclass(frozen=True)
class Attention:
    """How much is wrong, by kind; the connections by their kind, each with those that fail and those that expire."""

    refused_workers: int
    refused_hosts: int
    incomplete_queues: int
    #: Queues in which tasks wait and nobody polls, and those that processes poll which are no worker's here.
    waiting_queues: int
    queues_with_strangers: int
    not_polling: int
    cut_off: int
    #: Without those that are cut off: these work.
    offline: int
    crash_looping: int
    looping_hosts: int
    outdated: int
    duplicates: int
    doubled: int
    expiring_keys: int
    #: Messages about all that which were given up.
    undelivered: int
    connections: dict[str, Trouble]

    @property
    def total(self) -> int:
        """All of it."""
        counts = [self.offline, self.crash_looping, self.looping_hosts, self.outdated, self.duplicates, self.doubled]
        counts += [self.refused_workers, self.refused_hosts, self.incomplete_queues]
        counts += [self.waiting_queues, self.queues_with_strangers, self.not_polling, self.cut_off]
        return (
            sum(counts)
            + self.expiring_keys
            + self.undelivered
            + sum(sum(trouble) for trouble in self.connections.values())
        )


class RefusedOne(NamedTuple):
    """A worker, or without one a host, whose latest start was refused."""

    start: RefusedStart
    worker: Worker | None


@dataclass(frozen=True)
class Dashboard:
    """The fleet at one moment."""

    workers: dict[Liveness, int]
    loads: list[QueueLoad]
    attention: Attention
    refused: list[RefusedOne]
    chart: Chart
    latest_starts: list[WorkerStart]


def look_at_fleet(staff: Staff, *, hours: int, now: datetime, may_be_held: bool = True) -> Dashboard:
    """The fleet as far as the person may see it; six statements, however large it is.

    A further one where workers are refused, and for each kind of connection that workers themselves point to.
    `may_be_held` as for `liveness_of`.
    """
    found = running(staff, now, may_be_held=may_be_held)
    counts = Counter[str]()
    for each in found:
        counts[each.liveness] += each.workers
    live = live_among(found)
    queues = queues_of(each.group for each in live)
    tallies = _tallies(staff, now, may_be_held=may_be_held)
    counts[Liveness.NEVER_STARTED] = max(0, tallies[WORKERS].first - counts.total())
    duplicates = Counter({UUID(kind): tally.first for kind, tally in tallies.items() if kind not in KINDS})
    attention = Attention(
        refused_workers=tallies[REFUSED_WORKERS].first,
        refused_hosts=tallies[REFUSED_HOSTS].first,
        incomplete_queues=tallies[INCOMPLETE_QUEUES].first,
        waiting_queues=tallies[WAITING_QUEUES].first,
        queues_with_strangers=tallies[STRANGERS].first,
        not_polling=tallies[Work.NOT_POLLING].first,
        cut_off=tallies[Work.CUT_OFF].first,
        offline=max(0, counts[Liveness.OFFLINE] - tallies[Work.CUT_OFF].first),
        crash_looping=tallies[CRASH_LOOPING].first,
        looping_hosts=tallies[LOOPING_HOSTS].first,
        outdated=sum(each.workers for each in stale(live, queues)),
        duplicates=duplicates.total(),
        doubled=tallies[DOUBLED].first,
        expiring_keys=tallies[EXPIRING_KEYS].first,
        undelivered=tallies[UNDELIVERED].first,
        connections={model._meta.model_name: Trouble(*tallies[model._meta.model_name]) for model in CONNECTION_KINDS},
    )
    return Dashboard(
        workers={liveness: counts[liveness] for liveness in Liveness},
        loads=_loads(live, duplicates, queues),
        attention=attention,
        refused=_refused(staff, now),
        chart=hourly_chart(_starts_per_hour(staff, hours, now)),
        latest_starts=_latest_starts(staff),
    )


def _loads(live: list[Running], duplicates: Counter[UUID], queues: Mapping[UUID, WorkerQueue]) -> list[QueueLoad]:
    """The fullest queues first; those without a limit after those with one."""
    counts = Counter(duplicates)
    for each in live:
        counts[each.group.queue_id] += each.workers
    busiest = max(counts.values(), default=1)
    loads = [
        QueueLoad(queue, counts[pk], round(100 * counts[pk] / (queue.max_workers or busiest)))
        for pk, queue in queues.items()
    ]
    return sorted(loads, key=lambda load: (load.queue.max_workers is None, -load.share))[:MOST_QUEUES]


def _tallies(staff: Staff, now: datetime, *, may_be_held: bool) -> dict[str, Tally]:
    """How many workers there are and what is wrong, by kind; duplicates by the id of their queue; in one statement."""
    soon = now + SOON
    moments = {"soon": soon, "last_day": soon.date(), "crash_looping_since": now - CRASH_LOOP_WINDOW}
    moments["refused_since"] = now - REFUSED_FOR
    found = _tallied(staff, may_be_held=may_be_held)(now=now, **moments)
    return defaultdict(Tally) | {kind: Tally(*counts) for kind, *counts in found}


@kept
def _tallied(staff: Staff, *, may_be_held: bool) -> Any:
    soon, last_day = Parameter("soon", DateTimeField()), Parameter("last_day", DateField())
    since, refused_since = (Parameter(name, DateTimeField()) for name in ("crash_looping_since", "refused_since"))
    whose = Case(When(worker_id=None, then=Value(REFUSED_HOSTS)), default=Value(REFUSED_WORKERS))
    looping = crash_looping_since(since)
    keys = ApiKey.objects.without_short_lived().filter(revoked_at=None, expires_at__gt=NOW, expires_at__lte=soon)
    duplicates = WorkerInstance.objects.duplicates(NOW, may_be_held=may_be_held)
    doubled = WorkerInstance.objects.doubled(NOW, may_be_held=may_be_held)
    is_failing, expires = ~Q(verification_problem=""), Q(api_key_expires_on__lte=last_day)
    parts = [
        _tally(staff, Worker.objects, Value(WORKERS)),
        _tally(staff, Worker.objects.filter(pk__in=looping.values("worker_id")), Value(CRASH_LOOPING)),
        _tally(staff, on_looping_hosts(since), Value(LOOPING_HOSTS), of="host"),
        _tally(staff, doubled, Value(DOUBLED)),
        _tally(staff, refused_starts(refused_since), whose),
        _tally(staff, incomplete_queues(NOW), Value(INCOMPLETE_QUEUES)),
        _tally(staff, waiting_in_vain(NOW), Value(WAITING_QUEUES)),
        _tally(staff, polled_by_strangers(NOW), Value(STRANGERS)),
        _tally(staff, amiss(NOW, may_be_held=may_be_held), F("work")),
        _tally(staff, keys, Value(EXPIRING_KEYS)),
        _tally(staff, NotificationDelivery.objects.filter(given_up_at__isnull=False), Value(UNDELIVERED)),
        _tally(staff, duplicates, Cast("worker__queue_id", CharField())),
        *(
            _tally(staff, kind.objects, Value(kind._meta.model_name), is_failing, second)
            for kind in CONNECTION_KINDS
            for second in [expires if kind in CREDENTIAL_KINDS else None]
        ),
    ]
    return parts[0].union(*parts[1:], all=True).order_by()


def _tally(  # noqa: PLR0913  # what is counted, how, and for whom
    staff: Staff, rows: Any, kind: Any, first: Q | None = None, second: Q | None = None, *, of: str = ""
) -> Any:
    """Counts rows by a kind: all of them, or those that meet each condition; or the values that they have `of` it."""
    counted = staff.within(rows.order_by(), "organization").annotate(kind=Cast(kind, CharField())).values("kind")
    all_of = Count(of, distinct=True) if of else Count("pk", filter=first)
    numbers = {"first": all_of, "second": Count("pk", filter=second) if second else Value(0)}
    return counted.annotate(**numbers).values_list("kind", "first", "second")


def _refused(staff: Staff, now: datetime) -> list[RefusedOne]:
    """The latest of those whose start was refused."""
    latest = staff.within(refused_starts(now - REFUSED_FOR), "organization").order_by("-occurred_at")
    rows = list(latest[:MOST_REFUSED])
    ids = [row.worker_id for row in rows if row.worker_id]
    workers = Worker.objects.select_related("queue__environment").in_bulk(ids) if ids else {}
    found = [RefusedOne(row, workers.get(row.worker_id) if row.worker_id else None) for row in rows]
    return [each for each in found if each.worker or not each.start.worker_id]  # else it was deleted meanwhile


def _starts_per_hour(staff: Staff, hours: int, now: datetime) -> list[tuple[datetime, int]]:
    first = now.replace(minute=0, second=0, microsecond=0) - HOUR * (hours - 1)
    counts = dict(_by_hour(staff)(now=now, first=first))
    return [(hour, counts.get(hour, 0)) for hour in (first + HOUR * index for index in range(hours))]


@kept
def _by_hour(staff: Staff) -> Any:
    first = Parameter("first", DateTimeField())
    starts = staff.within(WorkerStart.objects.filter(started_at__gte=first, started_at__lte=NOW), "organization")
    hourly = starts.order_by().annotate(hour=TruncHour("started_at", tzinfo=UTC))
    return hourly.values_list("hour").annotate(count=Count("*"))


def _latest_starts(staff: Staff) -> list[WorkerStart]:
    starts = staff.within(WorkerStart.objects.defer("system_info"), "organization")
    return list(starts.order_by("-started_at")[:LATEST_STARTS])


# --- Before the first start -----------------------------------------------------------------------------------------


#: What leads to a first start, in its order: what it is, and the model of which there has to be a row.
FIRST_STEPS: tuple[tuple[str, Any], ...] = (
    ("Make an organization", Organization),
    ("Connect it to Temporal", TemporalConnection),
    ("Connect it to LiteLLM", LiteLLMConnection),
    ("Make an environment", Environment),
    ("Make a worker queue", WorkerQueue),
    ("Make a worker", Worker),
    ("Issue an API key", ApiKey),
)


def first_steps(staff: Staff) -> list[tuple[str, Any, bool]]:
    """Each step with its model and whether it is done; one statement."""
    mine = staff.within(Organization.objects.order_by(), "pk")
    found = {
        f"has_{model._meta.model_name}": Exists(staff.within(model.objects.all(), "organization"))
        for _, model in FIRST_STEPS[1:]
    }
    row = mine.annotate(**found).values(*found).first() or {}
    return [
        (title, model, bool(row) if model is Organization else bool(row.get(f"has_{model._meta.model_name}")))
        for title, model in FIRST_STEPS
    ]
