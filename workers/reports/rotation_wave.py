"""Which versions of a connection's API key live workers still run with: who has to restart before one is retired.

A process goes on with what it was given at its start, and the ledger of starts says what that was.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, OuterRef, Q, Subquery

from environments.models import AuditEvent, CredentialConnection
from workers.models import LIVE, Liveness, WorkerInstance, WorkerStart
from workers.models.starts import version_column

#: How many versions are shown, the newest first, and how many events tell when each was set.
MOST_VERSIONS = 20
#: Of how many of the connection's latest events these are; each verification is one.
MOST_EVENTS = 500


@dataclass(frozen=True)
class VersionInUse:
    """One version of an API key, and the workers that were given it at their last start."""

    version: int
    is_current: bool
    fingerprint: str = ""
    set_at: datetime | None = None
    live: int = 0
    #: Silent, but not stopped: a process that comes back still has this version.
    offline: int = 0
    last_started_at: datetime | None = None
    #: Of all the live workers, in percent.
    share: int = 0


def wave_of(connection: CredentialConnection, now: datetime) -> list[VersionInUse]:
    """The current version, the one before it, and all that a worker may still run with; the newest first.

    Two statements, however many starts there were.
    """
    current = connection.api_key_version
    found = {each.version: each for each in _in_use(connection, now)}
    for version in range(max(1, current - 1), current + 1):
        found.setdefault(version, VersionInUse(version, version == current))
    told, live = _told_by_the_trail(connection), sum(each.live for each in found.values())
    return [
        replace(found[version], share=round(100 * found[version].live / live) if live else 0, **told.get(version, {}))
        for version in sorted(found, reverse=True)[:MOST_VERSIONS]
    ]


def running_on(connection: CredentialConnection, version: int, now: datetime) -> Any:
    """The live processes that were given this version of the connection's API key."""
    return _processes(connection, now).filter(version=version, liveness__in=LIVE)


def _in_use(connection: CredentialConnection, now: datetime) -> list[VersionInUse]:
    is_live = Q(liveness__in=LIVE)
    counted = (
        _processes(connection, now)
        .values_list("version")
        .annotate(
            live=Count("worker", filter=is_live, distinct=True),
            offline=Count("worker", filter=Q(liveness=Liveness.OFFLINE)),
            last_started_at=Max("started_at", filter=is_live),
        )
    )
    return [
        VersionInUse(
            version, version == connection.api_key_version, live=live, offline=offline, last_started_at=last_started_at
        )
        for version, live, offline, last_started_at in counted
        if version  # a server that takes no key has version 0
    ]


def _processes(connection: CredentialConnection, now: datetime) -> Any:
    """Whatever runs or may come back: each worker's latest process, and live older ones.

    Each with the `version` that it was given of the connection's API key, None if it was given another connection.
    """
    # An instance's id is its start's. A subquery, since PostgreSQL expects a single row of a join by both ids.
    start = WorkerStart.objects.filter(**{"pk": OuterRef("pk"), f"{connection.POINTER}_id": connection.pk}).order_by()
    processes = WorkerInstance.objects.current_or_live(now, organization=connection.organization_id, stopped_at=None)
    return processes.annotate(version=Subquery(start.values(version_column(connection))[:1])).order_by()


def _told_by_the_trail(connection: CredentialConnection) -> dict[int, dict[str, Any]]:
    """When each version was set and its fingerprint; the trail may not know it, of the current one the row does."""
    trail = AuditEvent.objects.filter(object_id=str(connection.pk), organization=connection.organization_id)
    latest = trail.order_by("-occurred_at").values_list("occurred_at", "changes")[:MOST_EVENTS]
    setting = [(at, changes) for at, changes in latest if "api_key_version" in changes]
    told = {connection.api_key_version: _setting(connection.api_key_set_at, connection.api_key_fingerprint)}
    for at, changes in setting[:MOST_VERSIONS]:
        _, fingerprint = changes.get("api_key_fingerprint", (None, None))
        told.setdefault(changes["api_key_version"][1], _setting(at, fingerprint))
    return told


def _setting(at: datetime | None, fingerprint: str | None) -> dict[str, Any]:
    return {"set_at": at, "fingerprint": fingerprint or ""}
