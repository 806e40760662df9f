"""Which configuration each of many workers is given now, without reading them one by one.

What a worker is given depends on its queue and on its own three pointers alone, and few workers have any; so workers
are grouped by these four, and the configuration is resolved once for each group.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from environments.database.statements import Select
from environments.models.connections import CONNECTION_KINDS, CONNECTION_POINTERS
from workers.configuration.effective import revision_for
from workers.models import Worker, WorkerQueue

#: The lookups of a group from a worker.
GROUP = ("queue_id", *(f"{pointer}_id" for pointer in CONNECTION_POINTERS))


class Group(NamedTuple):
    """Workers that are given the same: those of one queue that point to the same connections themselves."""

    queue_id: UUID
    temporal_connection_id: UUID | None = None
    litellm_connection_id: UUID | None = None
    telemetry_settings_id: UUID | None = None


def group_of(worker: Worker) -> Group:
    """The group that a worker is in."""
    return Group(*(getattr(worker, name) for name in GROUP))


@dataclass(frozen=True)
class Given:
    """What a worker is given: by which revision it goes, in which queue."""

    queue_id: UUID
    revision: str


def current_revisions(groups: Iterable[Group]) -> dict[Group, str]:
    """The revision of each group; one statement, and one for each kind of connection that workers point to."""
    groups = set(groups)
    return revisions_in(queues_of(groups), groups)


def queues_of(groups: Iterable[Group]) -> dict[UUID, WorkerQueue]:
    """The groups' queues, loaded with their chains; one statement, whose many rows `Select` makes faster."""
    ids = {group.queue_id for group in groups}
    queues = Select(lambda: WorkerQueue.objects.with_chain().filter(pk__in=ids).order_by())
    return {queue.pk: queue for queue in queues()} if ids else {}


def revisions_in(queues: Mapping[UUID, WorkerQueue], groups: Iterable[Group], instead: Any = None) -> dict[Group, str]:
    """The revision of each group, whose queues are at hand; "" where a queue was deleted meanwhile.

    `instead` is a connection that counts in place of the stored one.
    """
    groups = set(groups)
    rows = [_rows(kind, {group[index] for group in groups}) for index, kind in enumerate(CONNECTION_KINDS, 1)]
    for kind, by_id in zip(CONNECTION_KINDS, rows, strict=True):
        if isinstance(instead, kind) and instead.pk in by_id:
            by_id[instead.pk] = instead
    specimen = Worker()  # one for all: making it takes as long as finding out what it would be given
    found = {group: queue for group in groups if (queue := queues.get(group.queue_id))}
    known = {group: revision_for(_like(specimen, group, queue, rows)) for group, queue in found.items()}
    return dict.fromkeys(groups, "") | known


def given_to(workers: QuerySet[Worker]) -> dict[UUID, Given]:
    """What each of the workers is given now, by its id."""
    return given_in(groups_of(workers))


def groups_of(workers: QuerySet[Worker]) -> dict[UUID, Group]:
    """The group of each of the workers; of many workers this takes longest."""
    return {worker_id: Group(*group) for worker_id, *group in workers.order_by().values_list("pk", *GROUP).iterator()}


def groups_of_queues(queues: QuerySet[WorkerQueue]) -> dict[UUID, Group]:
    """The group of each queue itself, by its id: that of workers which a start in the queue would make."""
    return {queue_id: Group(queue_id) for queue_id in queues.order_by().values_list("pk", flat=True)}


def given_in(groups: Mapping[UUID, Group], instead: Any = None) -> dict[UUID, Given]:
    """What workers of these groups are given now, or would be if a level or a connection were stored as it is here."""
    queues = queues_of(groups.values())
    if instead is not None:
        for queue in queues.values():
            _put(instead, queue)
    revisions = revisions_in(queues, groups.values(), instead)
    return {worker_id: Given(group.queue_id, revisions[group]) for worker_id, group in groups.items()}


def _put(row: Any, queue: WorkerQueue) -> None:
    """Lets a level or a connection count in the chain of a queue in place of the stored one."""
    levels: tuple[Any, ...] = (queue, queue.environment, queue.organization)
    if isinstance(row, CONNECTION_KINDS):
        for level in levels:
            if getattr(level, f"{row.POINTER}_id") == row.pk:
                setattr(level, row.POINTER, row)
    for level in levels:
        if type(level) is type(row) and level.pk == row.pk:
            for field in row._meta.concrete_fields:
                setattr(level, field.attname, getattr(row, field.attname))
            for pointer in CONNECTION_POINTERS:
                setattr(level, pointer, getattr(row, pointer))


def _rows(model: Any, ids: set[UUID | None]) -> dict[UUID, Any]:
    known = ids - {None}
    return model.objects.in_bulk(known) if known else {}


def _like(worker: Worker, group: Group, queue: WorkerQueue, rows: list[dict[UUID, Any]]) -> Worker:
    """The worker as those of the group are, loaded with its chain."""
    worker.queue, worker.organization = queue, queue.organization
    for pointer, pk, known in zip(CONNECTION_POINTERS, group[1:], rows, strict=True):
        setattr(worker, pointer, known.get(pk) if pk else None)
    return worker
