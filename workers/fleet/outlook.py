"""What a change would be and do to the fleet, found out without making it: nothing is locked, written or recorded."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from environments import audit
from workers.configuration.impact import (
    CannotStart,
    CutOff,
    Ending,
    QueueImpact,
    affected_by,
    cannot_start,
    compare,
    ending,
    queues_affected_by,
)
from workers.configuration.revisions import Given, Group, given_in, group_of, groups_of, groups_of_queues
from workers.fleet.deleting import MOST_WORKERS, require_unused
from workers.fleet.editing import draft_change, draft_creation
from workers.fleet.editor import Editor
from workers.fleet.seals import Seals
from workers.models import Worker, WorkerQueue

#: Of the workers that would be given something else, how many are named.
MOST_NAMES = 10


@dataclass(frozen=True)
class Outlook:
    """What would change, who would be given another configuration or none, and what would happen to who runs."""

    #: Field -> its value before and after, as the audit trail would have it; of a secret its fingerprint.
    changes: Mapping[str, list[Any]]
    impact: list[QueueImpact] = field(default_factory=list)
    cannot_start: list[CannotStart] = field(default_factory=list)
    cut_off: list[CutOff] = field(default_factory=list)
    ending: list[Ending] = field(default_factory=list)
    #: The names of the first workers that would be given another configuration.
    workers: list[str] = field(default_factory=list)


def look_at_creation(row: Any, values: Mapping[str, Any], editor: Editor) -> Outlook:
    """What `editing.create` would do; errors as there. A new row gives nobody anything yet."""
    draft_creation(row, values, editor, seal=Seals().put)
    return Outlook(audit.difference({}, audit.snapshot(row)))


def look_at_change(row: Any, values: Mapping[str, Any], editor: Editor) -> Outlook:
    """What `editing.change` would do; errors as there."""
    stored: Any = type(row)._default_manager.get(pk=row.pk)
    editor.require_reach(stored)
    was = copy(stored)
    changes = draft_change(stored, values, editor, seal=Seals().put)
    if not changes:
        return Outlook(changes)
    groups = groups_of(affected_by(was)) | groups_of_queues(queues_affected_by(was))
    before = given_in(groups)
    after = given_in({**groups, stored.pk: group_of(stored)} if isinstance(stored, Worker) else groups, stored)
    return Outlook(
        changes,
        impact=compare(before, after, now=editor.now),
        cannot_start=cannot_start(before, after, now=editor.now),
        ending=_ending(stored, changes, groups, editor),
        workers=_names(before, after),
    )


def look_at_deletion(row: Any, editor: Editor) -> Outlook:
    """What `deleting.delete` would do; errors as there."""
    stored: Any = type(row)._default_manager.get(pk=row.pk)
    editor.require_reach(stored)
    along = Worker.objects.filter(queue=stored.pk, is_ephemeral=True) if isinstance(stored, WorkerQueue) else None
    count = 0 if along is None else along.order_by()[: MOST_WORKERS + 1].count()
    require_unused(stored, editor, along=count)
    changes = audit.difference(before := audit.snapshot(stored), dict.fromkeys(before))
    return Outlook(changes | ({"workers": [count, 0]} if count else {}))


def _ending(row: Any, changes: Mapping[str, list[Any]], groups: Mapping[UUID, Group], editor: Editor) -> list[Ending]:
    """Who would be told to end, since the worker or the queue becomes disabled."""
    if not changes.get("is_disabled", [None, False])[1]:
        return []
    queue = row.queue if isinstance(row, Worker) else cast("WorkerQueue", row)
    return ending(dict.fromkeys(groups.keys() - {queue.pk}, queue), now=editor.now)


def _names(before: Mapping[UUID, Given], after: Mapping[UUID, Given]) -> list[str]:
    """In the order of the names, of those that a worker's id leads to; queues are among the ids, too."""
    changed = [pk for pk, given in after.items() if pk != given.queue_id and before[pk].revision != given.revision]
    found = Worker.objects.filter(pk__in=changed[:MOST_WORKERS]).order_by("name", "pk") if changed else None
    return [] if found is None else list(found.values_list("name", flat=True)[:MOST_NAMES])
