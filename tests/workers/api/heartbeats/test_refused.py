"""Whose heartbeats are refused, and what a person's decision makes of them."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from tests.support import factories
from tests.support.calls import start, told_by
from tests.support.documents import everything
from tests.support.factories import Fleet
from tests.support.heartbeats import (
    FULL,
    LIGHT,
    assert_accepted,
    assert_refused,
    current,
    disconnect,
    heartbeat,
    post,
    simple,
)
from tests.support.shared_fleet import *  # noqa: F403  # the fixtures
from workers.models import Liveness, Worker, WorkerQueue

pytestmark = pytest.mark.sqlite


@pytest.mark.parametrize("call", [heartbeat, disconnect])
def test_a_foreign_worker_cannot_be_told_from_an_unknown_one(running: Fleet, call: Callable[..., Any]) -> None:
    foreign = factories.create_fleet()
    assert start(foreign).status_code == 200
    before = everything()
    answers = [call(running, worker_id=identifier) for identifier in (uuid4(), foreign.worker.pk, "nonsense")]
    Worker.objects.filter(pk=foreign.worker.pk).update(is_disabled=True)
    answers.append(call(running, worker_id=foreign.worker.pk))
    Worker.objects.filter(pk=foreign.worker.pk).update(is_disabled=False)
    assert {response.status_code for response in answers} == {404}
    assert len({told_by(response) for response in answers}) == 1
    assert everything() == before


def test_the_simple_form_knows_a_worker_only_in_its_environment(running: Fleet) -> None:
    foreign = factories.create_fleet()
    start(foreign)
    factories.create_environment(running.organization, "staging")
    token = factories.issue_token(running.organization)
    before = everything()
    bodies = [
        simple(running, "staging"),
        simple(running, "nowhere"),
        simple(running, f"{foreign.organization.id}.production"),
        simple(running, f"{running.organization.id}."),
        simple(running, "Production"),
        simple(running, worker_id=str(uuid4())),
        simple(running, worker_id="nonsense"),
        simple(running, worker_id=str(foreign.worker.pk)),
    ]
    answers = [post(running, "heartbeat", body, token=token) for body in bodies]
    assert {response.status_code for response in answers} == {404}
    assert len({response.content for response in answers}) == 1
    assert everything() == before


CALLS: dict[str, Callable[..., Any]] = {
    "heartbeat": heartbeat,
    "simple heartbeat": lambda fleet, **options: post(fleet, "heartbeat", simple(fleet), **options),
    "disconnect": disconnect,
}


@pytest.mark.parametrize("level", ["worker", "queue", "environment", "organization"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_key_of_any_level_above_the_worker_is_enough(running: Fleet, call: Callable[..., Any], level: str) -> None:
    assert_accepted(call(running, token=factories.issue_token(getattr(running, level))))


OTHERS: dict[str, Callable[[Fleet], Any]] = {
    "another worker": lambda fleet: factories.create_worker(fleet.queue, "sibling"),
    "another queue": lambda fleet: factories.create_queue(fleet.environment, "elsewhere"),
    "another environment": lambda fleet: factories.create_environment(fleet.organization, "staging"),
}


@pytest.mark.parametrize("target", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_key_for_something_else_is_403_and_changes_nothing(
    running: Fleet, call: Callable[..., Any], target: Callable[[Fleet], Any]
) -> None:
    token = factories.issue_token(target(running))
    before = everything()
    response = call(running, token=token)
    assert_refused(response, 403)
    assert response["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
    assert everything() == before


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_key_is_401(running: Fleet, call: Callable[..., Any]) -> None:
    before = everything()
    assert_refused(call(running, token="x.y.z"), 401)
    assert everything() == before


@pytest.mark.parametrize("model", [Worker, WorkerQueue])
@pytest.mark.parametrize("body", [LIGHT, FULL], ids=["light", "full"])
def test_a_disabled_worker_or_queue_is_409_and_its_process_still_shows(running: Fleet, body: bytes, model: Any) -> None:
    model.objects.update(is_disabled=True)
    before = timezone.now()
    response = heartbeat(running, body)
    assert_refused(response, 409)
    assert "disabled" in response.json()["detail"]
    assert current().last_heartbeat_at >= before
    assert current().liveness == Liveness.ONLINE


@pytest.mark.parametrize("model", [Worker, WorkerQueue])
def test_a_disabled_workers_simple_heartbeat_is_409(running: Fleet, model: Any) -> None:
    model.objects.update(is_disabled=True)
    assert_refused(post(running, "heartbeat", simple(running)), 409)
    assert current().liveness == Liveness.ONLINE


def test_an_enabled_worker_is_accepted_again(running: Fleet) -> None:
    Worker.objects.update(is_disabled=True)
    heartbeat(running)
    Worker.objects.update(is_disabled=False)
    assert_accepted(heartbeat(running))


@pytest.mark.parametrize("model", [Worker, WorkerQueue])
def test_a_draining_worker_keeps_heartbeating(running: Fleet, model: Any) -> None:
    model.objects.update(is_draining=True)
    assert_accepted(heartbeat(running, FULL))
    assert_accepted(post(running, "heartbeat", simple(running)))
    assert current().liveness == Liveness.ONLINE


@pytest.mark.parametrize("body", [LIGHT, FULL], ids=["light", "full"])
def test_a_worker_that_never_started_is_409(fleet: Fleet, body: bytes) -> None:
    before = everything()
    assert_refused(heartbeat(fleet, body), 409)
    assert_refused(post(fleet, "heartbeat", simple(fleet)), 409)
    assert everything() == before
