"""The starts of one worker as the console shows them: each with what its machine told anew."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet

from workers.admin.api_keys.covering import ShownKey
from workers.models import WorkerStart
from workers.reports.differences import Difference, difference

#: Lines of a difference in a list of starts; a start's own page shows more.
LINES_IN_LIST = 40


@dataclass(frozen=True)
class PastStart:
    """One start; without difference when there is none before it."""

    row: WorkerStart
    is_outdated: bool
    key: ShownKey | None
    difference: Difference | None


def starts_of(worker_id: UUID, organization_id: str) -> QuerySet[WorkerStart]:
    """The starts, the latest first: the organization's, for a ledger's id may be another one's by now."""
    return WorkerStart.objects.owned_by(organization_id).filter(worker=worker_id).order_by("-started_at", "-id")


def start_before(start: WorkerStart) -> WorkerStart | None:
    """The start of the same worker before this one."""
    return starts_of(start.worker_id, start.organization_id).filter(started_at__lt=start.started_at).first()


def difference_between(before: WorkerStart | None, start: WorkerStart, limit: int) -> Difference | None:
    """How the machine told of itself differs from the start before."""
    return difference(before.system_info, start.system_info, limit=limit) if before else None


def past_starts(rows: list[WorkerStart], keys: dict[UUID, ShownKey], revision: str, limit: int) -> list[PastStart]:
    """At most `limit` of the rows, each compared with the next one, which is the start before it."""
    return [
        PastStart(
            row=row,
            is_outdated=bool(revision) and row.configuration_revision != revision,
            key=keys.get(row.api_key_id),
            difference=difference_between(before, row, LINES_IN_LIST),
        )
        for row, before in zip(rows[:limit], [*rows[1:], None], strict=False)
    ]
