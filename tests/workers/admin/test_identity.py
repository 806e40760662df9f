"""What the console shows of processes that are alike: hosts in a crash loop, workers that are two processes."""

import re
from html import unescape

import pytest
from django.test import Client
from django.urls import reverse

from tests.support.console import person, signed_in
from tests.support.factories import Fleet
from tests.support.places import AAA, EARLY, HERE, THERE, beat, open_fleet, queue_start, start

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


@pytest.fixture
def fleet(db: None) -> Fleet:
    return open_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def dashboard(client: Client) -> str:
    page = re.sub(r"<[^>]*>", " ", client.get("/admin/").content.decode())
    return " ".join(unescape(page).split())


def listed(client: Client, attention: str) -> set[str]:
    url = reverse("admin:workers_worker_changelist", query={"attention": attention})
    return {worker.name for worker in client.get(url).context["cl"].result_list}


def test_a_host_in_a_crash_loop_is_counted_and_its_workers_are_listed(fleet: Fleet, client: Client) -> None:
    for _ in range(2):
        queue_start(fleet, {"hostname": "agent-0", "pid": 1})
    assert "in a crash loop" not in dashboard(client)
    queue_start(fleet, {"hostname": "agent-0", "pid": 1})
    assert "1 host in a crash loop" in dashboard(client)
    found = listed(client, "crash-loop")
    assert len(found) == 3
    assert all(name.startswith("agent-0-") for name in found)


def test_a_worker_that_is_two_processes_is_counted_listed_and_explained(fleet: Fleet, client: Client) -> None:
    start(fleet, AAA | EARLY)
    page = reverse("admin:workers_worker_change", args=[fleet.worker.pk])
    assert "two processes" not in dashboard(client) + client.get(page).content.decode()
    for address in (THERE, HERE):
        beat(fleet, address=address)
    assert "1 worker that is two processes" in dashboard(client)
    assert listed(client, "duplicate") == {fleet.worker.name}
    shown = client.get(page).content.decode()
    assert f"two processes: heartbeats of one host and process ID come from {THERE} and {HERE} in turn" in shown
    assert "aaa" in shown
