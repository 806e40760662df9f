"""Worker queues, workers, their running instances, the ledger of starts, and API keys."""

from workers.models.api_keys import ApiKey, Scope
from workers.models.instances import WorkerInstance
from workers.models.liveness import Liveness
from workers.models.queues import WorkerQueue
from workers.models.starts import WorkerStart
from workers.models.workers import Worker

__all__ = ["ApiKey", "Liveness", "Scope", "Worker", "WorkerInstance", "WorkerQueue", "WorkerStart"]
