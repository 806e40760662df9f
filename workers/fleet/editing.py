"""Creates and changes one level, worker or connection: as the console does, and each on record alike.

What a change would be is found out the same way with and without making it; `outlook` does the latter.
"""

from collections.abc import Callable, Mapping
from copy import copy
from datetime import datetime
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, transaction

from environments import audit
from environments.encryption import Secret
from environments.endpoints.validators import is_secret
from environments.models import CredentialConnection, Environment, HasConnections
from environments.models.connections import CONNECTION_KINDS
from environments.sealing.data_keys import seal_api_key
from workers.fleet.changes import fields_to_write
from workers.fleet.editor import Editable, Editor, InUseError, NameTakenError
from workers.models import Worker, WorkerInstance, WorkerQueue
from workers.models.states import HasState, check_is_to_come

type Seal = Callable[..., object]

#: What is in what, for the message that a name is taken there.
PLACES: dict[type[Any], str] = {WorkerQueue: "environment", Worker: "worker queue"}
#: Fields that other tables refer to a row by: PostgreSQL locks it against all of them where one changes.
KEYS = frozenset({"name", "queue"})
KEY_REQUIRED = "Give the API key, or say that this server takes none."
ANOTHER_HOST = "The stored API key would go to another host: give api_key with it."


@transaction.atomic
def create[Row: (Environment, WorkerQueue, Worker, CredentialConnection)](
    row: Row, values: Mapping[str, Any], editor: Editor
) -> Row:
    """Stores a new row that is in its place already; NameTakenError, or ValidationError with what is wrong by field."""
    draft_creation(row, values, editor, seal=seal_api_key)
    _store(row, editor.now, force_insert=True)
    changes = audit.difference({}, audit.snapshot(row))
    audit.record(f"{audit.kind_of(row)}.created", row, actor=editor.actor, now=editor.now, changes=changes)
    return row


def draft_creation(row: Any, values: Mapping[str, Any], editor: Editor, *, seal: Seal) -> None:
    """Gives a new row the values; errors as above."""
    if isinstance(row, Worker):
        editor.require_reach(row.queue)
    elif isinstance(row, WorkerQueue):
        editor.require_reach(row.environment)
    else:
        editor.require_all_of(row.organization_id)
    _assign(row, values, editor, seal=seal)
    check(row, editor.now)


def _store(row: Any, now: datetime, **kwargs: Any) -> None:
    """Saves a row that was checked; the same errors for what somebody else has taken meanwhile."""
    try:
        with transaction.atomic():
            row.save(**kwargs)
    except IntegrityError:
        check(row, now)
        raise


@transaction.atomic
def change[Row: Editable](row: Row, values: Mapping[str, Any], editor: Editor) -> Row:
    """The row with the values, and all else as others have it meanwhile; what is the same already is no change.

    Errors as of `draft_change`.
    """
    moved = [name for name in KEYS if name in values and values[name] != getattr(row, name)]
    rows: Any = type(row)._default_manager.select_for_update(no_key=not moved)
    stored: Any = rows.order_by().get(pk=row.pk)
    editor.require_reach(stored)
    changes = draft_change(stored, values, editor, seal=seal_api_key)
    if changes:
        _store(stored, editor.now, update_fields=fields_to_write(stored, changes))
        action = f"{audit.kind_of(stored)}.updated"
        audit.record(action, stored, actor=editor.actor, now=editor.now, changes=changes)
    return stored  # type: ignore[no-any-return]  # as it came in


def draft_change(stored: Any, values: Mapping[str, Any], editor: Editor, *, seal: Seal) -> dict[str, list[Any]]:
    """Gives a stored row the values; returns which fields differ, with their values before and after.

    NameTakenError; ValidationError with what is wrong by field; InUseError when processes live that poll the task queue
    of the old name or the old place: in the console a person confirms that, here nobody is asked.
    """
    if isinstance(stored, HasState):
        stored.forget_ended(editor.now)
    before, was = audit.snapshot(stored), copy(stored)
    _assign(stored, values, editor, seal=seal)
    check(stored, editor.now)
    if "api_key" not in values and editor.api_key is not None:
        _require_secret_stays(was, stored)
    changes = audit.difference(before, audit.snapshot(stored))
    _require_nobody_polls(stored, changes, editor.now)
    return changes


def check(row: Any, now: datetime) -> None:
    """ValidationError with what the model's own rules say; NameTakenError where only the name is taken."""
    if isinstance(row, CredentialConnection) and row.requires_api_key and not row.sealed_api_key:
        raise ValidationError({"api_key": KEY_REQUIRED})
    try:
        row.full_clean()
    except ValidationError as error:
        found = error.error_dict
        if found.keys() == {NON_FIELD_ERRORS} and {each.code for each in found[NON_FIELD_ERRORS]} == {
            "unique_together"
        }:
            where = PLACES.get(type(row), "organization")
            msg = f"Another {row._meta.verbose_name} of this {where} has this name."
            raise NameTakenError(msg) from error
        raise
    if isinstance(row, HasState):
        check_is_to_come(row, now)


def live_in(row: Any, now: datetime) -> int:
    """How many processes live in an environment or a queue, or of a worker."""
    paths: dict[type[Any], str] = {Worker: "worker", WorkerQueue: "worker__queue"}
    within = {paths.get(type(row), "worker__queue__environment"): row.pk}
    return WorkerInstance.objects.live(now).filter(**within).order_by().count()


def counted(count: int, one: str, more: str) -> str:
    """The count with its words; "" for none."""
    return f"{count} {one if count == 1 else more}" if count else ""


def _require_secret_stays(was: Any, row: Any) -> None:
    """ValidationError where a key of ours, which reads no secret, would have a stored one sent elsewhere."""
    if isinstance(row, CredentialConnection) and row.requires_api_key and was.sealed_api_key:
        moved = [name for name in row.ENDPOINT if getattr(row, name) != getattr(was, name)]
        if moved:
            raise ValidationError(dict.fromkeys(moved, ANOTHER_HOST))


def _assign(row: Any, values: Mapping[str, Any], editor: Editor, *, seal: Seal) -> None:
    decided = _decided(row)
    for name, value in values.items():
        if name == "api_key":
            _seal(row, value, editor, seal)
        elif name not in POINTERS:
            setattr(row, name, value)
    if _decided(row) != decided:  # of another decision, the reason and the end are other ones, or none
        row.state_reason, row.state_ends_at = values.get("state_reason", ""), values.get("state_ends_at")
    if isinstance(row, HasConnections):
        _point(row, values, editor)


def _decided(row: Any) -> tuple[bool, bool]:
    return getattr(row, "is_disabled", False), getattr(row, "is_draining", False)


def _seal(row: CredentialConnection, text: str, editor: Editor, seal: Seal) -> None:
    try:
        is_secret(text)
    except ValidationError as error:
        raise ValidationError({"api_key": error.messages}) from None
    seal(row, Secret(text), now=editor.now)


#: The columns by which levels point to connections, with the kind of each.
POINTERS = {f"{kind.POINTER}_id": kind for kind in CONNECTION_KINDS}


def _point(row: Any, values: Mapping[str, Any], editor: Editor) -> None:
    """Lets a level point to other connections, for which a key has to be for all of the organization.

    Whoever has a key for one queue may start workers in it, and would be given what the connection holds.
    """
    told = {name: kind for name, kind in POINTERS.items() if name in values and values[name] != getattr(row, name)}
    if told:
        editor.require_all_of(row.organization_id)
    for name, kind in told.items():
        pk = values[name]
        found = pk and kind.objects.filter(pk=pk, organization=row.organization_id).first()
        if pk and found is None:
            msg = f"The organization has no {kind._meta.verbose_name} of this id."
            raise ValidationError({name: msg})
        setattr(row, kind.POINTER, found)


def _require_nobody_polls(row: Any, changes: Mapping[str, Any], now: datetime) -> None:
    if isinstance(row, Worker):
        if "queue" in changes and (live := live_in(row, now)):
            msg = f"{counted(live, 'live process of it polls', 'live processes of it poll')} the queue that it is in."
            raise InUseError(msg)
    elif isinstance(row, (WorkerQueue, Environment)) and "name" in changes and (live := live_in(row, now)):
        polling = counted(live, "live process polls", "live processes poll")
        msg = f"The name is part of the task queue that {polling}."
        raise InUseError(msg)
