"""How API keys are used: by which workers, from where, and which credentials were fetched with them.

A key's history is told from its latest starts, which an index finds however many there were; who would be cut off is
told from the processes that run now, since those outlive any number of later starts.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import batched
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Count, Max, OuterRef, QuerySet, Subquery

from environments.models import AuditEvent
from environments.models.connections import CREDENTIAL_KINDS
from workers.models import ApiKey, Refusal, Worker, WorkerInstance, WorkerStart
from workers.models.starts import version_column

#: Of how many of its latest starts a key's use is told.
LATEST_STARTS = 1_000
#: How many workers, addresses or credentials are shown.
MOST_SHOWN = 50
LATEST_EVENTS = 20


@dataclass(frozen=True)
class Shown[Row]:
    """The first rows of what there is."""

    rows: list[Row]
    count: int

    @property
    def more(self) -> int:
        """How many are left out."""
        return self.count - len(self.rows)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Shown[Row]":
        """The first MOST_SHOWN of the rows."""
        found = list(rows)
        return cls(found[:MOST_SHOWN], len(found))


@dataclass
class WorkerUse:
    """A worker that was started with the key; `worker` is None when it has been removed."""

    worker_id: UUID
    name: str
    last_at: datetime
    count: int = 0
    worker: Worker | None = None


@dataclass
class AddressUse:
    """An address that starts came from; None where it is unknown."""

    address: str | None
    last_at: datetime
    count: int = 0


class Credential(NamedTuple):
    """One version of one connection's API key."""

    #: The `_meta` of the connection's model.
    kind: Any
    connection_id: UUID
    version: int


@dataclass
class CredentialUse:
    """A credential that was given with the key; `connection` is None when it has been removed."""

    credential: Credential
    last_at: datetime
    count: int = 0
    connection: Any = None

    @property
    def is_current(self) -> bool:
        """Whether the connection still has this version of its API key."""
        return self.connection is not None and self.connection.api_key_version == self.credential.version


@dataclass(frozen=True)
class Reach:
    """The workers that run with a key now, which are cut off when it ends, and the first of their processes."""

    processes: list[WorkerInstance]
    workers: int
    last_heartbeat_at: datetime | None = None


@dataclass(frozen=True)
class History:
    """What a key's latest starts tell."""

    starts: int
    is_cut: bool
    last_start_at: datetime | None
    workers: Shown[WorkerUse]
    addresses: Shown[AddressUse]
    credentials: Shown[CredentialUse]


def reach_of(key: ApiKey, now: datetime) -> Reach:
    """The workers that run with the key; two or three statements.

    Where there are more processes than are shown, any of them are: to put all in order would take longest.
    """
    own = WorkerInstance.objects.filter(api_key_id=key.pk, organization=key.organization_id).order_by()
    live = own.live(now)
    rows = list(live.select_related("worker")[: MOST_SHOWN + 1])
    count = len({row.worker_id for row in rows})
    if len(rows) > MOST_SHOWN:
        count = live.aggregate(found=Count("worker", distinct=True))["found"]
    last = own.filter(is_current=True).aggregate(found=Max("last_heartbeat_at"))["found"]
    shown = sorted(rows[:MOST_SHOWN], key=lambda row: row.last_heartbeat_at, reverse=True)
    return Reach(shown, count, last)


def live_workers(key_ids: Collection[UUID], now: datetime) -> dict[UUID, int]:
    """How many workers run with each of the keys; one statement."""
    live = WorkerInstance.objects.live(now).filter(api_key_id__in=key_ids).order_by()
    return dict(live.values_list("api_key_id").annotate(Count("worker", distinct=True)))


def still_used(keys: QuerySet[ApiKey], now: datetime) -> QuerySet[ApiKey]:
    """Of keys those that a running worker uses."""
    live = WorkerInstance.objects.live(now).filter(api_key_id__in=keys.order_by().values("pk"))
    return keys.filter(pk__in=live.order_by().values("api_key_id"))


def last_used(key_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """When each of the keys was last seen, at a start, a heartbeat or a change; three statements.

    Those never used are left out. Of a key that only reads nothing is noted.
    """
    own = WorkerStart.objects.owned_by(OuterRef("organization")).filter(api_key=OuterRef("pk"))
    starts = own.order_by("-started_at").values("started_at")[:1]
    started = ApiKey.objects.filter(pk__in=key_ids).order_by().values_list("pk", Subquery(starts))
    current = WorkerInstance.objects.filter(api_key_id__in=key_ids, is_current=True).order_by()
    beaten = dict(current.values_list("api_key_id").annotate(Max("last_heartbeat_at")))
    changed = last_changes(key_ids)
    found = {
        key_id: [time for time in (start, beaten.get(key_id), changed.get(key_id)) if time] for key_id, start in started
    }
    return {key_id: max(times) for key_id, times in found.items() if times}


def last_changes(key_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """When something was last changed with each of the keys, as managers' keys may; one statement."""
    actors = {f"key:{key_id}": key_id for key_id in key_ids}
    changes = AuditEvent.objects.filter(actor__in=actors).order_by().values_list("actor").annotate(Max("occurred_at"))
    return {actors[actor]: at for actor, at in changes}


def history_of(key: ApiKey, now: datetime) -> History:
    """What the key's latest starts tell; four statements."""
    ledger = WorkerStart.objects.owned_by(key.organization_id).filter(api_key=key.pk).order_by("-started_at")
    columns = ("started_at", "worker_id", "worker_name", "client_address")
    credentials = [name for kind in CREDENTIAL_KINDS for name in (f"{kind.POINTER}_id", version_column(kind))]
    starts = list(ledger.values_list(*columns, *credentials)[: LATEST_STARTS + 1])
    told = starts[:LATEST_STARTS]
    return History(
        starts=len(told),
        is_cut=len(starts) > LATEST_STARTS,
        last_start_at=told[0][0] if told else None,
        workers=_workers(told, key.organization_id, now),
        addresses=_addresses(told),
        credentials=_credentials(told, key.organization_id),
    )


def refusal_of(key: ApiKey) -> tuple[Refusal | None, Worker | None]:
    """The key's last refused start, and the worker that it was for if its organization has that; two statements."""
    refusal = Refusal.objects.filter(pk=key.pk).first()
    if refusal is None or refusal.worker_id is None:
        return refusal, None
    return refusal, Worker.objects.filter(pk=refusal.worker_id, organization=key.organization_id).first()


def events_of(key: ApiKey) -> list[AuditEvent]:
    """The latest audit events of the key."""
    events = AuditEvent.objects.filter(object_id=str(key.pk), organization=key.organization_id)
    return list(events.order_by("-occurred_at")[:LATEST_EVENTS])


def _workers(starts: list[tuple[Any, ...]], organization_id: str, now: datetime) -> Shown[WorkerUse]:
    """With the workers that are there still: an id of the ledger may be another organization's by now."""
    found: dict[UUID, WorkerUse] = {}
    for started_at, worker_id, name, *_ in starts:
        found.setdefault(worker_id, WorkerUse(worker_id, name, started_at)).count += 1
    shown = Shown.of(found.values())
    own = Worker.objects.with_liveness(now).filter(organization=organization_id)
    rows = own.in_bulk([use.worker_id for use in shown.rows]) if shown.rows else {}
    for use in shown.rows:
        use.worker = rows.get(use.worker_id)
    return shown


def _addresses(starts: list[tuple[Any, ...]]) -> Shown[AddressUse]:
    found: dict[str | None, AddressUse] = {}
    for started_at, _, _, address, *_ in starts:
        found.setdefault(address, AddressUse(address, started_at)).count += 1
    return Shown.of(found.values())


def _credentials(starts: list[tuple[Any, ...]], organization_id: str) -> Shown[CredentialUse]:
    """With the connections that are there still, as above."""
    found: dict[Credential, CredentialUse] = {}
    for started_at, _, _, _, *given in starts:
        for kind, (connection_id, version) in zip(CREDENTIAL_KINDS, batched(given, 2), strict=True):
            credential = Credential(kind._meta, connection_id, version)
            if version:  # a server that takes no key has version 0
                found.setdefault(credential, CredentialUse(credential, started_at)).count += 1
    shown = Shown.of(found.values())
    for kind in CREDENTIAL_KINDS:
        ids = {use.credential.connection_id for use in shown.rows if use.credential.kind == kind._meta}
        rows = kind.objects.filter(organization=organization_id).in_bulk(ids) if ids else {}
        for use in shown.rows:
            if use.credential.kind == kind._meta:
                use.connection = rows.get(use.credential.connection_id)
    return shown
