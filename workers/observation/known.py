"""Finds the processes that pollers may be."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import F, Q

from environments.connections.verification.looks import QueueLook
from workers.models import LIVE, WorkerInstance
from workers.models.instances import InstanceQuerySet
from workers.models.liveness import LONGEST_HOLD
from workers.observation.judging import KnownProcess
from workers.observation.targets import AskedQueue, Target

#: For so long after its end a process is known by its place.
KNOWN_FOR = timedelta(minutes=10)
#: Hosts named in one statement.
MOST_HOSTS = 500
COLUMNS = ("pk", "organization_id", "at_queue", "hostname", "pid", "liveness", "stopped_at")
OWN = "worker__temporal_connection_id"


def current_of(queues: Collection[AskedQueue], target: Target, now: datetime) -> dict[UUID, list[KnownProcess]]:
    """Each worker's current process, by queue; those are judged that ask the same Temporal. One statement."""
    rows = WorkerInstance.objects.filter(worker__queue__in=[queue.id for queue in queues], is_current=True)
    asked = {queue.id: queue for queue in queues}
    found: dict[UUID, list[KnownProcess]] = defaultdict(list)
    for *told, own in _told(rows, now, *COLUMNS, OWN):
        queue_id = told[2]
        found[queue_id].append(_process(told, is_judged=_asks_here(asked[queue_id], own, target)))
    return found


def others_at(
    looks: Mapping[UUID, QueueLook], current: Mapping[UUID, list[KnownProcess]], target: Target, now: datetime
) -> list[KnownProcess]:
    """Further processes of the organization on the hosts of pollers that are no current process of their queue.

    They are those of other queues, those that a newer one has followed, and those that have ended lately. No statement
    where every poller is known.
    """
    hosts = sorted({host for queue_id, look in looks.items() for host in _unknown_hosts(look, current[queue_id])})
    asked = {queue.id: queue for queue in target.queues if queue.id in looks}
    found = []
    for first in range(0, len(hosts), MOST_HOSTS):
        rows = WorkerInstance.objects.filter(
            organization=target.connection.organization_id, hostname__in=hosts[first : first + MOST_HOSTS]
        )
        for part in (
            rows.filter(Q(is_current=True, stopped_at=None) & ~Q(hostname="")),
            rows.filter(stopped_at__gt=now - KNOWN_FOR),
        ):
            found += [_process(told, is_judged=False) for told in _told(part, now, *COLUMNS)]
        older = rows.filter(is_current=False, stopped_at=None, older_heartbeat_at__gte=now - LONGEST_HOLD)
        for *told, own in _told(older, now, *COLUMNS, OWN):
            is_older = told[2] in asked and _asks_here(asked[told[2]], own, target)
            found.append(_process(told, is_judged=False, is_older=is_older))
    return found


def _asks_here(queue: AskedQueue, own: UUID | None, target: Target) -> bool:
    """Whether a worker of the queue, with or without a connection of its own, is given this one."""
    return own == target.connection.pk if queue.is_own else own in {None, target.connection.pk}


def _unknown_hosts(look: QueueLook, current: Iterable[KnownProcess]) -> set[str]:
    places = {process.place for process in current}
    return {place.hostname for poller in look.pollers for place in poller.places if place not in places}


def _told(rows: InstanceQuerySet, now: datetime, *columns: str) -> Any:
    return rows.order_by().with_liveness(now).annotate(at_queue=F("worker__queue_id")).values_list(*columns).iterator()


def _process(told: Any, *, is_judged: bool, is_older: bool = False) -> KnownProcess:
    pk, organization_id, queue_id, hostname, pid, liveness, stopped_at = told
    is_live = liveness in LIVE
    told_of = {"stopped_at": stopped_at, "is_judged": is_judged, "is_older": is_older}
    return KnownProcess(pk, organization_id, queue_id, hostname, pid, is_live, **told_of)
