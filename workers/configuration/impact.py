"""What a change does to the fleet: which workers would be given another configuration, told before it is made."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import batched
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from environments.models import Environment
from workers.configuration.effective import is_outdated, missing_in
from workers.configuration.revisions import Given, given_to
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue

#: Ids that one statement names.
BATCH = 5_000


@dataclass(frozen=True)
class QueueImpact:
    """Workers of one queue that go from one configuration revision to another."""

    queue: str
    queue_id: UUID
    old_revision: str
    new_revision: str
    workers: int
    online: int
    #: Of those online the ones whose process would then run with another revision than a start would be given.
    outdated: int

    @property
    def missing_now(self) -> str:
        """What they lack before the change, so that they could not start; "" when nothing."""
        return missing_in(self.old_revision)

    @property
    def missing(self) -> str:
        """What they would lack after it, so that they could not start; "" when nothing."""
        return missing_in(self.new_revision)

    def as_json(self) -> dict[str, Any]:
        """The impact as JSON shows it."""
        return asdict(self) | {"queue_id": str(self.queue_id), "missing_now": self.missing_now, "missing": self.missing}

    def __str__(self) -> str:
        """One line for a person."""
        workers = f"{self.workers} worker{'' if self.workers == 1 else 's'}"
        begin = f"queue {self.queue}: {workers}, {self.online} online, "
        change = f"({self.missing_now or self.old_revision} -> {self.missing or self.new_revision})"
        if self.missing:
            return f"{begin}would get no configuration {change}"
        return f"{begin}{'could start again' if self.missing_now else 'would get another configuration'} {change}"


@dataclass(frozen=True)
class Processes:
    """Running processes whose worker is in a queue, or comes to it, and to whom something happens there."""

    queue: str
    queue_id: UUID
    processes: int

    def as_json(self) -> dict[str, Any]:
        """The same as JSON shows it."""
        return asdict(self) | {"queue_id": str(self.queue_id)}


@dataclass(frozen=True)
class CannotStart:
    """Workers and queues that could start before a change and cannot after it; `online` are the workers that run."""

    reason: str
    workers: int
    queues: int
    online: int

    def as_json(self) -> dict[str, Any]:
        """The same as JSON shows it."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for a person."""
        queues = f"{self.queues} queue{'' if self.queues == 1 else 's'}"
        workers = f"{self.workers} worker{'' if self.workers == 1 else 's'} in {queues}"
        running = f" ({self.online} of them run{'s' if self.online == 1 else ''} now)" if self.online else ""
        return f"{workers if self.workers else queues} could not start any more: {self.reason}{running}"


class CutOff(Processes):
    """Those that no longer reach the control plane: their API key is not for the queue that they come to."""

    def __str__(self) -> str:
        """One line for a person."""
        use = "running process uses" if self.processes == 1 else "running processes use"
        return f"{self.processes} {use} an API key that does not reach {self.queue}"


class Ending(Processes):
    """Those that are told to end at their next heartbeat, since their worker or its queue is disabled."""

    def __str__(self) -> str:
        """One line for a person."""
        are = "running process is" if self.processes == 1 else "running processes are"
        return f"{self.processes} {are} told to end in {self.queue}"


def cut_off(moves: Mapping[UUID, WorkerQueue], *, now: datetime) -> list[CutOff]:
    """Whose heartbeats are refused once the workers are in these queues, by queue.

    A process is where its worker is, and its key is the one that it used last. One whose key is revoked or expired is
    refused in any case.
    """
    running = _running(moves, now)
    keys = ApiKey.objects.usable(now).in_bulk({key_id for _, key_id in running})
    counts: Counter[WorkerQueue] = Counter()
    for worker_id, key_id in running:
        queue = moves[worker_id]
        worker = Worker(id=worker_id, queue=queue, organization_id=queue.organization_id)
        counts[queue] += key_id in keys and not keys[key_id].covers(worker)
    return _by_queue(CutOff, counts)


def ending(disabled: Mapping[UUID, WorkerQueue], *, now: datetime) -> list[Ending]:
    """The processes of workers that are disabled, or whose queue is, by queue."""
    return _by_queue(Ending, Counter(disabled[worker_id] for worker_id, _ in _running(disabled, now)))


def cannot_start(before: Mapping[UUID, Given], after: Mapping[UUID, Given], *, now: datetime) -> list[CannotStart]:
    """Who could start at the first look and cannot at the second, by what is missing; queues may be among both."""
    lost = {
        row_id: (missing, given.queue_id)
        for row_id, given in after.items()
        if row_id in before and (missing := missing_in(given.revision)) and not missing_in(before[row_id].revision)
    }
    if not lost:
        return []
    queues = {place for row_id, place in lost.items()}
    workers = Counter(missing for row_id, (missing, queue_id) in lost.items() if row_id != queue_id)
    live = _live({before[row_id].queue_id for row_id in lost}, now)
    online = Counter(lost[worker_id][0] for worker_id in live if worker_id in lost)
    counts = Counter(missing for missing, _ in queues)
    return [CannotStart(missing, workers[missing], counts[missing], online[missing]) for missing in sorted(counts)]


def can_start_again(impact: Iterable[QueueImpact]) -> str:
    """Which workers could not start before a change and can after it, in sentences; "" when none."""
    found = [each for each in impact if each.missing_now and not each.missing]
    if not found:
        return ""
    workers, queues = sum(each.workers for each in found), len({each.queue_id for each in found})
    outdated = sum(each.outdated for each in found)
    told = f"{workers} worker{'' if workers == 1 else 's'} in {queues} queue{'' if queues == 1 else 's'}"
    run = "runs" if outdated == 1 else "run"
    rest = f" {outdated} of them {run} with another configuration and would be outdated until restarted."
    return f"{told} could start again.{rest if outdated else ''}"


def _running(workers: Collection[UUID], now: datetime) -> list[tuple[UUID, UUID | None]]:
    """Of each process that runs its worker and its API key."""
    found: list[tuple[UUID, UUID | None]] = []
    for ids in batched(workers, BATCH):
        live = WorkerInstance.objects.live(now).filter(worker__in=ids).order_by()
        found += live.values_list("worker_id", "api_key_id")
    return found


def _by_queue[Told: Processes](told: type[Told], counts: Mapping[WorkerQueue, int]) -> list[Told]:
    found = [told(queue.task_queue_name, queue.pk, count) for queue, count in counts.items() if count]
    return sorted(found, key=lambda each: each.queue)


def look(organizations: Collection[str]) -> dict[UUID, Given]:
    """What every worker of the organizations is given at this moment."""
    return given_to(Worker.objects.filter(organization__in=organizations))


def queues_affected_by(row: Any) -> QuerySet[WorkerQueue]:
    """The queues that it may give something else, to workers which they make."""
    match row:
        case Worker():
            return WorkerQueue.objects.none()
        case WorkerQueue():
            return WorkerQueue.objects.filter(pk=row.pk)
        case Environment():
            return WorkerQueue.objects.filter(environment=row.pk)
        case _:
            return WorkerQueue.objects.filter(organization=row.organization_id)


def affected_by(row: Any) -> QuerySet[Worker]:
    """The workers that a change of this level or connection may give something else."""
    match row:
        case Worker():
            return Worker.objects.filter(pk=row.pk)
        case WorkerQueue():
            return Worker.objects.filter(queue=row.pk)
        case Environment():
            return Worker.objects.filter(queue__environment=row.pk)
        case _:
            return Worker.objects.filter(organization=row.organization_id)


def compare(
    before: Mapping[UUID, Given],
    after: Mapping[UUID, Given],
    *,
    now: datetime,
    queues: Mapping[UUID, WorkerQueue] | None = None,
) -> list[QueueImpact]:
    """How two looks differ, by queue; workers that came or went between them are not affected, queues do not count.

    `queues` are those of the second look, where they are not in the database yet.
    """
    changed = {
        worker_id: (given.queue_id, before[worker_id].revision, given.revision)
        for worker_id, given in after.items()
        if worker_id in before and before[worker_id].revision != given.revision and worker_id != given.queue_id
    }
    if not changed:
        return []
    workers = Counter(changed.values())
    places = {before[worker_id].queue_id for worker_id in changed} | {queue_id for queue_id, _, _ in workers}
    live = {worker_id: revision for worker_id, revision in _live(places, now).items() if worker_id in changed}
    online = Counter(changed[worker_id] for worker_id in live)
    old = Counter(changed[pk] for pk, revision in live.items() if is_outdated(revision, changed[pk][2]))
    if queues is None:
        queues = WorkerQueue.objects.select_related("environment").in_bulk({queue_id for queue_id, _, _ in workers})
    found = [
        QueueImpact(queues[change[0]].task_queue_name, *change, count, online[change], old[change])
        for change, count in workers.items()
        if change[0] in queues  # else it was deleted meanwhile
    ]
    return sorted(found, key=lambda impact: (impact.queue, impact.old_revision, impact.new_revision))


def _live(queues: Collection[UUID], now: datetime) -> dict[UUID, str]:
    """The workers that run, each with the revision of its process: of several the current one."""
    live = WorkerInstance.objects.live(now).filter(worker__queue__in=queues).order_by()
    found = list(live.values_list("worker_id", "is_current", "configuration_revision"))
    running = {worker_id: revision for worker_id, _, revision in found}
    return running | {worker_id: revision for worker_id, is_current, revision in found if is_current}
