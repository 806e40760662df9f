"""Notes why calls are refused, so that whoever waits for a worker is told: one row for each API key and each worker."""

import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from django.core.cache import cache
from django.db import connection

from workers.models import ApiKey, Refusal, RefusedStart, Worker

#: Seconds in which a process notes the same refused start once: a crash loop tells nothing new.
REPEATED_WITHIN = 2
#: Seconds in which it notes one refused call of a worker that runs, whatever the reason: heartbeats go on and on.
CALL_WITHIN = 60
LONGEST_REASON = 300
#: Rows of hosts for each key: of more hosts that are refused, the latest ones are told.
HOSTS_OF_KEY = 16
#: For so long a refused start is news, if nobody tries again.
REFUSED_FOR = timedelta(days=1)


@dataclass(frozen=True)
class RefusedCall:
    """What was asked for, and why it was refused: a text of ours, in which nothing is of what the caller sent."""

    worker_id: UUID | None
    status: int
    reason: str
    client_address: str | None
    now: datetime
    #: As the caller told it, who would start a worker in a queue.
    hostname: str = ""


def record_refused_start(api_key: ApiKey, refused: RefusedCall, *, is_known: bool) -> None:
    """Notes the last refused start of a key, and of what was to be started unless it is known that there is none."""
    place = f"refusal:{api_key.pk}"
    told = (refused.worker_id, refused.status, refused.reason, refused.client_address, refused.hostname)
    if cache.get(place) != told:
        _write(api_key.pk, api_key, Refusal.START, refused)
        if is_known:
            _count(api_key, refused)
        cache.set(place, told, REPEATED_WITHIN)


def record_refused_call(api_key: ApiKey, call: str, refused: RefusedCall) -> None:
    """Notes the last refused call of a worker of the key's organization; of one that is not there nothing."""
    worker_id = refused.worker_id
    if worker_id is None or not cache.add(f"refused_call:{api_key.organization_id}:{worker_id}", "", CALL_WITHIN):
        return
    if Worker.objects.filter(organization=api_key.organization_id, pk=worker_id).exists():
        _write(worker_id, api_key, call, refused)


def _write(identifier: UUID, api_key: ApiKey, call: str, refused: RefusedCall) -> None:
    row = Refusal(
        id=identifier,
        organization_id=api_key.organization_id,
        api_key=api_key,
        call=call,
        worker_id=refused.worker_id,
        occurred_at=refused.now,
        status=refused.status,
        reason=refused.reason[:LONGEST_REASON],
        client_address=refused.client_address,
    )
    fields = ["api_key", "call", "worker_id", "occurred_at", "status", "reason", "client_address"]
    Refusal.objects.bulk_create([row], update_conflicts=True, unique_fields=["id"], update_fields=fields)


#: Counts on where the latest start before was refused for the same reason and none was answered since.
_COUNT = """
INSERT INTO workers_refusedstart ({columns}) SELECT {values} WHERE {is_there}
ON CONFLICT (id) DO UPDATE SET {replaced},
  times = CASE WHEN {goes_on} THEN workers_refusedstart.times + 1 ELSE 1 END,
  first_at = CASE WHEN {goes_on} THEN workers_refusedstart.first_at ELSE excluded.first_at END
"""
_GOES_ON = """
workers_refusedstart.organization_id = excluded.organization_id AND workers_refusedstart.reason = excluded.reason
AND workers_refusedstart.occurred_at > %s AND NOT EXISTS (
  SELECT 1 FROM workers_workerinstance AS instance WHERE instance.worker_id = excluded.worker_id
  AND instance.is_current AND instance.started_at > workers_refusedstart.occurred_at)
"""
_COUNTED = ("times", "first_at")
_IS_WORKER = "EXISTS (SELECT 1 FROM workers_worker AS worker WHERE worker.id = %s AND worker.organization_id = %s)"


def _count(api_key: ApiKey, refused: RefusedCall) -> None:
    """Of a worker that is there, or of a host; one statement."""
    where = refused.hostname or refused.client_address or ""
    row = RefusedStart(
        id=refused.worker_id or uuid5(api_key.pk, f"host {zlib.crc32(where.encode()) % HOSTS_OF_KEY}"),
        organization_id=api_key.organization_id,
        api_key=api_key,
        worker_id=refused.worker_id,
        hostname=refused.hostname,
        client_address=refused.client_address,
        first_at=refused.now,
        occurred_at=refused.now,
        times=1,
        status=refused.status,
        reason=refused.reason[:LONGEST_REASON],
    )
    fields: Any = RefusedStart._meta.concrete_fields
    columns = [field.column for field in fields]
    prepared = {field.column: field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields}
    text = _COUNT.format(
        columns=", ".join(columns),
        values=", ".join(["%s"] * len(columns)),
        is_there=_IS_WORKER if refused.worker_id else "1 = 1",
        replaced=", ".join(f"{name} = excluded.{name}" for name in columns if name not in {"id", *_COUNTED}),
        goes_on=_GOES_ON,
    )
    lately = RefusedStart._meta.get_field("first_at").get_db_prep_save(refused.now - REFUSED_FOR, connection)
    whose = [prepared["id"], prepared["organization_id"]] if refused.worker_id else []
    with connection.cursor() as cursor:
        cursor.execute(text, [*prepared.values(), *whose, lately, lately])


def latest_refusal(worker: Worker) -> Refusal | RefusedStart | None:
    """The last one of a key of the worker's organization: of a start of this worker, or of the worker's own key."""
    starts = Refusal.objects.filter(call=Refusal.START)
    of_the_worker = starts.filter(organization=worker.organization_id, worker_id=worker.pk)
    of_own_keys = starts.filter(api_key__worker=worker.pk)
    # A statement for each, with an index of its own, which one condition for all would not have.
    found = [rows.select_related("api_key").order_by("-occurred_at").first() for rows in (of_the_worker, of_own_keys)]
    rows: list[Refusal | RefusedStart] = [*filter(None, found), *refused_start_of(worker)]
    return max(rows, key=lambda row: row.occurred_at, default=None)


def refused_start_of(worker: Worker) -> list[RefusedStart]:
    """The worker's own row, if any: that of a key tells of the worker for which it was refused last."""
    own = RefusedStart.objects.filter(pk=worker.pk, organization=worker.organization_id)
    return list(own.select_related("api_key"))


def latest_foreign_refusal_at(worker: Worker) -> datetime | None:
    """When a key of another organization was last used for the worker; no more of it is this organization's to know."""
    foreign = Refusal.objects.filter(worker_id=worker.pk).exclude(organization=worker.organization_id)
    return foreign.order_by("-occurred_at").values_list("occurred_at", flat=True).first()
