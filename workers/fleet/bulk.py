"""Changes of many workers at once: all of them or none, each on record as if it had been changed alone."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Count, F, Q, UUIDField, Value

from environments import audit
from environments.audit import Actor
from environments.database.expressions import Among, ListOf
from environments.database.for_many import insert_of
from environments.database.statements import fetched
from environments.models import AuditEvent
from workers.api_keys.issuing import DEFAULT_LIFETIME, IssuedApiKey, issue_api_key
from workers.configuration.impact import CannotStart, QueueImpact, cannot_start, compare, cut_off
from workers.configuration.revisions import GROUP, Given, Group, current_revisions
from workers.models import LIVE, ApiKey, State, Worker, WorkerInstance, WorkerQueue
from workers.models.states import decision, state_of
from workers.models.workers import WorkerQuerySet

#: Beyond these, one transaction would keep starts waiting for too long.
MOST_WORKERS = 5_000
MOST_KEYS = 500
#: How often it starts over because somebody else changed the same workers meanwhile.
ATTEMPTS = 5
COLUMNS = tuple(field.attname for field in Worker._meta.concrete_fields)
#: Names that a message repeats.
SHOWN_NAMES = 10


class BulkError(ValueError):
    """Nothing was changed; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """How many workers were changed, and how many were so before; others are no longer there."""

    changed: int
    unchanged: int
    #: Those that were to drain, and stay disabled instead.
    disabled: int = 0


@dataclass(frozen=True)
class Share:
    """The chosen workers of one queue: how many, of these live, and of these in the state that all are to be in."""

    queue: WorkerQueue
    workers: int
    live: int
    unchanged: int


@dataclass(frozen=True)
class Move:
    """What moving workers to a queue does: which are given what else, and what else a person should know."""

    impact: list[QueueImpact]
    cannot_start: list[CannotStart]
    workers: int
    live: int
    #: Live processes whose API key does not reach the new queue.
    cut_off: int
    #: Whether some come from another environment.
    leaves_environment: bool
    #: Live processes in the new queue now, those to be moved not among them.
    live_there: int


def set_states(  # noqa: PLR0913  # a decision has these parts; each is named at the call
    ids: Collection[UUID],
    state: State,
    *,
    actor: Actor,
    now: datetime,
    reason: str = "",
    until: datetime | None = None,
) -> Outcome:
    """Makes the decision for all the workers; it takes the place of what was decided before.

    What is disabled does not become draining: it would run again when that ends.
    """
    return _change(ids, decision(state, reason=reason, until=until), actor=actor, now=now)


def move_workers(ids: Collection[UUID], queue: WorkerQueue, *, actor: Actor, now: datetime) -> Outcome:
    """Puts all the workers into the queue; BulkError when it has one of these names already, or is another tenant's."""
    require_free_names(ids, queue)
    try:
        return _change(ids, {"queue": queue}, actor=actor, now=now)
    except IntegrityError:  # somebody took one of the names just now
        require_free_names(ids, queue)
        raise


@transaction.atomic
def issue_api_keys(
    ids: Collection[UUID], *, name: str, actor: Actor, now: datetime, lifetime: timedelta = DEFAULT_LIFETIME
) -> list[IssuedApiKey]:
    """A key for each worker, in the order of their names.

    BulkError when one of them has a key of this name: so a request that is sent twice makes no second set of keys.
    """
    if len(ids) > MOST_KEYS:
        msg = f"At most {MOST_KEYS} keys are issued at once."
        raise BulkError(msg)
    workers = _locked(ids)
    taken = ApiKey.objects.filter(worker__in=ids, name=name).values("worker").distinct().count()
    if taken:
        msg = f"Of these workers {taken} {'has' if taken == 1 else 'have'} a key of this name already: choose another."
        raise BulkError(msg)
    ordered = sorted(workers, key=lambda worker: (worker.organization_id, worker.name))
    return [issue_api_key(worker, name=name, actor=actor, now=now, lifetime=lifetime) for worker in ordered]


def shares_of(ids: Collection[UUID], now: datetime, *, state: State | None = None) -> list[Share]:
    """The workers by queue; `state` is the one that would be set."""
    found = (
        Worker.objects.with_liveness(now)
        .annotate(state=state_of(now))
        .filter(_among(ids))
        .order_by()
        .values_list("queue")
        .annotate(
            workers=Count("pk"),
            live=Count("pk", filter=Q(liveness__in=LIVE)),
            unchanged=Count("pk", filter=Q(state=state)),
        )
    )
    counts = {queue_id: numbers for queue_id, *numbers in found}
    queues = WorkerQueue.objects.select_related("environment").in_bulk(counts)
    # Of a queue that was deleted between the two statements, the workers are gone as well.
    shares = [Share(queues[queue_id], *numbers) for queue_id, numbers in counts.items() if queue_id in queues]
    return sorted(shares, key=lambda share: share.queue.task_queue_name)


def look_at_move(ids: Collection[UUID], queue: WorkerQueue, now: datetime) -> Move:
    """What `move_workers` would do; the impact names the queues that the workers leave."""
    groups = {
        worker_id: Group(*group)
        for worker_id, *group in Worker.objects.filter(pk__in=ids).order_by().values_list("pk", *GROUP)
        if group[0] != queue.pk
    }
    moved = {group: group._replace(queue_id=queue.pk) for group in set(groups.values())}
    revisions = current_revisions({*moved, *moved.values()})
    before = {pk: Given(group.queue_id, revisions[group]) for pk, group in groups.items()}
    after = {pk: Given(group.queue_id, revisions[moved[group]]) for pk, group in groups.items()}
    live = WorkerInstance.objects.live(now).order_by()
    moving = live.filter(worker__in=groups.keys())
    return Move(
        impact=compare(before, after, now=now),
        cannot_start=cannot_start(before, after, now=now),
        workers=len(groups),
        live=moving.count(),
        cut_off=sum(found.processes for found in cut_off(dict.fromkeys(groups, queue), now=now)),
        leaves_environment=Worker.objects.filter(pk__in=ids).exclude(queue__environment=queue.environment_id).exists(),
        live_there=live.filter(worker__queue=queue).count(),
    )


def require_free_names(ids: Collection[UUID], queue: WorkerQueue) -> None:
    """BulkError when not all the workers can be in the queue beside each other and those that are there."""
    workers = Worker.objects.filter(pk__in=ids).order_by()
    if workers.exclude(organization=queue.organization_id).exists():
        msg = "A worker cannot be moved to a queue of another organization."
        raise BulkError(msg)
    there = Worker.objects.filter(queue=queue)
    names = set(workers.exclude(queue=queue).filter(name__in=there.values("name")).values_list("name", flat=True))
    alike = workers.values_list("name").annotate(count=Count("pk")).filter(count__gt=1)
    names |= {name for name, _ in alike}
    if names:
        shown = ", ".join(sorted(names)[:SHOWN_NAMES])
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        msg = f"The queue can have one worker of each name; more than one would be called {shown}{more}."
        raise BulkError(msg)


def _locked(ids: Collection[UUID]) -> list[Worker]:
    return list(_chosen(ids).select_for_update(no_key=True))


def _chosen(ids: Collection[UUID]) -> WorkerQuerySet:
    return Worker.objects.filter(_among(ids)).order_by("pk")


def _among(ids: Collection[UUID]) -> Among:
    """That a worker is one of these: thousands, which is a long list and a short statement."""
    return Among(F("pk"), Value(list(ids), output_field=ListOf(UUIDField())))


def _change(ids: Collection[UUID], values: dict[str, Any], *, actor: Actor, now: datetime) -> Outcome:
    """Sets the fields of those workers that differ, in one statement, and records each.

    What is recorded is made before anything is locked; if it is no longer so then, it is made anew.
    """
    for _ in range(ATTEMPTS):
        workers = fetched(_chosen(ids))
        read = [tuple(getattr(worker, name) for name in COLUMNS) for worker in workers]
        disabled = _kept_disabled(workers, values, now)
        changed = _changed([worker for worker in workers if worker.pk not in disabled], values, now)
        events = (audit.event_of("worker.updated", worker, actor, now, changes) for worker, changes in changed)
        record = insert_of(AuditEvent, events)
        with transaction.atomic():
            if list(_chosen(ids).select_for_update(no_key=True).values_list(*COLUMNS)) != read:
                continue
            record.run()
            # Last, since heartbeats wait from here on: the current process goes with its worker to a queue.
            Worker.objects.filter(_among([worker.pk for worker, _ in changed])).update(**values)
        unchanged = len(workers) - len(changed) - len(disabled)
        return Outcome(changed=len(changed), unchanged=unchanged, disabled=len(disabled))
    msg = "Nothing was changed: somebody else changes the same workers again and again. Try again."
    raise BulkError(msg)


def _kept_disabled(workers: list[Worker], values: dict[str, Any], now: datetime) -> set[UUID]:
    """Those that would begin to drain, were they not disabled."""
    is_to_drain = values.get("is_draining", False)
    return {worker.pk for worker in workers if is_to_drain and worker.state_at(now) is State.DISABLED}


def _changed(workers: list[Worker], values: dict[str, Any], now: datetime) -> list[tuple[Worker, dict[str, list[Any]]]]:
    """Those that differ, with the values, and how."""
    found = []
    for worker in workers:
        worker.forget_ended(now)
        before = audit.snapshot(worker, values)
        for name, value in values.items():
            setattr(worker, name, value)
        if changes := audit.difference(before, audit.snapshot(worker, values)):
            found.append((worker, changes))
    return found
