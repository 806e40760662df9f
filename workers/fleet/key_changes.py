"""API keys as one key issues, rotates and revokes others: none is given more than it has itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from django.db import transaction
from django.db.models import Count

from environments import audit
from workers.api_keys.access import UnknownObjectError
from workers.api_keys.issuing import (
    DEFAULT_GRACE_PERIOD,
    ApiKeyError,
    IssuedApiKey,
    KeyTarget,
    issue_api_key,
    new_api_key,
    revoke_api_key,
    rotate_api_key,
    rotation_of,
)
from workers.configuration.impact import CutOff
from workers.fleet.editor import Editor
from workers.fleet.outlook import Outlook
from workers.models import ApiKey, KeyRole, WorkerInstance, WorkerQueue

ENDLESS = "This API key expires itself, so it makes none that never does."


@dataclass(frozen=True)
class NewKey:
    """What a key is to be; `lifetime` None needs a reason."""

    name: str
    role: KeyRole
    lifetime: timedelta | None
    no_expiry_reason: str = ""

    def as_arguments(self) -> dict[str, Any]:
        """What `issue_api_key` takes beside who and when."""
        return vars(self)


def issue(target: KeyTarget, new: NewKey, editor: Editor) -> IssuedApiKey:
    """A new key for what the editor's own reaches; ApiKeyError when it cannot be one."""
    with transaction.atomic():
        _require_may_hand_out(target, editor, is_endless=new.lifetime is None)
        return issue_api_key(target, actor=editor.actor, now=editor.now, **new.as_arguments())


def look_at_issue(target: KeyTarget, new: NewKey, editor: Editor) -> Outlook:
    """What `issue` would do; errors as there."""
    _require_may_hand_out(target, editor, is_endless=new.lifetime is None)
    row = new_api_key(target, now=editor.now, **new.as_arguments())
    row.created_at, row.created_by = editor.now, editor.actor.name
    return Outlook(audit.difference({}, audit.snapshot(row)))


def rotate(key_id: UUID, editor: Editor, grace_period: timedelta = DEFAULT_GRACE_PERIOD) -> IssuedApiKey:
    """A successor of a key that the editor's own reaches; ApiKeyError when there can be none."""
    with transaction.atomic():
        key = _reached(key_id, editor, is_locked=True)
        _require_may_hand_out(key, editor, is_endless=key.expires_at is None)
        return rotate_api_key(key_id, actor=editor.actor, now=editor.now, grace_period=grace_period)


def look_at_rotation(key_id: UUID, editor: Editor, grace_period: timedelta = DEFAULT_GRACE_PERIOD) -> Outlook:
    """What `rotate` would do to the key; errors as there. Its successor has no id yet."""
    key = _reached(key_id, editor)
    _require_may_hand_out(key, editor, is_endless=key.expires_at is None)
    _, ends_at = rotation_of(key, now=editor.now, grace_period=grace_period)
    changes: dict[str, list[Any]] = {"expires_at": [str(key.expires_at), str(ends_at)]}
    return Outlook(changes, cut_off=[] if ends_at > editor.now else _cut_off(key, editor.now))


def revoke(key_id: UUID, reason: str, editor: Editor) -> bool:
    """Ends a key that the editor's own reaches; False when it was revoked before, ApiKeyError without a reason."""
    with transaction.atomic():
        _reached(key_id, editor, is_locked=True)
        return revoke_api_key(key_id, reason=reason, actor=editor.actor, now=editor.now)


def look_at_revocation(key_id: UUID, reason: str, editor: Editor) -> Outlook:
    """What `revoke` would do, and whom it would cut off; errors as there."""
    key = _reached(key_id, editor)
    if key.revoked_at is not None:
        return Outlook({})
    if not reason.strip():
        msg = "Say why the key is revoked."
        raise ApiKeyError(msg)
    return Outlook({"revoke_reason": ["", reason]}, cut_off=_cut_off(key, editor.now))


def _reached(key_id: UUID, editor: Editor, *, is_locked: bool = False) -> ApiKey:
    rows = ApiKey.objects.select_for_update(no_key=True) if is_locked else ApiKey.objects
    key = rows.filter(pk=key_id).order_by().first()
    if key is None:
        raise UnknownObjectError
    editor.require_reach(key)
    return key


def _require_may_hand_out(target: Any, editor: Editor, *, is_endless: bool) -> None:
    if not isinstance(target, ApiKey):  # else it was looked at
        editor.require_reach(target)
    if is_endless and editor.api_key is not None and editor.api_key.expires_at is not None:
        raise ApiKeyError(ENDLESS)


def _cut_off(key: ApiKey, now: datetime) -> list[CutOff]:
    """The processes that run with the key, by queue."""
    live = WorkerInstance.objects.live(now).filter(api_key_id=key.pk).order_by()
    counts = dict(live.values_list("worker__queue").annotate(Count("pk")))
    queues = WorkerQueue.objects.select_related("environment").in_bulk(counts)
    found = [CutOff(queue.task_queue_name, pk, cast("int", counts[pk])) for pk, queue in queues.items()]
    return sorted(found, key=lambda each: each.queue)
