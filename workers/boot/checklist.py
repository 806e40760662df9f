"""The first-boot checklist of a worker: how far the latest attempt to start it has come, and why no further."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Self

from workers.boot.polling import polling_of
from workers.boot.refusals import latest_foreign_refusal_at, latest_refusal
from workers.boot.steps import TITLES, State, Step
from workers.models import LIVE, ApiKey, Liveness, Refusal, Worker, WorkerInstance

#: From then on a last step of which nothing can be told is no reason to go on asking.
PATIENCE = timedelta(minutes=2)

UNSEEN = "No key that covers this worker has been used yet."
NOT_COVERED = "The API key's scope does not cover this worker."
FOREIGN_KEY = "A key of another organization was used."
SOMETHING_ELSE = "This worker's key was used to start something else: is the worker's id right?"
NOT_FOR = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})


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


def _refused(worker: Worker, refusal: Refusal) -> Checklist:
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
    polling = _polling_of(worker, instance, person)
    is_told = polling.state is State.UNKNOWN and now - instance.started_at > PATIENCE
    return Checklist.of(key, start, heartbeat, polling, is_final=polling.state is State.DONE or is_told)


def _key_of(instance: WorkerInstance) -> ApiKey | None:
    keys = ApiKey.objects.filter(organization=instance.organization_id)
    return keys.filter(pk=instance.api_key_id).first() if instance.api_key_id else None


def _heartbeat_of(worker: Worker, instance: WorkerInstance) -> Step:
    if instance.last_heartbeat_at > instance.started_at:
        return Step("heartbeat", State.DONE, at=instance.last_heartbeat_at)
    if instance.stopped_at:
        return Step("heartbeat", State.FAILED, "The process ended before its first heartbeat.", instance.stopped_at)
    if instance.liveness == Liveness.OFFLINE:
        text = "None has come for so long that the process has ended, or does not reach the control plane any more."
        return Step("heartbeat", State.FAILED, text)
    return Step("heartbeat", text=f"One is expected every {worker.queue.heartbeat_interval} s.")


def _polling_of(worker: Worker, instance: WorkerInstance, person: str) -> Step:
    if instance.stopped_at:
        return Step("polling", State.FAILED, "The process has ended.", instance.stopped_at)
    if instance.liveness == Liveness.OFFLINE:
        return Step("polling", State.FAILED, "The process has not been heard of since.", instance.last_heartbeat_at)
    return polling_of(worker, instance, person=person)
