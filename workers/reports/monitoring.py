"""The fleet in figures, for monitoring: few statements, and few rows of each, however large the fleet is."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Case, CharField, Count, Exists, OuterRef, Value, When

from environments.models.connections import CREDENTIAL_KINDS
from environments.roles import EVERYWHERE
from workers.lifecycle.pulse import recovery
from workers.lifecycle.refusals import REFUSED_FOR
from workers.models import (
    ApiKey,
    Liveness,
    Lookout,
    NotificationDelivery,
    QueueObservation,
    Sweep,
    TargetKind,
    Worker,
    WorkerQueue,
)
from workers.models.api_keys import EXPIRY_WARNING_DAYS
from workers.models.observations import fresh_queues
from workers.reports.attention import refused_starts, running
from workers.reports.expiries import to_be_warned_of
from workers.reports.incomplete import incomplete_queues
from workers.reports.observed import AMISS, amiss


class QueueFigure(NamedTuple):
    """How many workers of a queue are in one state of liveness."""

    organization: str
    environment: str
    queue: str
    liveness: Liveness
    workers: int


class ExpiryFigure(NamedTuple):
    """How many API keys or credentials of an organization expire within a time.

    `expires` is "expired", "never", the shortest of EXPIRY_WARNING_DAYS that has been reached as in "3d", or "later".
    """

    kind: str
    organization: str
    expires: str
    number: int


def count_workers(now: datetime) -> list[QueueFigure]:
    """Every queue with every state, also where nobody is in it: what is missing cannot be watched.

    Two statements, and those by which `recovery` knows whether an outage of ours still excuses anybody.
    """
    counts = Counter[tuple[UUID, str]]()
    for each in running(EVERYWHERE, now, may_be_held=recovery(now) is not None):
        counts[each.group.queue_id, each.liveness] += each.workers
    queues = list(
        WorkerQueue.objects.order_by()
        .annotate(total=Count("workers"))
        .values_list("pk", "organization_id", "environment__name", "name", "total")
    )
    for queue_id, _, _, _, total in queues:
        started = sum(counts[queue_id, liveness] for liveness in Liveness)
        counts[queue_id, Liveness.NEVER_STARTED] = max(0, total - started)
    return [
        QueueFigure(organization, environment, queue, liveness, counts[queue_id, liveness])
        for queue_id, organization, environment, queue, _ in queues
        for liveness in Liveness
    ]


class ObservedFigure(NamedTuple):
    """What Temporal was seen to know of a queue; None where it does not tell."""

    organization: str
    environment: str
    queue: str
    workflow_pollers: int
    activity_pollers: int
    strangers: int
    backlog: int | None
    oldest_age: timedelta | None
    not_polling: int
    cut_off: int


class SweepFigure(NamedTuple):
    """How the latest pass of the sweep went, and how long ago that was."""

    age: timedelta
    unanswered: int


def count_observed(now: datetime) -> list[ObservedFigure]:
    """Each queue of which there is a fresh observation: of the others nothing is claimed. Two statements."""
    found: Any = amiss(now).order_by()
    rows = found.values_list("queue_id", "work").annotate(count=Count("pk"))
    counts = {(queue_id, work): count for queue_id, work, count in rows}
    names = ("queue__organization_id", "queue__environment__name", "queue__name")
    told = ("workflow_pollers", "activity_pollers", "strangers", "backlog", "oldest_age")
    fresh = QueueObservation.objects.filter(fresh_queues(now)).order_by()
    return [
        ObservedFigure(*figures, *(counts.get((queue_id, work), 0) for work in AMISS))
        for queue_id, *figures in fresh.values_list("queue_id", *names, *told)
    ]


def latest_sweep(now: datetime) -> SweepFigure | None:
    """None before the first pass has ended; one statement."""
    sweep = Sweep.objects.filter(finished_at__isnull=False).first()
    return SweepFigure(now - sweep.finished_at, sweep.unanswered) if sweep and sweep.finished_at else None


class MessageFigure(NamedTuple):
    """How many messages to targets of a kind are in a state: waiting, delivered or given up."""

    kind: str
    state: str
    messages: int


def count_messages() -> list[MessageFigure]:
    """Every kind with every state, of what is kept; one statement."""
    states = {"waiting": "next_attempt_at", "delivered": "delivered_at", "given_up": "given_up_at"}
    counted = {state: Count(column) for state, column in states.items()}
    rows: Any = NotificationDelivery.objects.order_by().values("target__kind").annotate(**counted)
    found: dict[str, dict[str, int]] = {row["target__kind"]: row for row in rows}
    return [MessageFigure(kind, state, found.get(kind, {}).get(state, 0)) for kind in TargetKind for state in states]


def latest_look(now: datetime) -> timedelta | None:
    """How long ago the latest look at what stands ended; None before the first one. One statement."""
    at = Lookout.objects.values_list("finished_at", flat=True).first()
    return now - at if at else None


class StartFigure(NamedTuple):
    """How many workers of a queue had their latest start refused, and whether its configuration is incomplete."""

    organization: str
    environment: str
    queue: str
    refused: int
    is_incomplete: bool


def count_refused(now: datetime) -> list[StartFigure]:
    """Every queue, also where nobody is refused; two statements."""
    refused = refused_starts(now - REFUSED_FOR)
    ids = refused.filter(worker_id__isnull=False).values("worker_id")
    counts = dict(Worker.objects.filter(pk__in=ids).order_by().values_list("queue").annotate(Count("pk")))
    is_incomplete = Exists(incomplete_queues(now).filter(pk=OuterRef("pk")))
    queues = WorkerQueue.objects.order_by().annotate(is_incomplete=is_incomplete)
    names = ("organization_id", "environment__name", "name")
    return [
        StartFigure(organization, environment, queue, counts.get(queue_id, 0), lacks)
        for queue_id, lacks, organization, environment, queue in queues.values_list("pk", "is_incomplete", *names)
    ]


def count_refused_hosts(now: datetime) -> dict[str, int]:
    """By organization how many hosts had their latest start in a queue refused; one statement."""
    refused = refused_starts(now - REFUSED_FOR).filter(worker_id=None)
    return dict(refused.values_list("organization_id").annotate(Count("pk")))


def count_expiries(now: datetime) -> Iterator[ExpiryFigure]:
    """API keys of whose end somebody has to know, and credentials; one statement for each kind."""
    yield from _expiries(to_be_warned_of(ApiKey.objects.all(), now), "expires_at", now)
    for model in CREDENTIAL_KINDS:
        # A credential is good for the whole of its last day.
        yield from _expiries(model.objects.all(), "api_key_expires_on", now.date() - timedelta(days=1))


def _expiries(rows: Any, field: str, over: Any) -> Iterator[ExpiryFigure]:
    """The rows counted by when they expire, `over` being the latest that has expired."""
    cases = [
        When(**{f"{field}__isnull": True}, then=Value("never")),
        When(**{f"{field}__lte": over}, then=Value("expired")),
    ]
    cases += [
        When(**{f"{field}__lte": over + timedelta(days=days)}, then=Value(f"{days}d"))
        for days in sorted(EXPIRY_WARNING_DAYS)
    ]
    expires = Case(*cases, default=Value("later"), output_field=CharField())
    found = (
        rows.order_by().annotate(expires=expires).values_list("organization_id", "expires").annotate(count=Count("*"))
    )
    for organization, when, count in found:
        yield ExpiryFigure(rows.model._meta.model_name, organization, when, count)
