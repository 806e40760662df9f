"""The update lock of a queue: one holder at a time may update the queue's workers."""

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from workers.api_keys.access import reach
from workers.models import ApiKey, UpdateLock, WorkerQueue


class UpdateLockHeldError(Exception):
    """Another worker holds the lock."""


class NotTheHolderError(Exception):
    """Only the holder gives the lock back."""


def acquire_update_lock(  # noqa: PLR0913  # who wants it, and for how long; each is named at the call
    queue_id: UUID, *, holder: str, duration: timedelta, api_key: ApiKey, now: datetime, process_digest: str = ""
) -> UpdateLock:
    """Takes the lock, or, for the one who holds it, prolongs it; UpdateLockHeldError while another does.

    Many name their workers alike, and anybody may give any name; so the holder is who also has the key with which the
    lock was taken and, where both times that is told, is the same process.
    """
    with transaction.atomic():
        queue = _locked(queue_id, api_key)
        lock = held_lock(queue, now)
        if lock is None:
            UpdateLock.objects.filter(queue=queue).delete()
            lock = UpdateLock(organization_id=queue.organization_id, queue=queue, holder=holder, acquired_at=now)
            lock.api_key_id, lock.process_digest = api_key.pk, process_digest
        elif not _is_held_by(lock, holder, api_key) or process_digest not in (
            "",
            lock.process_digest or process_digest,
        ):
            msg = f"Another worker holds the update lock until {lock.expires_at:%Y-%m-%dT%H:%M:%SZ}."
            raise UpdateLockHeldError(msg)
        lock.expires_at = now + duration
        lock.save()
    return lock


def release_update_lock(queue_id: UUID, *, holder: str, api_key: ApiKey, now: datetime) -> None:
    """Gives the lock back; nothing happens when nobody holds it, NotTheHolderError when another does."""
    with transaction.atomic():
        lock = held_lock(_locked(queue_id, api_key), now)
        if lock is not None and not _is_held_by(lock, holder, api_key):
            msg = "Another worker holds the update lock."
            raise NotTheHolderError(msg)
        if lock is not None:
            lock.delete()


def _is_held_by(lock: UpdateLock, holder: str, api_key: ApiKey) -> bool:
    """A key that is rotated meanwhile goes on as its successor."""
    if lock.holder != holder:
        return False
    if lock.api_key_id is None or lock.api_key_id == api_key.pk:
        return True
    return ApiKey.objects.filter(pk=lock.api_key_id, replaced_by=api_key).exists()


def held_lock(queue: WorkerQueue, now: datetime) -> UpdateLock | None:
    """The queue's lock, unless it has expired."""
    return UpdateLock.objects.filter(queue=queue, expires_at__gt=now).first()


def _locked(queue_id: UUID, api_key: ApiKey) -> WorkerQueue:
    """The queue, locked, so that two callers take turns."""
    return reach(WorkerQueue.objects.select_for_update(no_key=True), queue_id, api_key)
