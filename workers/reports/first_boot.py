"""The first boot of a worker: how far the latest attempt to start it has come, and why no further."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from itertools import islice
from typing import Self

from django.db.models import Q

from environments.connections.asking import WATCHING, AnotherAsksError, AskedTooOftenError
from environments.connections.verification import ConnectionProblemError
from environments.encryption import CannotOpenError
from environments.models import TemporalConnection
from environments.sealing.data_keys import open_api_key
from workers.configuration.effective import sections_of
from workers.lifecycle.refusals import latest_foreign_refusal_at, latest_refusal
from workers.models import LIVE, ApiKey, Liveness, Refusal, RefusedStart, Work, Worker, WorkerInstance
from workers.models.work import with_work

TITLES = {
    "key": "API key seen",
    "start": "Start answered",
    "heartbeat": "First heartbeat",
    "polling": "Polling Temporal",
}
#: Seconds for which an answer stands, so that however many look at whichever worker of a queue, Temporal is asked once.
ANSWER_STANDS = 5
#: Longer, since an attempt that fails may take three seconds of a thread of ours; and for all queues of the connection.
PROBLEM_STANDS = 15
#: What is remembered at most: answers, and of each of them pollers.
MOST_ANSWERS, MOST_POLLERS = 100, 2_000
ASKING = "Temporal is being asked."
#: From then on a last step of which nothing can be told is no reason to go on asking.
PATIENCE = timedelta(minutes=2)
UNSEEN = "No key that covers this worker has been used yet."
NOT_COVERED = "The API key's scope does not cover this worker."
FOREIGN_KEY = "A key of another organization was used."
SOMETHING_ELSE = "This worker's key was used to start something else: is the worker's id right?"
NOT_FOR = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})


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


def polling_of(worker: Worker, instance: WorkerInstance, now: datetime, *, person: str) -> Step:
    """The last step of a boot, for a worker loaded with its chain and a process of it that lives.

    Where Temporal has to be asked for it and cannot be now, the step waits: whoever watches it asks again.
    """
    if _was_seen_polling(instance, now):
        return _step(State.DONE, f"This process polls {worker.queue.task_queue_name}.")
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


def _was_seen_polling(instance: WorkerInstance, now: datetime) -> bool:
    """Whether the sweep has seen it of late, so that nobody has to be asked."""
    rows = WorkerInstance.objects.filter(pk=instance.pk).with_liveness(now)
    return with_work(rows, now).filter(Q(work=Work.WORKING)).exists()


def _ask(connection: TemporalConnection, worker: Worker) -> Answer:
    from environments.connections.verification.temporal import pollers_of  # noqa: PLC0415  # loads Temporal's client

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


@dataclass(frozen=True)
class Checklist:
    """The four steps of a boot, and whether nothing more is to be expected."""

    steps: tuple[Step, ...]
    is_final: bool = False

    @classmethod
    def of(cls, *reached: Step, is_final: bool = False) -> Self:
        """With the steps that were reached; the others wait for them."""
        return cls((*reached, *(Step(name) for name in list(TITLES)[len(reached) :])), is_final)


def checklist_of(worker: Worker, now: datetime, *, person: str) -> Checklist:
    """The steps of the latest attempt, which was answered or refused; the worker has to be loaded with its chain.

    Of another organization's attempt it is told only while no process of the worker lives. `person` is who looks.
    """
    instances = WorkerInstance.objects.with_liveness(now).filter(worker=worker.pk, is_current=True)
    instance = instances.first()
    started_at = instance.started_at if instance else worker.created_at
    refusal, foreign_at = latest_refusal(worker), latest_foreign_refusal_at(worker)
    refused_at = refusal.occurred_at if refusal else started_at
    if foreign_at and foreign_at > max(started_at, refused_at) and not (instance and instance.liveness in LIVE):
        return Checklist.of(Step("key", State.FAILED, FOREIGN_KEY, foreign_at))
    if refusal and refused_at > started_at:
        return _refused(worker, refusal)
    return _started(worker, instance, now, person) if instance else Checklist.of(Step("key", text=UNSEEN))


def _refused(worker: Worker, refusal: Refusal | RefusedStart) -> Checklist:
    key, at = refusal.api_key, refusal.occurred_at
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        return Checklist.of(Step("key", State.FAILED, refusal.reason, at, key, refusal.client_address))
    reason = refusal.reason
    if refusal.worker_id != worker.pk and refusal.status in NOT_FOR:
        reason = SOMETHING_ELSE
    elif not key.covers(worker):
        return Checklist.of(Step("key", State.FAILED, NOT_COVERED, at, key, refusal.client_address))
    start = Step("start", State.FAILED, reason, at, client_address=refusal.client_address)
    return Checklist.of(Step("key", State.DONE, at=at, api_key=key), start)


def _started(worker: Worker, instance: WorkerInstance, now: datetime, person: str) -> Checklist:
    key = Step("key", State.DONE, at=instance.started_at, api_key=_key_of(instance))
    start = Step(
        "start",
        State.DONE,
        at=instance.started_at,
        client_address=instance.client_address,
        revision=instance.configuration_revision,
    )
    heartbeat = _heartbeat_of(worker, instance)
    if heartbeat.state is not State.DONE:
        return Checklist.of(key, start, heartbeat)
    polling = _polling_of(worker, instance, now, person)
    is_told = polling.state is State.UNKNOWN and now - instance.started_at > PATIENCE
    is_polling = polling.state is State.DONE and not instance.stopped_at
    return Checklist.of(key, start, heartbeat, polling, is_final=is_polling or is_told)


def _key_of(instance: WorkerInstance) -> ApiKey | None:
    keys = ApiKey.objects.filter(organization=instance.organization_id)
    return keys.filter(pk=instance.api_key_id).first() if instance.api_key_id else None


def _heartbeat_of(worker: Worker, instance: WorkerInstance) -> Step:
    if instance.last_heartbeat_at > instance.started_at:
        return Step("heartbeat", State.DONE, at=instance.last_heartbeat_at)
    if instance.stopped_at:
        state = State.DONE if instance.has_ended_well else State.FAILED
        return Step("heartbeat", state, "The process ended before its first heartbeat.", instance.stopped_at)
    if instance.liveness == Liveness.OFFLINE:
        text = "None has come for so long that the process has ended, or does not reach the control plane any more."
        return Step("heartbeat", State.FAILED, text)
    return Step("heartbeat", text=f"One is expected every {worker.queue.heartbeat_interval} s.")


def _polling_of(worker: Worker, instance: WorkerInstance, now: datetime, person: str) -> Step:
    if instance.stopped_at and instance.has_ended_well:
        return Step("polling", State.DONE, "The process has ended, as it was meant to.", instance.stopped_at)
    if instance.stopped_at:
        return Step("polling", State.FAILED, "The process has ended.", instance.stopped_at)
    if instance.liveness == Liveness.OFFLINE:
        return Step("polling", State.FAILED, "The process has not been heard of since.", instance.last_heartbeat_at)
    return polling_of(worker, instance, now, person=person)
