"""Worker queues, workers, their running instances, the ledger of starts, and API keys."""

from workers.models.api_keys import ApiKey, KeyRole, Refusal, RefusedStart, Scope
from workers.models.instances import Activity, InstanceReport, WorkerInstance
from workers.models.kept_answers import KeptAnswer
from workers.models.liveness import LIVE, Liveness, Outage, Pulse
from workers.models.observations import ProcessObservation, QueueObservation, Sweep
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
    "InstanceReport",
    "KeptAnswer",
    "KeyRole",
    "Liveness",
    "Outage",
    "ProcessObservation",
    "Pulse",
    "QueueObservation",
    "Refusal",
    "RefusedStart",
    "Scope",
    "State",
    "Sweep",
    "UpdateLock",
    "Work",
    "Worker",
    "WorkerInstance",
    "WorkerQueue",
    "WorkerStart",
]
