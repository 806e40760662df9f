"""Asks Temporal whether a worker's process polls its task queue."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice

from environments.encryption import CannotOpenError
from environments.models import TemporalConnection
from environments.sealing import open_api_key
from environments.verification import ConnectionProblemError
from workers.asking import WATCHING, AnotherAsksError, AskedTooOftenError
from workers.boot.steps import State, Step
from workers.configuration import sections_of
from workers.models import Worker, WorkerInstance

#: Seconds for which an answer stands, so that however many look at whichever worker of a queue, Temporal is asked once.
ANSWER_STANDS = 5
#: Longer, since an attempt that fails may take three seconds of a thread of ours; and for all queues of the connection.
PROBLEM_STANDS = 15
#: What is remembered at most: answers, and of each of them pollers.
MOST_ANSWERS, MOST_POLLERS = 100, 2_000
ASKING = "Temporal is being asked."


@dataclass(frozen=True)
class Answer:
    """Who polls a task queue, or why that cannot be seen; it stands until a moment of the monotonic clock."""

    until: float
    identities: frozenset[str] = frozenset()
    problem: str = ""


class Answers:
    """The latest answers of this process, by what was asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[str, ...], Answer] = OrderedDict()

    def get(self, *places: tuple[str, ...]) -> Answer | None:
        """The first of the places' answers that still stands."""
        with self._lock:
            found = [answer for place in places if (answer := self._answers.get(place))]
        return next((answer for answer in found if answer.until > time.monotonic()), None)

    def keep(self, place: tuple[str, ...], answer: Answer) -> None:
        """In the place of the oldest, once there are many."""
        with self._lock:
            self._answers[place] = answer
            self._answers.move_to_end(place)
            while len(self._answers) > MOST_ANSWERS:
                self._answers.popitem(last=False)

    def forget(self) -> None:
        """As when all of them no longer stand."""
        with self._lock:
            self._answers.clear()


answers = Answers()


def polling_of(worker: Worker, instance: WorkerInstance, *, person: str) -> Step:
    """The last step of a boot, for a worker loaded with its chain and a process of it that lives.

    Where Temporal has to be asked for it and cannot be now, the step waits: whoever watches it asks again.
    """
    connection = sections_of(worker).temporal.row
    if connection is None:
        return _step(State.UNKNOWN, "The configuration has no Temporal connection any more.")
    # An edited connection is another one, of which nothing is known yet.
    endpoint = (str(connection.pk), connection.endpoint_revision)
    queue = (*endpoint, worker.queue.task_queue_name)
    answer = answers.get(queue, endpoint)
    if answer is None:
        try:
            with WATCHING.of(person):
                answer = _ask(connection, worker)
                answers.keep(endpoint if answer.problem else queue, answer)
        except AnotherAsksError:
            return _step(State.WAITING, ASKING)
        except AskedTooOftenError as error:
            return _step(State.WAITING, str(error))
    if answer.problem:
        return _step(State.UNKNOWN, answer.problem)
    return _judge(answer.identities, worker.queue.task_queue_name, instance)


def _ask(connection: TemporalConnection, worker: Worker) -> Answer:
    from environments.verification.temporal import pollers_of  # noqa: PLC0415  # loads Temporal's client

    problem, identities = "", frozenset[str]()
    try:
        secret = open_api_key(connection, data_key=getattr(worker.organization, "active_data_key", None))
        pollers = pollers_of(connection, secret, worker.queue.task_queue_name)
        identities = frozenset(islice((poller.identity for poller in pollers), MOST_POLLERS))
    except ConnectionProblemError as error:
        problem = f"Not to be seen from the control plane: {error}"
    except CannotOpenError:
        problem = "The API key of the Temporal connection cannot be opened at the moment."
    return Answer(time.monotonic() + (PROBLEM_STANDS if problem else ANSWER_STANDS), identities, problem)


def _judge(identities: frozenset[str], task_queue_name: str, instance: WorkerInstance) -> Step:
    """Whether the process is among the pollers, whose names are process id and host unless they choose others."""
    if not identities:
        return _step(State.WAITING, f"Nobody polls {task_queue_name} yet.")
    if instance.hostname and f"{instance.pid}@{instance.hostname}" in identities:
        return _step(State.DONE, f"This process polls {task_queue_name}.")
    count = f"{len(identities)} process polls" if len(identities) == 1 else f"{len(identities)} processes poll"
    return _step(State.UNKNOWN, f"{count} {task_queue_name}; whether this one does, their names do not tell.")


def _step(state: State, text: str) -> Step:
    return Step("polling", state, text)
