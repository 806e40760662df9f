"""How many workers a queue takes at a time: by queue start and by id, one after the other and at once."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http import HTTPStatus
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.support import factories
from tests.support.calls import assert_error_shape, fresh_fleet, shared_client, start
from tests.support.documents import everything
from tests.support.factories import Fleet
from workers.models import Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite

STARTS, PLACES = 20, 5


@pytest.fixture
def fleet(db: None) -> Fleet:
    """A fleet whose key is for the queue."""
    return with_queue_key(fresh_fleet())


@pytest.fixture
def committed_fleet(transactional_db: None) -> Fleet:
    return with_queue_key(fresh_fleet())


def with_queue_key(fleet: Fleet) -> Fleet:
    fleet.token = factories.issue_token(fleet.queue)
    return fleet


def queue_start(fleet: Fleet, system_info: Any = None, *, queue_id: Any = None, client: Client | None = None) -> Any:
    body = {"worker_sdk_version": "1.0.2", "system_info": system_info or {}, "control_plane_url": "http://127.0.0.1"}
    return (client or shared_client()).generic(
        "POST",
        f"/api/v1/worker-queues/{queue_id or fleet.queue.pk}/start",
        json.dumps(body).encode(),
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {fleet.token}",
    )


def started(fleet: Fleet, **options: Any) -> str:
    """The id of a worker that a queue start has made."""
    response = queue_start(fleet, **options)
    assert response.status_code == 200, response.content[:500]
    return str(response.json()["worker_id"])


def disconnect(fleet: Fleet, worker_id: Any) -> None:
    path = f"/api/v1/workers/{worker_id}/disconnect"
    authorization = f"Bearer {fleet.token}"
    response = shared_client().generic("POST", path, b"{}", "application/json", HTTP_AUTHORIZATION=authorization)
    assert response.status_code == 204


def limit(places: int | None) -> None:
    WorkerQueue.objects.update(max_workers=places)


def fall_silent(worker_id: Any, **period: float) -> None:
    last = timezone.now() - timedelta(**period)
    WorkerInstance.objects.filter(worker=worker_id).update(last_heartbeat_at=last)


def live_count() -> int:
    return WorkerInstance.objects.live(timezone.now()).count()


def assert_refused(response: Any, status: int = 409) -> None:
    assert response.status_code == status, response.content[:500]
    assert_error_shape(response)


# --- At once -------------------------------------------------------------------------------------------------------------


def at_once(count: int, call: Any) -> list[int]:
    """The statuses of that many calls from threads with connections of their own.

    On SQLite they come again after a 503 as workers do: on a busy machine the last waits for its one lock too long.
    """
    barrier = Barrier(count)
    clients = [Client(raise_request_exception=False) for _ in range(count)]

    def run(number: int) -> int:
        try:
            barrier.wait(30)
            times = 5 if connection.vendor == "sqlite" else 1
            answers = (int(call(number, clients[number]).status_code) for _ in range(times))
            return next((status for status in answers if status != HTTPStatus.SERVICE_UNAVAILABLE), 503)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_twenty_starts_at_five_free_places_give_exactly_five(committed_fleet: Fleet) -> None:
    fleet = committed_fleet
    limit(PLACES)
    statuses = at_once(STARTS, lambda number, client: queue_start(fleet, {"pid": number}, client=client))
    assert Counter(statuses) == {200: PLACES, 409: STARTS - PLACES}
    assert live_count() == PLACES
    assert WorkerStart.objects.count() == WorkerInstance.objects.count() == PLACES
    assert Worker.objects.filter(is_ephemeral=True).count() == PLACES


def test_starts_of_both_kinds_at_once_share_the_free_places(committed_fleet: Fleet) -> None:
    fleet = committed_fleet
    limit(PLACES)
    workers = [factories.create_worker(fleet.queue, f"w-{number}") for number in range(STARTS // 2)]

    def call(number: int, client: Client) -> Any:
        if number % 2:
            return queue_start(fleet, client=client)
        return start(fleet, worker_id=workers[number // 2].pk, client=client)

    assert Counter(at_once(STARTS, call)) == {200: PLACES, 409: STARTS - PLACES}
    assert live_count() == WorkerStart.objects.count() == PLACES


def test_twenty_starts_at_once_without_a_limit_all_succeed(committed_fleet: Fleet) -> None:
    statuses = at_once(STARTS, lambda _number, client: queue_start(committed_fleet, client=client))
    assert Counter(statuses) == {200: STARTS}
    assert len(set(Worker.objects.values_list("name", flat=True))) == STARTS + 1
    assert live_count() == STARTS


# --- One after the other -------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_and_records_nothing(fleet: Fleet) -> None:
    limit(2)
    started(fleet)
    started(fleet)
    before = everything()
    assert_refused(queue_start(fleet))
    assert_refused(start(fleet))
    assert everything() == before


def test_a_worker_that_says_goodbye_frees_its_place(fleet: Fleet) -> None:
    limit(1)
    first = started(fleet)
    assert_refused(queue_start(fleet))
    disconnect(fleet, first)
    started(fleet)


def test_a_worker_that_went_offline_frees_its_place_and_a_late_one_does_not(fleet: Fleet) -> None:
    limit(1)
    first = started(fleet)
    fall_silent(first, seconds=170)
    assert_refused(queue_start(fleet))
    fall_silent(first, seconds=185)
    started(fleet)


def test_a_worker_may_restart_in_a_full_queue_while_others_may_not(fleet: Fleet) -> None:
    limit(2)
    assert start(fleet, {"system_info": {"hostname": "a", "pid": 1}}).status_code == 200
    started(fleet)
    other = factories.create_worker(fleet.queue, "other")
    for pid in (1, 1, 2):
        assert start(fleet, {"system_info": {"hostname": "a", "pid": pid}}).status_code == 200
        assert_refused(start(fleet, worker_id=other.pk))
        assert_refused(queue_start(fleet))


def test_all_workers_of_a_full_queue_may_restart_one_after_the_other(fleet: Fleet) -> None:
    """Killed and started again, each is a new process while the old one still counts as live for a while."""
    limit(2)
    workers = [fleet.worker, factories.create_worker(fleet.queue, "other")]
    for generation in range(2):
        for worker in workers:
            info = {"hostname": worker.name, "pid": generation}
            assert start(fleet, {"system_info": info}, worker_id=worker.pk).status_code == 200
    assert_refused(queue_start(fleet))


def test_each_of_two_live_processes_of_one_worker_takes_a_place(fleet: Fleet) -> None:
    limit(2)
    assert start(fleet).status_code == 200
    assert start(fleet).status_code == 200
    assert live_count() == 2
    assert_refused(queue_start(fleet))


def test_another_queues_workers_take_no_place_here(fleet: Fleet) -> None:
    limit(1)
    elsewhere = factories.create_queue(fleet.environment, "elsewhere")
    fleet.token = factories.issue_token(fleet.organization)
    started(fleet, queue_id=elsewhere.pk)
    started(fleet, queue_id=elsewhere.pk)
    started(fleet)
    assert_refused(queue_start(fleet))


def test_a_raised_or_lifted_limit_counts_at_once(fleet: Fleet) -> None:
    limit(1)
    started(fleet)
    assert_refused(queue_start(fleet))
    limit(2)
    started(fleet)
    assert_refused(queue_start(fleet))
    limit(None)
    started(fleet)


def test_a_lowered_limit_ends_nobody_and_lets_nobody_in(fleet: Fleet) -> None:
    for _ in range(3):
        started(fleet)
    limit(1)
    assert live_count() == 3
    assert_refused(queue_start(fleet))


# --- Draining and disabled -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["is_draining", "is_disabled"])
def test_a_draining_or_disabled_queue_refuses_and_records_nothing(fleet: Fleet, state: str) -> None:
    WorkerQueue.objects.update(**{state: True})
    before = everything()
    assert_refused(queue_start(fleet))
    assert_refused(start(fleet))
    assert everything() == before
    WorkerQueue.objects.update(**{state: False})
    started(fleet)


def test_an_incomplete_configuration_refuses_and_records_nothing(fleet: Fleet) -> None:
    factories.point(fleet.organization, litellm_connection=None)
    before = everything()
    assert_refused(queue_start(fleet))
    assert everything() == before


def test_a_draining_worker_refuses_to_start_and_the_others_of_its_queue_do_not(fleet: Fleet) -> None:
    Worker.objects.update(is_draining=True)
    before = everything()
    assert_refused(start(fleet))
    assert everything() == before
    started(fleet)
