"""Checks of API keys: those that nobody uses, that never expire, and whose signature cannot be verified any more."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, Exists, OuterRef, QuerySet

from controlplane.doctor.clocks import ADVICE, MOST_SKEW
from controlplane.doctor.findings import Finding, Level, many, note
from environments.models import AuditEvent
from workers.models import ApiKey, WorkerInstance, WorkerStart

KEYS, SIGNATURES = "API keys", "signing keys"
#: A key of which no start, no heartbeat and no change came for so long is not needed.
UNUSED_AFTER = timedelta(days=90)


def examine_api_keys(now: datetime) -> Iterator[Finding]:
    """Usable keys that were not used for 90 days, those without expiry, and those that are issued later than now."""
    since = now - UNUSED_AFTER
    starts = WorkerStart.objects.filter(api_key=OuterRef("pk"), started_at__gte=since).order_by()
    processes = WorkerInstance.objects.filter(api_key_id=OuterRef("pk"), last_heartbeat_at__gte=since).order_by()
    usable = ApiKey.objects.usable(now)
    changes = AuditEvent.objects.filter(actor__startswith="key:", occurred_at__gte=since).order_by()
    managers = {actor.removeprefix("key:") for actor in changes.values_list("actor", flat=True).distinct()}
    unused = usable.filter(~Exists(starts), ~Exists(processes), created_at__lt=since).exclude(pk__in=managers)
    what = f"Usable API keys that were not used for {UNUSED_AFTER.days} days"
    advice = "Revoke them: python manage.py revoke_api_key ID --reason unused."
    yield from many(Level.PROBLEM, KEYS, what=what, names=_names(unused), advice=advice)
    eternal = usable.filter(expires_at=None)
    advice = "Replace them by keys that expire: issue_api_key, then revoke_api_key."
    yield from many(Level.PROBLEM, KEYS, what="API keys that never expire", names=_names(eternal), advice=advice)
    early = usable.filter(created_at__gt=now + MOST_SKEW)
    what = "API keys that a machine issued whose clock was ahead: they work, and expire later than was meant"
    advice = f"Correct that machine's clock, then replace them: issue_api_key, then revoke_api_key. {ADVICE}"
    yield from many(Level.PROBLEM, KEYS, what=what, names=_names(early), advice=advice)


def examine_signing_keys(now: datetime) -> Iterator[Finding]:
    """Usable API keys by the key that signed them: one that is missing, one that is not the active one any more."""
    ring = settings.API_KEY_SIGNING_KEYS
    usable = ApiKey.objects.usable(now)
    used = dict(usable.order_by("signing_key_id").values_list("signing_key_id").annotate(Count("pk")))
    for key_id, count in used.items():
        if key_id not in ring:
            what = f"API keys signed with {key_id}, which is not in API_KEY_SIGNING_KEYS: they are refused"
            names = _names(usable.filter(signing_key_id=key_id))
            advice = "Put the signing key back, or issue other API keys and revoke these."
            yield from many(Level.PROBLEM, SIGNATURES, what=what, names=names, advice=advice)
        elif key_id != ring.active.id:
            text = f"Signing key {key_id} is not the active one; {count} usable API keys still need it."
            yield note(SIGNATURES, text, "Keep it in API_KEY_SIGNING_KEYS until these are rotated or expired.")
    for key_id in set(ring) - set(used) - {ring.active.id}:
        text = f"Signing key {key_id} of the ring has signed no usable API key."
        yield note(SIGNATURES, text, "Put it first if it is the next one; remove it if it is retired.")


def _names(keys: QuerySet[ApiKey]) -> Iterable[str]:
    found = keys.order_by("organization", "created_at", "pk").values_list("organization_id", "name", "pk")
    return (f"{organization_id}/{name} {pk}" for organization_id, name, pk in found.iterator())
