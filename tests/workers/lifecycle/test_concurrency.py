"""Fifty workers that start and heartbeat at once: no error, no lost update, and counts that agree."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.models import LIVE, InstanceReport, Refusal, RefusedStart, Worker, WorkerInstance, WorkerStart

pytestmark = pytest.mark.sqlite

WORKERS, THREADS, ROUNDS = 50, 16, 4
LINES = 2


@dataclass
class Process:
    """One worker's process, as it acts from its own thread, and what it was answered."""

    fleet: Fleet
    worker: Worker
    number: int
    statuses: list[int] = field(default_factory=list)

    @property
    def system_info(self) -> dict[str, Any]:
        return {"hostname": f"host-{self.number}", "pid": self.number}

    def start(self, client: Client) -> None:
        body = {"system_info": self.system_info}
        self.statuses.append(start(self.fleet, body, worker_id=self.worker.pk, client=client).status_code)

    def heartbeat(self, client: Client, count: int, *, is_full: bool) -> None:
        body: dict[str, Any] = {"status": "busy", "tasks_processed": count, "worker_metadata": {}}
        if is_full:
            body |= {"system_info": {**self.system_info, "count": count}, "logs": [f"{count}"] * LINES}
        response = client.generic(
            "POST",
            f"/api/v1/workers/{self.worker.pk}/heartbeat",
            json.dumps(body).encode(),
            "application/json",
            HTTP_AUTHORIZATION=f"Bearer {self.fleet.token}",
        )
        self.statuses.append(response.status_code)

    def live(self) -> None:
        """Starts, beats lightly and fully in turns, restarts in the middle, and goes on beating."""
        client = Client(raise_request_exception=False)
        try:
            for generation in range(2):
                self.start(client)
                for turn in range(ROUNDS):
                    self.heartbeat(client, 100 * generation + turn, is_full=turn % 2 == 0)
        finally:
            connection.close()


@pytest.fixture
def processes(transactional_db: None) -> list[Process]:
    fleet = fresh_fleet()
    fleet.token = factories.issue_token(fleet.queue)
    workers = [fleet.worker]
    workers += [factories.create_worker(fleet.queue, f"w-{number}") for number in range(1, WORKERS)]
    return [Process(fleet, worker, number) for number, worker in enumerate(workers)]


def test_fifty_workers_start_and_heartbeat_at_once_without_an_error_or_a_lost_update(processes: list[Process]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(Process.live, processes))

    assert [process.statuses for process in processes] == [[200, *[204] * ROUNDS] * 2] * WORKERS
    assert WorkerStart.objects.count() == WorkerInstance.objects.count() == 2 * WORKERS
    current = {row.worker_id: row for row in WorkerInstance.objects.filter(is_current=True).select_related("report")}
    assert WorkerInstance.objects.filter(is_current=True).count() == len(current) == WORKERS
    for process in processes:
        row = current[process.worker.pk]
        assert (row.tasks_processed, row.hostname) == (100 + ROUNDS - 1, f"host-{process.number}")
        assert row.report.system_info["count"] == 100 + ROUNDS - 2
        assert row.report.logs == [f"{100 + turn}" for turn in range(0, ROUNDS, 2) for _ in range(LINES)]
    assert InstanceReport.objects.count() == 2 * WORKERS
    assert_counts_agree()


def test_starts_and_heartbeats_of_the_same_workers_at_once_lose_nothing(processes: list[Process]) -> None:
    """Several threads speak for one worker, so that its start meets its heartbeats and other starts."""
    few = processes[:4]
    for process in few:
        process.start(Client(raise_request_exception=False))

    def act(number: int) -> None:
        client = Client(raise_request_exception=False)
        process = few[number % len(few)]
        try:
            for turn in range(ROUNDS):
                if number < THREADS // 2:
                    process.start(client)
                else:
                    process.heartbeat(client, 7, is_full=turn % 2 == 0)
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(act, range(THREADS)))

    statuses = [status for process in few for status in process.statuses]
    assert set(statuses) == {200, 204}
    assert WorkerStart.objects.count() == WorkerInstance.objects.count() == statuses.count(200)
    assert WorkerInstance.objects.filter(is_current=True).count() == len(few)
    assert_counts_agree()


def assert_counts_agree() -> None:
    now = timezone.now()
    live = WorkerInstance.objects.live(now)
    workers = Worker.objects.with_liveness(now).filter(liveness__in=LIVE)
    assert (
        workers.count()
        == live.filter(is_current=True).count()
        == WorkerInstance.objects.filter(is_current=True).count()
    )
    assert live.count() == WorkerInstance.objects.filter(stopped_at=None).count()


@pytest.mark.django_db(transaction=True)
def test_first_refusals_of_one_key_at_once_are_each_told_and_kept() -> None:
    """With a second unique key two of them waited for each other until PostgreSQL ended one, after its second."""
    client = Client(raise_request_exception=False)

    def refused(fleet: Fleet) -> int:
        try:
            return int(start(fleet, b"{", client=client).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        for number in range(1, 31):
            assert list(pool.map(refused, [fresh_fleet()] * 8)) == [422] * 8
            assert Refusal.objects.count() == RefusedStart.objects.count() == number
