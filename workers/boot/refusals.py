"""Notes why starts are refused, one row for each API key, so that whoever waits for a worker is told."""

from datetime import datetime
from uuid import UUID

from django.core.cache import cache

from workers.models import ApiKey, Refusal, Worker

#: Seconds in which a process notes the same refusal once: a crash loop tells nothing new.
REPEATED_WITHIN = 2
LONGEST_REASON = 300


def record_refusal(  # noqa: PLR0913  # a refusal has these parts; each is named at the call
    api_key: ApiKey, *, worker_id: UUID | None, status: int, reason: str, client_address: str | None, now: datetime
) -> None:
    """Notes the last refusal of a key; one statement, whatever was asked for.

    `reason` is a text of ours: nothing of what the caller sent may be in it.
    """
    place, told = f"refusal:{api_key.pk}", (worker_id, status, reason, client_address)
    if cache.get(place) == told:
        return
    row = Refusal(
        id=api_key.pk,
        organization_id=api_key.organization_id,
        api_key=api_key,
        worker_id=worker_id,
        occurred_at=now,
        status=status,
        reason=reason[:LONGEST_REASON],
        client_address=client_address,
    )
    fields = ["worker_id", "occurred_at", "status", "reason", "client_address"]
    Refusal.objects.bulk_create([row], update_conflicts=True, unique_fields=["id"], update_fields=fields)
    cache.set(place, told, REPEATED_WITHIN)


def latest_refusal(worker: Worker) -> Refusal | None:
    """The last one of a key of the worker's organization: of a start of this worker, or of the worker's own key."""
    of_the_worker = Refusal.objects.filter(organization=worker.organization_id, worker_id=worker.pk)
    of_own_keys = Refusal.objects.filter(api_key__worker=worker.pk)
    # Two statements, each with an index of its own, which one condition for both would not have.
    found = [rows.select_related("api_key").order_by("-occurred_at").first() for rows in (of_the_worker, of_own_keys)]
    return max((row for row in found if row), key=lambda row: row.occurred_at, default=None)


def latest_foreign_refusal_at(worker: Worker) -> datetime | None:
    """When a key of another organization was last used for the worker; no more of it is this organization's to know."""
    foreign = Refusal.objects.filter(worker_id=worker.pk).exclude(organization=worker.organization_id)
    return foreign.order_by("-occurred_at").values_list("occurred_at", flat=True).first()
