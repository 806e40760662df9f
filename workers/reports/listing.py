"""Workers as a list for a script: each with its liveness and whether it is outdated, by the console's own rules."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from workers.configuration.effective import is_outdated, missing_in
from workers.configuration.revisions import GROUP, Group, current_revisions
from workers.lifecycle.refusals import REFUSED_FOR
from workers.models import LIVE
from workers.models.paths import PATH
from workers.models.work import work_of
from workers.models.workers import WorkerQuerySet
from workers.reports.attention import refused_starts

#: Rows fetched at a time.
CHUNK = 2_000
DECIDED = ("is_disabled", "is_draining", "state_reason", "state_ends_at")
NOT_REFUSED = (None, None, 0)
CURRENT = ("hostname", "started_at", "last_heartbeat_at")
TIMES = ("started_at", "last_heartbeat_at", "state_ends_at", "refused_since")


@dataclass(frozen=True)
class ListedWorker:
    """One worker; what is of its current process is None before its first start."""

    id: UUID
    path: str
    liveness: str
    is_outdated: bool
    hostname: str | None
    started_at: datetime | None
    last_heartbeat_at: datetime | None
    is_disabled: bool
    is_draining: bool
    #: Why, and until when.
    state_reason: str | None
    state_ends_at: datetime | None
    is_ephemeral: bool
    #: What Temporal was seen to know beside that: "Working", "Not polling", "Cut off"; None where nothing is known.
    work: str | None
    #: Why the latest start was refused, since when, and at least how often; None where it was answered.
    refusal: str | None
    refused_since: datetime | None
    refusals: int
    #: What it lacks, so that a start would be refused; None where nothing is missing.
    missing: str | None

    def as_json(self) -> dict[str, Any]:
        """With JSON's types only."""
        times = {name: at and at.isoformat() for name in TIMES for at in [getattr(self, name)]}
        return {**vars(self), "id": str(self.id), **times}


def listed(workers: WorkerQuerySet, now: datetime) -> Iterator[ListedWorker]:
    """The workers, loaded with their liveness, in the order of their paths.

    A few statements however many there are, and never all of them in memory.
    """
    refused = _refused(now)
    groups = {Group(*row) for row in workers.order_by().values_list(*GROUP).distinct()}
    revisions = current_revisions(groups)
    current = ("current__configuration_revision", *(f"current__{name}" for name in CURRENT))
    columns = (*PATH, *GROUP, "pk", "liveness", *current, *DECIDED, "is_ephemeral", "work")
    for row in (
        workers.annotate(work=work_of("current__", now))
        .order_by(*PATH)
        .values_list(*columns)
        .iterator(chunk_size=CHUNK)
    ):
        path, group = row[: len(PATH)], Group(*row[len(PATH) : len(PATH) + len(GROUP)])
        pk, liveness, runs_with, *rest, reason, until, is_ephemeral, work = row[len(PATH) + len(GROUP) :]
        if until is not None and until <= now:
            rest, reason, until = [*rest[: len(CURRENT)], False, False], "", None
        is_old = liveness in LIVE and is_outdated(runs_with or "", revisions[group])
        missing = missing_in(revisions[group]) or None
        told = (*rest, reason or None, until, is_ephemeral, work or None, *refused.get(pk, NOT_REFUSED), missing)
        yield ListedWorker(pk, "/".join(path), liveness, is_old, *told)


def _refused(now: datetime) -> dict[UUID, tuple[Any, ...]]:
    """Of the workers whose latest start was refused why, since when and how often."""
    rows = refused_starts(now - REFUSED_FOR).filter(worker_id__isnull=False)
    return {pk: tuple(told) for pk, *told in rows.values_list("pk", "reason", "first_at", "times")}
