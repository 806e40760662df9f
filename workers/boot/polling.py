"""Asks Temporal whether a worker's process polls its task queue."""

from django.core.cache import cache

from environments.encryption import CannotOpenError
from environments.sealing import open_api_key
from environments.verification import ConnectionProblemError
from workers.boot.steps import State, Step
from workers.configuration import sections_of
from workers.models import Worker, WorkerInstance

#: Seconds for which an answer stands, so that however many look, Temporal is asked once.
ANSWER_STANDS = 5
#: Longer, since an attempt that fails may take three seconds of a thread of ours.
PROBLEM_STANDS = 15
ASKING = "Temporal is being asked."


def polling_of(worker: Worker, instance: WorkerInstance) -> Step:
    """The last step of a boot, for a worker loaded with its chain and a process of it that lives."""
    place = f"polling:{instance.pk}"
    if cache.add(place, _step(State.WAITING, ASKING), ANSWER_STANDS):
        step = _ask(worker, instance)
        cache.set(place, step, PROBLEM_STANDS if step.state is State.UNKNOWN else ANSWER_STANDS)
        return step
    return cache.get(place) or _step(State.WAITING, ASKING)


def _ask(worker: Worker, instance: WorkerInstance) -> Step:
    from environments.verification.temporal import pollers_of  # noqa: PLC0415  # loads Temporal's client

    connection = sections_of(worker).temporal.row
    if connection is None:
        return _step(State.UNKNOWN, "The configuration has no Temporal connection any more.")
    try:
        secret = open_api_key(connection, data_key=getattr(worker.organization, "active_data_key", None))
        pollers = pollers_of(connection, secret, worker.queue.task_queue_name)
    except ConnectionProblemError as error:
        return _step(State.UNKNOWN, f"Not to be seen from the control plane: {error}")
    except CannotOpenError:
        return _step(State.UNKNOWN, "The API key of the Temporal connection cannot be opened at the moment.")
    return _judge({poller.identity for poller in pollers}, worker.queue.task_queue_name, instance)


def _judge(identities: set[str], task_queue_name: str, instance: WorkerInstance) -> Step:
    """Whether the process is among the pollers, whose names are process id and host unless they choose others."""
    if not identities:
        return _step(State.WAITING, f"Nobody polls {task_queue_name} yet.")
    if instance.hostname and f"{instance.pid}@{instance.hostname}" in identities:
        return _step(State.DONE, f"This process polls {task_queue_name}.")
    count = f"{len(identities)} process polls" if len(identities) == 1 else f"{len(identities)} processes poll"
    return _step(State.UNKNOWN, f"{count} {task_queue_name}; whether this one does, their names do not tell.")


def _step(state: State, text: str) -> Step:
    return Step("polling", state, text)
