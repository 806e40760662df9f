"""Creates one worker beside those of a document."""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from environments import audit
from environments.audit import Actor
from workers.fleet.changes import Action
from workers.fleet.kinds import WORKER
from workers.models import Worker, WorkerQueue


@transaction.atomic
def create_worker(
    queue: WorkerQueue, *, name: str, actor: Actor, now: datetime, worker_id: UUID | None = None
) -> Worker:
    """A new worker of the queue, with an id of its own unless one is given; ValidationError when it cannot be."""
    worker = Worker(organization_id=queue.organization_id, queue=queue, name=name)
    if worker_id is not None:
        worker.id = worker_id
    worker.full_clean()
    worker.save(force_insert=True)
    changes = audit.difference({}, audit.snapshot(worker))
    audit.record(f"{WORKER.name}.{Action.CREATED}", worker, actor=actor, now=now, changes=changes)
    return worker
