"""What is on record, as one stream in the order of time: what people and commands did, and what workers did."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from environments.models import AuditEvent
from workers.models import WorkerInstance, WorkerStart

#: Rows read at a time.
PAGE = 5_000
STARTED, STOPPED = "worker.started", "worker.stopped"


@dataclass(frozen=True)
class Record:
    """One thing that happened."""

    at: datetime
    actor: str
    action: str
    organization_id: str | None
    object_type: str
    object_id: str
    object_name: str
    client_address: str | None
    #: Field -> its value before and after; of secrets their fingerprints only.
    fields: dict[str, list[Any]] = field(default_factory=dict)
    #: What else is known of a start or a goodbye.
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The record as JSON shows it."""
        at = self.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        fields = {name: _before_and_after(values) for name, values in self.fields.items()}
        return {**vars(self), "at": at, "fields": fields}


@dataclass(frozen=True)
class Wanted:
    """Which records; None is for any."""

    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    action: str | None = None
    organization_id: str | None = None
    object_id: str | None = None


@dataclass(frozen=True)
class _Source:
    """A table of records: how a row's time is called, and how it becomes a record."""

    rows: QuerySet[Any]
    time: str
    record: Callable[[Any], Record]


def records(wanted: Wanted, *, with_workers: bool = True, is_reversed: bool = False) -> Iterator[Record]:
    """The oldest first, or the newest; as many as there are take no more memory.

    Up to `until`, which is not among them. A goodbye is dated by the process's end, and names the API key that it used
    last.
    """
    sources = [_trail(wanted), *([_starts(wanted), _goodbyes(wanted)] if with_workers else [])]
    streams = (_read(source, wanted, is_reversed=is_reversed) for source in sources)
    return heapq.merge(*streams, key=lambda record: record.at, reverse=is_reversed)


def latest_records(wanted: Wanted, limit: int, *, with_workers: bool = True) -> list[Record]:
    """The newest of them, the oldest of these first."""
    return list(islice(records(wanted, with_workers=with_workers, is_reversed=True), limit))[::-1]


def _read(source: _Source, wanted: Wanted, *, is_reversed: bool) -> Iterator[Record]:
    """Page by page from where the last one ended: no cursor and no transaction stay open while somebody reads on."""
    time, further, sign = source.time, "lt" if is_reversed else "gt", "-" if is_reversed else ""
    limits = {f"{time}__gte": wanted.since, f"{time}__lt": wanted.until, "organization": wanted.organization_id}
    rows = source.rows.filter(**{lookup: limit for lookup, limit in limits.items() if limit is not None})
    rows = rows.order_by(f"{sign}{time}", f"{sign}pk")
    page = list(rows[:PAGE])
    while page:
        yield from map(source.record, page)
        at, pk = getattr(page[-1], time), page[-1].pk
        same = Q(**{time: at, f"pk__{further}": pk})
        # Said twice, since databases find their way by the first.
        rest = rows.filter(same | Q(**{f"{time}__{further}": at}), **{f"{time}__{further}e": at})
        page = list(rest[:PAGE])


def _trail(wanted: Wanted) -> _Source:
    exact = {"actor": wanted.actor, "action": wanted.action, "object_id": wanted.object_id}
    rows = AuditEvent.objects.filter(**{name: value for name, value in exact.items() if value is not None})
    return _Source(rows, "occurred_at", _of_event)


def _starts(wanted: Wanted) -> _Source:
    rows = WorkerStart.objects.defer("system_info")
    return _Source(_of_worker(rows, STARTED, wanted), "started_at", _of_start)


def _goodbyes(wanted: Wanted) -> _Source:
    rows = WorkerInstance.objects.filter(stopped_at__isnull=False).select_related("worker").defer("error_message")
    return _Source(_of_worker(rows, STOPPED, wanted), "stopped_at", _of_goodbye)


def _of_worker(rows: QuerySet[Any], action: str, wanted: Wanted) -> QuerySet[Any]:
    """The rows that are wanted, if this is: a worker acts with an API key, upon itself."""
    key_id = _uuid(wanted.actor.removeprefix("key:")) if wanted.actor else None
    worker_id = _uuid(wanted.object_id) if wanted.object_id else None
    is_impossible = (
        wanted.action not in {None, action}
        or (wanted.actor is not None and key_id is None)
        or (wanted.object_id is not None and worker_id is None)
    )
    if is_impossible:
        return rows.none()
    exact = {"api_key_id": key_id, "worker_id": worker_id}
    return rows.filter(**{name: value for name, value in exact.items() if value is not None})


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _of_event(row: AuditEvent) -> Record:
    return Record(
        at=row.occurred_at,
        actor=row.actor,
        action=row.action,
        organization_id=row.organization_id,
        object_type=row.object_type,
        object_id=row.object_id,
        object_name=row.object_name,
        client_address=row.client_address,
        fields=row.changes,
    )


def _of_start(row: WorkerStart) -> Record:
    return Record(
        at=row.started_at,
        actor=f"key:{row.api_key_id}",
        action=STARTED,
        organization_id=row.organization_id,
        object_type="worker",
        object_id=str(row.worker_id),
        object_name=f"{row.organization_id}/{row.worker_name}",
        client_address=row.client_address,
        details={
            "instance_id": str(row.pk),
            "task_queue_name": row.task_queue_name,
            "configuration_revision": row.configuration_revision,
            "temporal_api_key_version": row.temporal_api_key_version,
            "litellm_api_key_version": row.litellm_api_key_version,
            "displaced_instance_id": row.displaced_instance_id and str(row.displaced_instance_id),
            "user_agent": row.user_agent,
        },
    )


def _of_goodbye(row: WorkerInstance) -> Record:
    """Without the error message: it is what the process says, and nobody knows what is in it."""
    return Record(
        at=row.stopped_at or row.last_heartbeat_at,
        actor=f"key:{row.api_key_id}" if row.api_key_id else "key:unknown",
        action=STOPPED,
        organization_id=row.organization_id,
        object_type="worker",
        object_id=str(row.worker_id),
        object_name=str(row.worker),
        client_address=row.client_address,
        details={
            "instance_id": str(row.pk),
            "hostname": row.hostname,
            "reason": row.stop_reason,
            "exit_code": row.exit_code,
        },
    )


def _before_and_after(values: Any) -> dict[str, Any]:
    match values:
        case [before, after]:
            return {"before": before, "after": after}
        case _:
            return {"before": None, "after": values}
