"""What the console shows of running processes: liveness, duplicates, hosts, and our own recovery."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from tests.support import factories
from tests.support.calls import heartbeat, start
from tests.support.console import HOSTILE, person, signed_in
from tests.support.factories import Fleet
from workers.models import Liveness, Outage, Pulse, Worker, WorkerInstance

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def listed(client: Client, **query: str) -> list[str]:
    response = client.get(reverse("admin:workers_worker_changelist", query=query))
    assert response.status_code == 200
    return [row.name for row in response.context["cl"].result_list]


def page(client: Client, worker: Worker) -> str:
    response = client.get(reverse("admin:workers_worker_change", args=[worker.pk]))
    assert response.status_code == 200
    return response.content.decode()


def fall_silent(**silence: float) -> None:
    now = timezone.now()
    WorkerInstance.objects.update(last_heartbeat_at=now - timedelta(**silence), started_at=now - timedelta(days=2))


def test_the_filter_finds_each_worker_under_its_own_liveness_only(fleet: Fleet, client: Client) -> None:
    factories.create_worker(fleet.queue, "never")
    assert start(fleet).status_code == 200
    arranged = {Liveness.ONLINE: {}, Liveness.LATE: {"seconds": 100}, Liveness.OFFLINE: {"seconds": 200}}
    for liveness, silence in arranged.items():
        if silence:
            fall_silent(**silence)
        found = {each for each in Liveness if "worker-1" in listed(client, liveness=each)}
        assert found == {liveness}
    WorkerInstance.objects.update(stopped_at=timezone.now())
    assert listed(client, liveness="Stopped") == ["worker-1"]
    assert listed(client, liveness="Never started") == ["never"]
    assert listed(client, liveness="Nonsense") == []


def test_the_list_shows_host_and_liveness(fleet: Fleet, client: Client) -> None:
    start(fleet, {"system_info": {"hostname": "gpu-box-7"}})
    content = client.get(reverse("admin:workers_worker_changelist")).content.decode()
    assert "gpu-box-7" in content
    assert "Online" in content


def test_a_workers_page_shows_host_python_sdk_and_log_of_its_process(fleet: Fleet, client: Client) -> None:
    start(fleet)
    info = {"hostname": "gpu-box-7", "pid": 4711, "python_version": "3.12.7", "sdk_version": "1.0.2"}
    heartbeat(fleet, system_info=info, logs=["polling started"], current_task_id="wf-9")
    content = page(client, fleet.worker)
    for text in ("3.12.7", "1.0.2", "polling started", "wf-9"):
        assert text in content


def test_a_process_that_sent_no_full_heartbeat_is_shown_as_it_started(fleet: Fleet, client: Client) -> None:
    start(fleet, {"system_info": {"python_version": "3.11.2"}})
    assert "3.11.2" in page(client, fleet.worker)


def test_two_processes_are_shown_side_by_side(fleet: Fleet, client: Client) -> None:
    start(fleet, {"system_info": {"hostname": "first-host", "pid": 1}})
    assert "duplicates" not in page(client, fleet.worker)
    start(fleet, {"system_info": {"hostname": "second-host", "pid": 2}})
    content = page(client, fleet.worker)
    assert 'id="duplicates"' in content
    assert "Current, Online" in content
    assert "Older, Online" in content
    assert "duplicate" in client.get(reverse("admin:workers_workerstart_changelist")).content.decode()


def test_whatever_a_worker_reports_is_text(fleet: Fleet, client: Client) -> None:
    long = {"hostname": HOSTILE, "python_version": HOSTILE, "sdk_version": ["x" * 4096], "pid": HOSTILE}
    start(fleet, {"system_info": long})
    heartbeat(fleet, system_info=long, logs=[HOSTILE], current_task_id=HOSTILE)
    path, key = f"/api/v1/workers/{fleet.worker.pk}/disconnect", f"Bearer {fleet.token}"
    body = {"reason": HOSTILE, "error_message": HOSTILE, "exit_code": 2**63 - 1}
    assert Client().post(path, json.dumps(body), "application/json", HTTP_AUTHORIZATION=key).status_code == 204
    for address in (
        reverse("admin:workers_worker_change", args=[fleet.worker.pk]),
        reverse("admin:workers_worker_changelist"),
        reverse("admin:workers_workerinstance_changelist"),
        reverse("admin:workers_workerinstance_change", args=[fleet.worker.instances.get().pk]),
    ):
        content = client.get(address).content.decode()
        assert "<div x-init=alert" not in content, address
        assert "49" not in content.split("x-init")[-1][:20], address
    assert escape(HOSTILE) in page(client, fleet.worker)


def test_recovering_is_said_while_a_worker_is_shown_as_before_our_outage(fleet: Fleet, client: Client) -> None:
    start(fleet)
    fall_silent(minutes=20)
    now = timezone.now()
    Pulse.objects.create(beat_at=now)
    outage = Outage.objects.create(lost_at=now - timedelta(minutes=19), recovered_at=now - timedelta(seconds=30))
    assert listed(client, liveness="Online") == ["worker-1"]
    address = reverse("admin:workers_worker_changelist")
    assert 'id="recovering"' in client.get(address).content.decode()
    assert ", recovering" in client.get(address).content.decode()
    assert 'id="recovering"' in page(client, fleet.worker)
    instances = client.get(reverse("admin:workers_workerinstance_changelist"))
    assert 'id="recovering"' in instances.content.decode()
    queues = client.get(reverse("admin:workers_workerqueue_changelist"))
    assert 'id="recovering"' in queues.content.decode()
    assert [row.live for row in queues.context["cl"].result_list] == [1]
    outage.recovered_at = now - timedelta(seconds=200)
    outage.save()
    assert listed(client, liveness="Offline") == ["worker-1"]
    assert "recovering" not in client.get(address).content.decode().lower()


@pytest.mark.parametrize(("workers", "told"), [(1, "worker offline"), (2, "workers offline")])
def test_the_dashboard_counts_what_is_offline_in_words(fleet: Fleet, client: Client, workers: int, told: str) -> None:
    start(fleet)
    for number in range(1, workers):
        another = factories.create_worker(fleet.queue, f"more-{number}")
        start(fleet, worker_id=another.pk, token=factories.issue_token(another))
    fall_silent(minutes=20)
    content = client.get(reverse("admin:index")).content.decode()
    assert f'<span class="cp-important">{workers}</span> {told}<' in content


def test_an_outage_that_still_goes_on_is_said_too(fleet: Fleet, client: Client) -> None:
    Pulse.objects.create(beat_at=timezone.now() - timedelta(minutes=5))
    assert 'id="recovering"' in client.get(reverse("admin:workers_worker_changelist")).content.decode()


def test_a_queue_shows_its_live_processes_and_its_limit(fleet: Fleet, client: Client) -> None:
    fleet.queue.max_workers = 7
    fleet.queue.save()
    start(fleet)
    assert "1 of 7" in client.get(reverse("admin:workers_workerqueue_changelist")).content.decode()


@pytest.mark.parametrize("count", [1, 8])
def test_the_list_of_workers_costs_the_same_however_many(
    fleet: Fleet, client: Client, django_assert_max_num_queries: Any, count: int
) -> None:
    for number in range(count):
        worker = factories.create_worker(fleet.queue, f"w-{number}")
        start(fleet, token=factories.issue_token(worker), worker_id=worker.pk)
    with django_assert_max_num_queries(9):
        client.get(reverse("admin:workers_worker_changelist"))
