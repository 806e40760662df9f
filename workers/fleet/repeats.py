"""Does once what a client asks for twice with one Idempotency-Key, and answers both times the same."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.crypto import salted_hmac

from workers.models import ApiKey, KeptAnswer

#: How long an answer is kept.
KEPT_FOR = timedelta(hours=24)
#: Expired answers that one call removes, at most.
PURGED_AT_ONCE = 100
SALT = "workers.repeats"


class AnotherBodyError(Exception):
    """The key was used for something else within the last day."""


class AnsweredOnceError(Exception):
    """The answer had a secret, which is told once."""

    def __init__(self, identifier: str) -> None:
        super().__init__(f"This call issued API key {identifier} and answered it that once: rotate or revoke it.")


@dataclass(frozen=True)
class Claim:
    """What one client asks for under one key."""

    key_hash: str
    body_hash: str
    api_key: ApiKey
    now: datetime


def claim_of(api_key: ApiKey, key: str, asked: str, now: datetime) -> Claim:
    """The claim; `asked` may hold a secret, so what is kept of it tells nothing without the settings' secret key."""
    key_hash = hashlib.sha256(f"{api_key.pk}:{key}".encode()).hexdigest()
    return Claim(key_hash, salted_hmac(SALT, asked, algorithm="sha256").hexdigest(), api_key, now)


def answered_before(claim: Claim) -> KeptAnswer | None:
    """The answer to the same call; None for whoever is first, in whose transaction it is then to be kept.

    Another caller at the same moment waits for that transaction. AnotherBodyError when the key was used otherwise.
    """
    _purge(claim)
    mine = KeptAnswer(
        organization_id=claim.api_key.organization_id,
        api_key=claim.api_key,
        key_hash=claim.key_hash,
        body_hash=claim.body_hash,
        expires_at=claim.now + KEPT_FOR,
    )
    KeptAnswer.objects.bulk_create([mine], ignore_conflicts=True)
    found = KeptAnswer.objects.get(key_hash=claim.key_hash)
    if found.pk == mine.pk:
        return None
    if found.body_hash != claim.body_hash:
        raise AnotherBodyError
    return found


def keep(claim: Claim, status: int, answer: str, version: str = "") -> None:
    """Keeps the answer of whoever was first."""
    KeptAnswer.objects.filter(key_hash=claim.key_hash).update(status=status, answer=answer, version=version)


def _purge(claim: Claim) -> None:
    """Removes this key's answer if it is too old, and some others, but none that somebody else is just removing."""
    expired = KeptAnswer.objects.filter(expires_at__lte=claim.now)
    expired.filter(key_hash=claim.key_hash).delete()
    keys = expired.order_by("expires_at").select_for_update(skip_locked=True).values_list("pk", flat=True)
    if found := list(keys[:PURGED_AT_ONCE]):
        KeptAnswer.objects.filter(pk__in=found).delete()
