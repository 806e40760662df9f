"""Creates, changes and deletes one environment or worker queue: as the console does, and each on record alike."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Model, ProtectedError, Q

from environments import audit, deletion
from environments.audit import Actor
from environments.database.removal import Removal
from environments.models import Environment
from workers.api_keys.access import KeyOutOfScopeError, UnknownObjectError, permit
from workers.api_keys.presented import NoUsableKeyError
from workers.models import ApiKey, KeyRole, Refusal, RefusedStart, Scope, Worker, WorkerInstance, WorkerQueue
from workers.models.states import HasState, check_is_to_come, whole_decision

#: Of the workers that go along with a queue; beyond these, one transaction would keep others waiting for too long.
MOST_WORKERS = 5_000

type Level = Environment | WorkerQueue


class KeyMayNotManageError(Exception):
    """The API key is a worker's, which changes nothing that people set up."""


class NameTakenError(Exception):
    """Another one in the same place has the name."""


class InUseError(Exception):
    """Something needs the row as it is; the message says what."""


@dataclass(frozen=True)
class Editor:
    """Who makes a change, and when; with an API key, which has to reach what is changed."""

    actor: Actor
    now: datetime
    api_key: ApiKey | None = None

    def require_reach[Row: (Environment, WorkerQueue)](self, row: Row) -> None:
        """Asks the key's row once more: it may have been revoked while a lock was waited for. Errors as `permit`."""
        if self.api_key is not None:
            permit(row, self._key_now())

    def require_all_of(self, organization_id: str) -> None:
        """The same of what is new right in the organization, which only a key for all of it reaches."""
        if self.api_key is not None:
            key = self._key_now()
            if key.scope != Scope.ORGANIZATION or key.organization_id != organization_id:
                raise KeyOutOfScopeError

    def _key_now(self) -> ApiKey:
        key = ApiKey.objects.usable(self.now).filter(pk=cast("ApiKey", self.api_key).pk).first()
        if key is None:
            raise NoUsableKeyError
        if key.role != KeyRole.MANAGER:
            raise KeyMayNotManageError
        return key


@transaction.atomic
def create_environment(organization_id: str, values: Mapping[str, Any], editor: Editor) -> Environment:
    """A new environment; NameTakenError, or ValidationError with what is wrong by field."""
    editor.require_all_of(organization_id)
    return _create(Environment(organization_id=organization_id, **values), editor)


@transaction.atomic
def create_queue(environment: Environment, values: Mapping[str, Any], editor: Editor) -> WorkerQueue:
    """A new worker queue of the environment; errors as above."""
    editor.require_reach(environment)
    return _create(WorkerQueue(organization_id=environment.organization_id, environment=environment, **values), editor)


@transaction.atomic
def change[Row: (Environment, WorkerQueue)](row: Row, values: Mapping[str, Any], editor: Editor) -> Row:
    """The row with the values, and all else as others have it meanwhile; what is the same already is no change.

    InUseError when a name is to change while processes live that poll the task queue of the old one: in the console a
    person confirms that, here nobody is asked.
    """
    is_renamed = values.get("name", row.name) != row.name
    stored = type(row)._default_manager.select_for_update(no_key=not is_renamed).get(pk=row.pk)
    editor.require_reach(stored)
    if isinstance(stored, HasState):
        stored.forget_ended(editor.now)
    before = audit.snapshot(stored)
    for name, value in values.items():
        setattr(stored, name, value)
    _check(stored, editor.now)
    if stored.name != before["name"] and (live := _live_in(stored, editor.now)):
        msg = f"The name is part of the task queue that {_counted(live, 'live process polls', 'live processes poll')}."
        raise InUseError(msg)
    changes: dict[str, list[Any]] = audit.difference(before, audit.snapshot(stored))
    if changes:
        stored.save(update_fields={*whole_decision(changes), "settings_hash"})
        action = f"{audit.kind_of(stored)}.updated"
        audit.record(action, stored, actor=editor.actor, now=editor.now, changes=changes)
    return stored


@transaction.atomic
def delete_environment(environment: Environment, editor: Editor) -> None:
    """Deletes an environment that nothing is in; InUseError with what is, or which API keys are for it."""
    locked = Environment.objects.select_for_update().get(pk=environment.pk)
    editor.require_reach(locked)
    queues = WorkerQueue.objects.filter(environment=locked).count()
    keys = ApiKey.objects.usable(editor.now).filter(environment=locked).count()
    _refuse([_counted(queues, "worker queue is in it", "worker queues are in it"), _of_keys(keys)])
    _delete(locked, editor)


@transaction.atomic
def delete_queue(queue: WorkerQueue, editor: Editor) -> None:
    """Deletes a queue with its ephemeral workers, all of which have gone; starts stay in the ledger.

    InUseError with what keeps it: processes that live, workers that people made, usable API keys. The workers are
    locked before the queue, as a start does.
    """
    chosen = Worker.objects.filter(queue=queue.pk, is_ephemeral=True).order_by("pk")
    workers = list(chosen.select_for_update()[: MOST_WORKERS + 1])
    locked = WorkerQueue.objects.select_for_update().get(pk=queue.pk)
    editor.require_reach(locked)
    named = Worker.objects.filter(queue=locked, is_ephemeral=False).count()
    keys = ApiKey.objects.usable(editor.now).filter(Q(queue=locked) | Q(worker__queue=locked)).count()
    _refuse(
        [
            _counted(_live_in(locked, editor.now), "process of it is live", "processes of it are live"),
            _counted(named, "worker that somebody made is in it", "workers that somebody made are in it"),
            _of_keys(keys),
            f"more than {MOST_WORKERS:,} workers have been in it lately" if len(workers) > MOST_WORKERS else "",
        ]
    )
    _remove(workers, editor)
    _delete(locked, editor)


def _create[Row: (Environment, WorkerQueue)](row: Row, editor: Editor) -> Row:
    _check(row, editor.now)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        _check(row, editor.now)  # which says so when somebody else has taken the name meanwhile
        raise
    changes = audit.difference({}, audit.snapshot(row))
    audit.record(f"{audit.kind_of(row)}.created", row, actor=editor.actor, now=editor.now, changes=changes)
    return row


def _check(row: Level, now: datetime) -> None:
    """ValidationError with what the model's own rules say; NameTakenError where only the name is taken."""
    try:
        row.full_clean()
    except ValidationError as error:
        found = error.error_dict
        if found.keys() == {NON_FIELD_ERRORS} and {each.code for each in found[NON_FIELD_ERRORS]} == {
            "unique_together"
        }:
            where = "environment" if isinstance(row, WorkerQueue) else "organization"
            msg = f"Another {row._meta.verbose_name} of this {where} has this name."
            raise NameTakenError(msg) from error
        raise
    if isinstance(row, HasState):
        check_is_to_come(row, now)


def _live_in(row: Level, now: datetime) -> int:
    within = {"worker__queue": row.pk} if isinstance(row, WorkerQueue) else {"worker__queue__environment": row.pk}
    return WorkerInstance.objects.live(now).filter(**within).order_by().count()


def _refuse(reasons: list[str]) -> None:
    if found := [reason for reason in reasons if reason]:
        msg = f"It cannot be deleted: {', and '.join(found)}."
        raise InUseError(msg)


def _counted(count: int, one: str, more: str) -> str:
    """The count with its words; "" for none."""
    return f"{count} {one if count == 1 else more}" if count else ""


def _of_keys(count: int) -> str:
    return _counted(count, "usable API key is for it or a worker in it", "usable API keys are for it or workers in it")


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
    for refusals in (Refusal, RefusedStart):
        refusals._default_manager.filter(pk__in=[row.pk for row, _ in gone]).delete()


def _require_no_barriers(removal: Removal) -> None:
    if counts := Counter(str(row._meta.verbose_name_plural) for row in removal.barriers):
        msg = f"It cannot be deleted: {', '.join(f'{count} {kind}' for kind, count in counts.items())} need it."
        raise InUseError(msg)


def _delete(row: Level, editor: Editor) -> None:
    try:
        deletion.delete(row, actor=editor.actor, now=editor.now)
    except ProtectedError as error:
        msg = "It cannot be deleted: something that needs it was made meanwhile. Try again."
        raise InUseError(msg) from error
    except deletion.GoneError:
        raise UnknownObjectError from None
