"""Which task queues are asked about, by which connection: the one that wins for the queue, or a worker's own."""

from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import F, Q

from environments.connections.levels import winning
from environments.models import TemporalConnection
from workers.models import QueueObservation, Worker, WorkerQueue

POINTER = "temporal_connection"
#: A queue's own levels, the narrowest first.
OF_QUEUE = ("", "environment__", "organization__")


@dataclass(frozen=True)
class AskedQueue:
    """A queue that is asked about by one connection."""

    id: UUID
    #: Its name on Temporal.
    name: str
    #: Whether the connection is not the queue's, but that of some of its workers.
    is_own: bool = False


@dataclass
class Target:
    """A connection with all that is asked of it in one pass."""

    connection: TemporalConnection
    queues: list[AskedQueue] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        """Changes with the connection: an edited one is another one, of which nothing is known yet."""
        return str(self.connection.pk), self.connection.endpoint_revision


def find_targets() -> list[Target]:
    """All of them; the queues that were not answered for the longest come first. Four statements."""
    asked = _of_queues()
    for connection_id, queue in _own():
        if queue.id not in {each.id for each in asked.get(connection_id, ())}:
            asked[connection_id].append(queue)
    rows = TemporalConnection.objects.select_related("organization__active_data_key").in_bulk(list(asked))
    return [Target(rows[pk], queues) for pk, queues in asked.items() if pk in rows]


def _of_queues() -> dict[UUID, list[AskedQueue]]:
    found: dict[UUID, list[AskedQueue]] = defaultdict(list)
    queues = WorkerQueue.objects.annotate(asked=winning(POINTER, OF_QUEUE)).filter(asked__isnull=False)
    order = F("observation__observed_at").asc(nulls_first=True)
    columns = ("asked", "pk", "organization_id", "environment__name", "name")
    for connection_id, pk, *names in queues.order_by(order, "pk").values_list(*columns):
        found[connection_id].append(AskedQueue(pk, ".".join(names)))
    return found


def _own() -> list[tuple[UUID, AskedQueue]]:
    """The queues of workers that point to a connection themselves and have started."""
    workers = Worker.objects.filter(Q(instances__is_current=True), temporal_connection__isnull=False)
    columns = ("temporal_connection_id", "queue_id", "organization_id", "queue__environment__name", "queue__name")
    found = workers.order_by().values_list(*columns).distinct()
    return [(connection_id, AskedQueue(pk, ".".join(names), is_own=True)) for connection_id, pk, *names in found]


def forget_unasked(targets: list[Target]) -> None:
    """Removes what was seen of queues that no connection leads to any more."""
    asked = {queue.id for target in targets for queue in target.queues}
    gone = [pk for pk in QueueObservation.objects.order_by().values_list("pk", flat=True) if pk not in asked]
    if gone:
        QueueObservation.objects.filter(pk__in=gone).delete()
