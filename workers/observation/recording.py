"""Writes what was seen: a row for each queue, and one for each process of which something has changed."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction

from environments.connections.verification.looks import QueueLook
from workers.models import ProcessObservation, QueueObservation
from workers.models.observations import FRESH_FOR, MOST_STRANGERS, PROBLEM_LENGTH
from workers.observation.judging import Judged, Verdict
from workers.observation.targets import AskedQueue, Target

#: Rows written in one statement.
BATCH = 500
TOLD = ("is_polling", "is_full", "is_conspicuous")
ASKED = ("asked_at", "problem")
SEEN = (
    "observed_at",
    "workflow_pollers",
    "activity_pollers",
    "pollers",
    "strangers",
    "stranger_identities",
    "backlog",
    "oldest_age",
)


@transaction.atomic
def record_looks(
    target: Target, queues: Sequence[AskedQueue], looks: Mapping[UUID, QueueLook], verdicts: Mapping[UUID, Verdict]
) -> None:
    """Writes what was seen of the queues, all of which were answered, and of their processes.

    Of a queue that is not the connection's own there is nothing to tell, but its row has to be there.
    """
    organization_id = target.connection.organization_id
    rows = [_row(queue, organization_id, looks[queue.id], verdicts[queue.id]) for queue in queues if not queue.is_own]
    _write_queues(rows, (*ASKED, *SEEN))
    own = {queue.id for queue in queues if queue.is_own}
    empty = [
        QueueObservation(id=pk, queue_id=pk, organization_id=organization_id, asked_at=looks[pk].looked_at)
        for pk in own
    ]
    QueueObservation.objects.bulk_create(empty, ignore_conflicts=True)
    _record_processes(queues, looks, verdicts)


def record_problem(target: Target, queues: Iterable[AskedQueue], problem: str, now: datetime) -> None:
    """Notes that queues were asked about and not answered; what was seen before stays, and gets old."""
    rows = [
        QueueObservation(
            id=queue.id,
            queue_id=queue.id,
            organization_id=target.connection.organization_id,
            asked_at=now,
            problem=problem[:PROBLEM_LENGTH],
        )
        for queue in queues
        if not queue.is_own
    ]
    _write_queues(rows, ASKED)


def _row(queue: AskedQueue, organization_id: str, look: QueueLook, verdict: Verdict) -> QueueObservation:
    return QueueObservation(
        id=queue.id,
        queue_id=queue.id,
        organization_id=organization_id,
        asked_at=look.looked_at,
        observed_at=look.looked_at,
        workflow_pollers=look.workflow_pollers,
        activity_pollers=look.activity_pollers,
        pollers=len(look.pollers),
        strangers=len(verdict.strangers),
        stranger_identities=sorted(poller.identity for poller in verdict.strangers)[:MOST_STRANGERS],
        backlog=look.backlog,
        oldest_age=look.oldest_age,
    )


def _write_queues(rows: list[QueueObservation], fields: Iterable[str]) -> None:
    QueueObservation.objects.bulk_create(
        rows, batch_size=BATCH, update_conflicts=True, unique_fields=["id"], update_fields=list(fields)
    )


def _record_processes(
    queues: Sequence[AskedQueue], looks: Mapping[UUID, QueueLook], verdicts: Mapping[UUID, Verdict]
) -> None:
    own = {queue.id for queue in queues if queue.is_own}
    judged = {each.process.id: each for verdict in verdicts.values() for each in verdict.judged}
    known = ProcessObservation.objects.filter(queue__in=[queue.id for queue in queues])
    before = {row.pk: row for row in known.order_by()}
    changed = []
    for pk, each in judged.items():
        queue_id = each.process.queue_id
        if row := _changed(each, before.get(pk), looks[queue_id].looked_at, is_own=queue_id in own):
            changed.append(row)
    ProcessObservation.objects.bulk_create(
        changed,
        batch_size=BATCH,
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=[*TOLD, "queue", "changed_at", "observed_at"],
    )
    gone = [pk for pk, row in before.items() if pk not in judged and _is_of_this(row, own, looks)]
    if gone:
        ProcessObservation.objects.filter(pk__in=gone).delete()


def _is_of_this(row: ProcessObservation, own: set[UUID], looks: Mapping[UUID, QueueLook]) -> bool:
    """Whether these looks decide about a row: what a worker's own connection wrote is that one's while it is asked."""
    looked_at = looks[row.queue_id].looked_at
    if row.observed_at is not None and row.observed_at < looked_at - FRESH_FOR:
        return True
    return (row.observed_at is not None) is (row.queue_id in own)


def _changed(
    judged: Judged, before: ProcessObservation | None, now: datetime, *, is_own: bool
) -> ProcessObservation | None:
    """The row to write; None where it says the same already."""
    process = judged.process
    row = ProcessObservation(
        id=process.id,
        instance_id=process.id,
        organization_id=process.organization_id,
        queue_id=process.queue_id,
        **{name: getattr(judged, name) for name in TOLD},
        changed_at=now,
        observed_at=now if is_own else None,
    )
    if before is None:
        return row
    if before.is_polling == row.is_polling:
        row.changed_at = before.changed_at
    names = (*TOLD, "queue_id", "observed_at")
    return row if any(getattr(row, name) != getattr(before, name) for name in names) else None
