"""The life of an API key: issue, rotate, revoke."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import QuerySet

from environments import audit
from environments.audit import Actor
from environments.encryption import Secret
from environments.models import Environment, Organization
from workers.api_keys import tokens
from workers.models import ApiKey, KeyRole, Scope, Worker, WorkerQueue

DEFAULT_LIFETIME = timedelta(days=90)
LONGEST_LIFETIME = timedelta(days=730)
DEFAULT_GRACE_PERIOD = timedelta(hours=24)
NAME_LENGTH = 200
REASON_LENGTH = 300
NOTHING_TO_MANAGE = "A manager's key is for a queue, an environment or an organization: one worker has nothing in it."
LONGEST_GRACE_PERIOD = timedelta(days=30)
#: Keys that one transaction revokes: their workers' calls wait for it.
BATCH = 200

type KeyTarget = Organization | Environment | WorkerQueue | Worker


class ApiKeyError(ValueError):
    """An API key cannot be issued, rotated or revoked so; the message says why."""


@dataclass(frozen=True)
class IssuedApiKey:
    """A new key's row and, this once, the key itself."""

    row: ApiKey
    token: Secret


@transaction.atomic
def issue_api_key(  # noqa: PLR0913  # a key has these parts; each is named at the call
    target: KeyTarget,
    *,
    name: str,
    actor: Actor,
    now: datetime,
    lifetime: timedelta | None = DEFAULT_LIFETIME,
    no_expiry_reason: str = "",
    role: KeyRole = KeyRole.WORKER,
) -> IssuedApiKey:
    """A new key for an organization, environment, queue or worker; `lifetime` None needs a reason."""
    kind = {"name": name, "lifetime": lifetime, "no_expiry_reason": no_expiry_reason, "role": role}
    return _issue(new_api_key(target, now=now, **kind), actor=actor, now=now)  # type: ignore[arg-type]  # each as above


def new_api_key(  # noqa: PLR0913  # as above
    target: KeyTarget,
    *,
    name: str,
    now: datetime,
    lifetime: timedelta | None,
    no_expiry_reason: str = "",
    role: KeyRole = KeyRole.WORKER,
) -> ApiKey:
    """The row of a key that is not issued yet; ApiKeyError when it cannot be."""
    if role == KeyRole.MANAGER and isinstance(target, Worker):
        raise ApiKeyError(NOTHING_TO_MANAGE)
    if not name.strip() or len(name) > NAME_LENGTH:
        msg = f"Name the key, in at most {NAME_LENGTH} characters: say what it is for."
        raise ApiKeyError(msg)
    if lifetime is None and not no_expiry_reason.strip():
        msg = "A key that never expires needs a written reason."
        raise ApiKeyError(msg)
    if len(no_expiry_reason) > REASON_LENGTH:
        msg = f"A reason has at most {REASON_LENGTH} characters."
        raise ApiKeyError(msg)
    if lifetime is not None and not timedelta(0) < lifetime <= LONGEST_LIFETIME:
        msg = f"A key lives at least a moment and at most {LONGEST_LIFETIME.days} days."
        raise ApiKeyError(msg)
    expires_at = None if lifetime is None else now + lifetime
    reason = no_expiry_reason if lifetime is None else ""
    row = ApiKey(name=name, role=role, expires_at=expires_at, no_expiry_reason=reason)
    _aim(row, target)
    return row


@transaction.atomic
def rotate_api_key(
    key_id: UUID, *, actor: Actor, now: datetime, grace_period: timedelta = DEFAULT_GRACE_PERIOD
) -> IssuedApiKey:
    """A successor with the same scope and lifetime; the old key stays valid for the grace period, never longer."""
    old = _locked(key_id)
    successor, expires_at = rotation_of(old, now=now, grace_period=grace_period)
    issued = _issue(successor, actor=actor, now=now)
    changes: dict[str, list[Any]] = {
        "replaced_by": [None, str(successor.pk)],
        "expires_at": [str(old.expires_at), str(expires_at)],
    }
    ApiKey.objects.filter(pk=old.pk).update(replaced_by=successor, expires_at=expires_at)
    audit.record("api_key.rotated", old, actor=actor, now=now, changes=changes)
    return issued


def rotation_of(old: ApiKey, *, now: datetime, grace_period: timedelta) -> tuple[ApiKey, datetime]:
    """A key's successor, not issued yet, and when the key ends; ApiKeyError when there can be none."""
    if not timedelta(0) <= grace_period <= LONGEST_GRACE_PERIOD:
        msg = f"A grace period lasts from 0 to {LONGEST_GRACE_PERIOD.days} days."
        raise ApiKeyError(msg)
    if not old.is_usable(now):
        msg = "This key is revoked or expired: issue a new one."
        raise ApiKeyError(msg)
    if old.replaced_by_id is not None:
        msg = f"This key was already rotated: rotate its successor {old.replaced_by_id}."
        raise ApiKeyError(msg)
    lifetime = old.expires_at - old.created_at if old.expires_at else None
    successor = ApiKey(
        organization_id=old.organization_id,
        name=old.name,
        scope=old.scope,
        role=old.role,
        worker_id=old.worker_id,
        queue_id=old.queue_id,
        environment_id=old.environment_id,
        expires_at=now + lifetime if lifetime else None,
        no_expiry_reason=old.no_expiry_reason,
    )
    return successor, min(old.expires_at or tokens.NEVER, now + grace_period)


@transaction.atomic
def revoke_api_key(key_id: UUID, *, reason: str, actor: Actor, now: datetime) -> bool:
    """Ends a key for good, on its next use; False when it was revoked before."""
    key = _locked(key_id)
    if key.revoked_at is not None:
        return False
    if not reason.strip():
        msg = "Say why the key is revoked."
        raise ApiKeyError(msg)
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=now, revoke_reason=reason[:300])
    audit.record("api_key.revoked", key, actor=actor, now=now, changes={"revoke_reason": ["", reason[:300]]})
    return True


def revoke_api_keys(keys: QuerySet[ApiKey], *, reason: str, actor: Actor, now: datetime) -> Iterator[list[UUID]]:
    """Ends all of these that are not revoked yet; tells their ids, batch by batch, each a transaction of its own."""
    if not reason.strip():
        msg = "Say why the keys are revoked."
        raise ApiKeyError(msg)
    pending = keys.filter(revoked_at=None).order_by("pk")
    while batch := _revoke_batch(pending, reason=reason[:REASON_LENGTH], actor=actor, now=now):
        yield batch


@transaction.atomic
def _revoke_batch(pending: QuerySet[ApiKey], *, reason: str, actor: Actor, now: datetime) -> list[UUID]:
    rows = list(pending.select_for_update(no_key=True)[:BATCH])
    ids = [row.pk for row in rows]
    ApiKey.objects.filter(pk__in=ids).update(revoked_at=now, revoke_reason=reason)
    changes: dict[str, list[Any]] = {"revoke_reason": ["", reason]}
    audit.record_many("api_key.revoked", [(row, changes) for row in rows], actor=actor, now=now)
    return ids


def find_by_token(text: str) -> ApiKey | None:
    """The row of a reported key, expired and revoked ones included; None for whatever is not a key of ours."""
    return ApiKey.objects.filter(token_hash=tokens.digest(text)).first()


def issued_key(issued: IssuedApiKey) -> dict[str, Any]:
    """A new API key in plain text with what tells it apart, for the one page or command output that shows it."""
    row = issued.row
    return {
        "id": str(row.pk),
        "name": row.name,
        "organization_id": row.organization_id,
        "scope": row.scope,
        "role": row.role,
        "target": str(row.target),
        "expires_at": row.expires_at and row.expires_at.isoformat(),
        "api_key": issued.token.reveal(),
    }


def _locked(key_id: UUID) -> ApiKey:
    try:
        return ApiKey.objects.select_for_update(no_key=True).get(pk=key_id)
    except ApiKey.DoesNotExist:
        msg = f"There is no API key {key_id}."
        raise ApiKeyError(msg) from None


def _aim(row: ApiKey, target: KeyTarget) -> None:
    match target:
        case Worker():
            row.scope, row.worker = Scope.WORKER, target
        case WorkerQueue():
            row.scope, row.queue = Scope.QUEUE, target
        case Environment():
            row.scope, row.environment = Scope.ENVIRONMENT, target
        case Organization():
            row.scope = Scope.ORGANIZATION
    row.organization_id = target.organization_id


def _issue(row: ApiKey, *, actor: Actor, now: datetime) -> IssuedApiKey:
    row.id = uuid4()
    row.created_at, row.created_by = now, actor.name
    token, row.token_hash, row.signing_key_id = tokens.mint(
        api_key_id=row.id, organization_id=row.organization_id, name=row.name, now=now, expires_at=row.expires_at
    )
    row.save(force_insert=True)
    audit.record("api_key.issued", row, actor=actor, now=now, changes=audit.difference({}, audit.snapshot(row)))
    return IssuedApiKey(row, token)
