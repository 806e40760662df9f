"""Deletes one environment, worker queue, worker or connection that nothing needs any more; each is on record."""

from collections import Counter
from typing import Any, cast

from django.db import transaction
from django.db.models import Model, ProtectedError, Q

from environments import audit, deletion
from environments.database.removal import Removal
from environments.models import Environment
from environments.models.connections import Connection
from workers.api_keys.access import UnknownObjectError
from workers.fleet.editing import counted, live_in
from workers.fleet.editor import Editor, InUseError
from workers.models import ApiKey, Refusal, RefusedStart, Worker, WorkerQueue

#: Of the workers that go along with a queue; beyond these, one transaction would keep others waiting for too long.
MOST_WORKERS = 5_000


@transaction.atomic
def delete(row: Any, editor: Editor) -> None:
    """Deletes the row, a queue with its ephemeral workers, all of which have gone; starts stay in the ledger.

    InUseError with what keeps it. The workers are locked before the queue, as a start does.
    """
    workers = _locked_along(row)
    locked: Any = type(row)._default_manager.select_for_update().order_by().get(pk=row.pk)
    editor.require_reach(locked)
    require_unused(locked, editor, along=len(workers))
    _remove(workers, editor)
    _delete(locked, editor)


def require_unused(row: Any, editor: Editor, *, along: int = 0) -> None:
    """InUseError with what keeps the row; `along` are the workers that would go with it."""
    match row:
        case Environment():
            queues = WorkerQueue.objects.filter(environment=row).count()
            keys = ApiKey.objects.usable(editor.now).filter(environment=row).count()
            _refuse([counted(queues, "worker queue is in it", "worker queues are in it"), _of_keys(keys)])
        case WorkerQueue():
            _require_unused_queue(row, editor, along)
        case Worker():
            keys = ApiKey.objects.usable(editor.now).filter(worker=row).count()
            told = counted(keys, "usable API key is for it", "usable API keys are for it")
            _refuse([_of_processes(live_in(row, editor.now)), told])
        case _:
            _require_no_barriers(Removal([row]))


def _require_unused_queue(queue: WorkerQueue, editor: Editor, along: int) -> None:
    named = Worker.objects.filter(queue=queue, is_ephemeral=False).count()
    keys = ApiKey.objects.usable(editor.now).filter(Q(queue=queue) | Q(worker__queue=queue)).count()
    _refuse(
        [
            _of_processes(live_in(queue, editor.now)),
            counted(named, "worker that somebody made is in it", "workers that somebody made are in it"),
            _of_keys(keys),
            f"more than {MOST_WORKERS:,} workers have been in it lately" if along > MOST_WORKERS else "",
        ]
    )


def _locked_along(row: Any) -> list[Worker]:
    if not isinstance(row, WorkerQueue):
        return []
    chosen = Worker.objects.filter(queue=row.pk, is_ephemeral=True).order_by("pk")
    return list(chosen.select_for_update()[: MOST_WORKERS + 1])


def _refuse(reasons: list[str]) -> None:
    if found := [reason for reason in reasons if reason]:
        msg = f"It cannot be deleted: {', and '.join(found)}."
        raise InUseError(msg)


def _of_processes(count: int) -> str:
    return counted(count, "process of it is live", "processes of it are live")


def _of_keys(count: int) -> str:
    return counted(count, "usable API key is for it or a worker in it", "usable API keys are for it or workers in it")


def _remove(workers: list[Worker], editor: Editor) -> None:
    """Deletes workers whose processes have ended, with keys that no longer work; each is on record."""
    if not workers:
        return
    removal = Removal(cast("list[Model]", workers))
    _require_no_barriers(removal)
    for ended in removal.ended():
        audit.record_deletion(ended, actor=editor.actor, now=editor.now)
    gone = [(row, audit.difference(last := audit.snapshot(row), dict.fromkeys(last))) for row in workers]
    audit.record_many("worker.deleted", gone, actor=editor.actor, now=editor.now)
    removal.delete()
    _forget_refusals(workers)


def _require_no_barriers(removal: Removal) -> None:
    if counts := Counter(row._meta for row in removal.barriers):
        told = [counted(count, str(kind.verbose_name), str(kind.verbose_name_plural)) for kind, count in counts.items()]
        need = "needs" if counts.total() == 1 else "need"
        msg = f"It cannot be deleted: {' and '.join(sorted(told))} {need} it."
        raise InUseError(msg)


def _delete(row: Environment | WorkerQueue | Worker | Connection, editor: Editor) -> None:
    try:
        deletion.delete(row, actor=editor.actor, now=editor.now)
    except ProtectedError as error:
        msg = "It cannot be deleted: something that needs it was made meanwhile. Try again."
        raise InUseError(msg) from error
    except deletion.GoneError:
        raise UnknownObjectError from None
    if isinstance(row, Worker):
        _forget_refusals([row])


def _forget_refusals(workers: list[Worker]) -> None:
    for refusals in (Refusal, RefusedStart):
        refusals._default_manager.filter(pk__in=[row.pk for row in workers]).delete()
