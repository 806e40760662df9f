"""What is refused since somebody decided so: starts of what is disabled or draining, heartbeats of what is disabled."""

from datetime import datetime

from workers.models import State, Worker, WorkerQueue

SENTENCES: dict[tuple[type[Worker | WorkerQueue], State], str] = {
    (Worker, State.DISABLED): "This worker is disabled.",
    (Worker, State.DRAINING): "This worker is draining: it does not start again.",
    (WorkerQueue, State.DISABLED): "This worker's queue is disabled.",
    (WorkerQueue, State.DRAINING): "This worker's queue is draining: nothing new starts.",
}


def refusal_of(row: Worker | WorkerQueue, now: datetime, *states: State) -> str:
    """Why it refuses now, until when, in sentences; "" unless it is in one of the states."""
    state = row.state_at(now)
    return f"{SENTENCES[type(row), state]}{row.why}" if state in states else ""


def refusal_of_start(worker: Worker, now: datetime) -> str:
    """Why a start of the worker is refused now, as far as somebody decided so; its queue has to be loaded."""
    found = refusal_of(worker, now, State.DISABLED) or refusal_of(worker.queue, now, State.DISABLED, State.DRAINING)
    return found or refusal_of(worker, now, State.DRAINING)
