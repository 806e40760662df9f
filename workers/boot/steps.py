"""One step of a worker's boot, and how far it has come."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from workers.models import ApiKey

TITLES = {
    "key": "API key seen",
    "start": "Start answered",
    "heartbeat": "First heartbeat",
    "polling": "Polling Temporal",
}


class State(StrEnum):
    """How far a step has come."""

    WAITING = "Waiting"
    DONE = "Done"
    FAILED = "Failed"
    UNKNOWN = "Cannot tell"


@dataclass(frozen=True)
class Step:
    """A step with what is to be said of it: texts of ours, never a worker's own."""

    name: str
    state: State = State.WAITING
    text: str = ""
    at: datetime | None = None
    api_key: ApiKey | None = None
    client_address: str | None = None
    revision: str = ""

    @property
    def title(self) -> str:
        return TITLES[self.name]
