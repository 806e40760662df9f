"""Who could not start for want of a connection that every worker needs: pages, lists, doctor and metrics ask here.

A queue in which a start would be refused is incomplete if it has no worker, or one that could not start. A queue whose
workers all have connections of their own serves them as it is.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db.models import Case, CharField, Exists, OuterRef, Q, QuerySet, Value, When

from environments.connections.levels import REQUIRED_POINTERS, SECTIONS
from workers.configuration.effective import lacking
from workers.models import Worker, WorkerQueue
from workers.models.states import not_disabled

#: Where a start in a queue looks, and where one of a worker does.
QUEUE_LEVELS = ("", "environment__", "organization__")
WORKER_LEVELS = ("", "queue__", "queue__environment__", "organization__")


def incomplete_workers(now: datetime | Value) -> QuerySet[Worker, Any]:
    """Workers that may start, and lack a connection at every level."""
    return Worker.objects.filter(_lacks_any(WORKER_LEVELS), not_disabled(now, "", "queue__"))


def incomplete_queues(now: datetime | Value) -> QuerySet[WorkerQueue, Any]:
    """Queues that may be used, in which no start would be answered, or not that of each worker."""
    return _lacking(now).filter(~Exists(_enabled(now)) | Exists(_incomplete_here(now)))


def queues_of_own_connections(now: datetime) -> QuerySet[WorkerQueue, Any]:
    """Queues that may be used, in which only named workers start, all of which have connections of their own."""
    return _lacking(now).filter(Exists(_enabled(now)), ~Exists(_incomplete_here(now)))


def first_missing() -> Case:
    """What a start in a queue would lack, to annotate queues with; of two connections the one that it would name."""
    found = ((_lacks(pointer, QUEUE_LEVELS), lacking(SECTIONS[pointer])) for pointer in REQUIRED_POINTERS)
    cases = (When(condition, then=Value(told)) for condition, told in found)
    return Case(*cases, default=Value(""), output_field=CharField())


def told_of(queue: WorkerQueue, now: datetime) -> str:
    """What a queue lacks and whose starts are refused for it, in sentences; "" where nobody's are."""
    rows = _lacking(now).filter(pk=queue.pk).annotate(missing=first_missing())
    found = rows.values_list("missing", flat=True).first()
    if not found:
        return ""
    begin = f"{found[:1].upper()}{found[1:]}: starts in this queue"
    if workers := incomplete_workers(now).filter(queue=queue.pk).count():
        return f"{begin} are refused, and those of {workers} worker{'' if workers == 1 else 's'}."
    if queue.workers.filter(not_disabled(now, "")).exists():
        return f"{begin} and registrations are refused. Its workers have connections of their own and start."
    return f"{begin} are refused."


def _lacking(now: datetime | Value) -> QuerySet[WorkerQueue, Any]:
    return WorkerQueue.objects.filter(_lacks_any(QUEUE_LEVELS), not_disabled(now, ""))


def _enabled(now: datetime | Value) -> QuerySet[Worker, Any]:
    return Worker.objects.filter(not_disabled(now, ""), queue=OuterRef("pk")).order_by()


def _incomplete_here(now: datetime | Value) -> QuerySet[Worker, Any]:
    return incomplete_workers(now).filter(queue=OuterRef("pk")).order_by()


def _lacks_any(levels: Iterable[str]) -> Q:
    return Q(*(_lacks(pointer, levels) for pointer in REQUIRED_POINTERS), _connector=Q.OR)


def _lacks(pointer: str, levels: Iterable[str]) -> Q:
    return Q(*((f"{level}{pointer}__isnull", True) for level in levels))
