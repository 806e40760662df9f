"""Removes workers that queue starts made and that have gone; what is on record of them stays."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from environments import audit
from environments.audit import Actor
from workers.models import ApiKey, Refusal, RefusedStart, Worker, WorkerInstance
from workers.models.liveness import LONGEST_HOLD

#: Workers removed in one transaction: few enough that no start waits for long.
BATCH = 500
LEAST_ID = UUID(int=0)


def gone_workers(*, silent_for: timedelta, now: datetime) -> QuerySet[Worker]:
    """Ephemeral workers of which nothing was heard for that long; never one that a person gave a key.

    Those whose process another one has replaced since are gone as soon as no heartbeat can show that it runs after
    all: a process that crashes and starts again leaves one each time.
    """
    instances = WorkerInstance.objects.filter(worker=OuterRef("pk"))
    is_live = Exists(instances.live(now))
    has_key = Exists(ApiKey.objects.filter(worker=OuterRef("pk")))
    is_heard_of = Exists(instances.filter(last_heartbeat_at__gt=now - silent_for))
    is_silent = ~is_heard_of & Q(created_at__lte=now - silent_for)
    is_replaced = Exists(instances.filter(is_current=True, is_replaced=True, stopped_at__lte=now - LONGEST_HOLD))
    return Worker.objects.filter(~is_live, ~has_key, is_silent | is_replaced, is_ephemeral=True)


def prune_workers(*, silent_for: timedelta, actor: Actor, now: datetime) -> Iterator[int]:
    """Removes them batch by batch and yields how many; each batch is committed by itself."""
    last = LEAST_ID
    while True:
        gone = gone_workers(silent_for=silent_for, now=now).filter(pk__gt=last).order_by("pk")
        ids = list(gone.values_list("pk", flat=True)[:BATCH])
        if not ids:
            return
        last = ids[-1]
        yield _remove(ids, silent_for=silent_for, actor=actor, now=now)


@transaction.atomic
def _remove(ids: list[UUID], *, silent_for: timedelta, actor: Actor, now: datetime) -> int:
    """Looks again under the lock that a start takes: one that has started meanwhile stays."""
    locked = list(Worker.objects.filter(pk__in=ids).order_by("pk").select_for_update().values_list("pk", flat=True))
    gone = list(gone_workers(silent_for=silent_for, now=now).filter(pk__in=locked))
    for worker in gone:
        changes = audit.difference(snapshot := audit.snapshot(worker), dict.fromkeys(snapshot))
        audit.record("worker.deleted", worker, actor=actor, now=now, changes=changes)
    ids = [worker.pk for worker in gone]
    Worker.objects.filter(pk__in=ids).delete()
    for refusals in (Refusal, RefusedStart):
        refusals._default_manager.filter(pk__in=ids).delete()
    return len(gone)
