"""Notes why calls are refused, so that whoever waits for a worker is told: one row for each API key and each worker."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.core.cache import cache

from workers.models import ApiKey, Refusal, Worker

#: Seconds in which a process notes the same refused start once: a crash loop tells nothing new.
REPEATED_WITHIN = 2
#: Seconds in which it notes one refused call of a worker that runs, whatever the reason: heartbeats go on and on.
CALL_WITHIN = 60
LONGEST_REASON = 300


@dataclass(frozen=True)
class RefusedCall:
    """What was asked for, and why it was refused: a text of ours, in which nothing is of what the caller sent."""

    worker_id: UUID | None
    status: int
    reason: str
    client_address: str | None
    now: datetime


def record_refused_start(api_key: ApiKey, refused: RefusedCall) -> None:
    """Notes the last refused start of a key; one statement, whatever was asked for."""
    place = f"refusal:{api_key.pk}"
    told = (refused.worker_id, refused.status, refused.reason, refused.client_address)
    if cache.get(place) != told:
        _write(api_key.pk, api_key, Refusal.START, refused)
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


def latest_refusal(worker: Worker) -> Refusal | None:
    """The last one of a key of the worker's organization: of a start of this worker, or of the worker's own key."""
    starts = Refusal.objects.filter(call=Refusal.START)
    of_the_worker = starts.filter(organization=worker.organization_id, worker_id=worker.pk)
    of_own_keys = starts.filter(api_key__worker=worker.pk)
    # Two statements, each with an index of its own, which one condition for both would not have.
    found = [rows.select_related("api_key").order_by("-occurred_at").first() for rows in (of_the_worker, of_own_keys)]
    return max((row for row in found if row), key=lambda row: row.occurred_at, default=None)


def latest_foreign_refusal_at(worker: Worker) -> datetime | None:
    """When a key of another organization was last used for the worker; no more of it is this organization's to know."""
    foreign = Refusal.objects.filter(worker_id=worker.pk).exclude(organization=worker.organization_id)
    return foreign.order_by("-occurred_at").values_list("occurred_at", flat=True).first()
