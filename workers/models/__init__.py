"""Worker queues, workers, their running instances, the ledger of starts, API keys, and what is told of all that."""

from workers.models.api_keys import ApiKey, KeyRole, Refusal, RefusedStart, Scope
from workers.models.instances import Activity, InstanceReport, WorkerInstance
from workers.models.kept_answers import KeptAnswer
from workers.models.liveness import LIVE, Liveness, Outage, Pulse
from workers.models.notifications import Event, Incident, Lookout, NotificationDelivery, NotificationTarget, TargetKind
from workers.models.observations import ProcessObservation, QueueObservation, Sweep, Turn
from workers.models.queues import DuplicatePolicy, UpdateLock, WorkerQueue
from workers.models.starts import WorkerStart
from workers.models.states import State
from workers.models.work import Work
from workers.models.workers import Worker

__all__ = [
    "LIVE",
    "Activity",
    "ApiKey",
    "DuplicatePolicy",
    "Event",
    "Incident",
    "InstanceReport",
    "KeptAnswer",
    "KeyRole",
    "Liveness",
    "Lookout",
    "NotificationDelivery",
    "NotificationTarget",
    "Outage",
    "ProcessObservation",
    "Pulse",
    "QueueObservation",
    "Refusal",
    "RefusedStart",
    "Scope",
    "State",
    "Sweep",
    "TargetKind",
    "Turn",
    "UpdateLock",
    "Work",
    "Worker",
    "WorkerInstance",
    "WorkerQueue",
    "WorkerStart",
]
