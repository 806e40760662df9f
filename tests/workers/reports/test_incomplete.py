"""Who could not start for want of a connection: dashboard, lists, pages, doctor and metrics tell the same."""

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from controlplane.doctor.workers import examine_incomplete
from environments.roles import EVERYWHERE
from tests.support import factories
from tests.support.calls import fresh_fleet, shared_client, start
from tests.support.console import person, signed_in
from tests.support.factories import Fleet
from workers.models import ApiKey, Worker, WorkerQueue
from workers.reports.dashboard import look_at_fleet
from workers.reports.monitoring import count_refused

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.sqlite,
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]

NO_LITELLM = "no LiteLLM connection at any level"
CANNOT = "Worker queues whose configuration is incomplete, so that starts are refused"
ONLY_OWN = "Worker queues in which only workers with connections of their own start"


@pytest.fixture
def fleet() -> Fleet:
    """Its organization has no LiteLLM connection, and its worker neither."""
    fleet = fresh_fleet()
    factories.point(fleet.organization, litellm_connection=None)
    return fleet


@pytest.fixture
def client(fleet: Fleet) -> Client:  # there has to be one
    return signed_in(person(is_staff=True, is_superuser=True))


def give_own(fleet: Fleet) -> None:
    factories.point(fleet.worker, litellm_connection=fleet.litellm)


def told(client: Client, fleet: Fleet) -> dict[str, Any]:
    """What each place tells of the queue."""
    out = io.StringIO()
    call_command("list_workers", "--format", "json", stdout=out)
    return {
        "dashboard": look_at_fleet(EVERYWHERE, hours=24, now=timezone.now()).attention.incomplete_queues,
        "metrics": [figure.is_incomplete for figure in count_refused(timezone.now())],
        "queues": client.get("/admin/workers/workerqueue/?configuration=incomplete").context["cl"].result_count,
        "queues only own": client.get("/admin/workers/workerqueue/?configuration=own").context["cl"].result_count,
        "workers": client.get("/admin/workers/worker/?attention=incomplete").context["cl"].result_count,
        "page": client.get(f"/admin/workers/workerqueue/{fleet.queue.pk}/change/").context["incomplete"],
        "listed": [worker["missing"] for worker in map(json.loads, out.getvalue().splitlines())],
        "doctor": [(str(found.level), found.text) for found in examine_incomplete(timezone.now())],
    }


def refused_in_queue(fleet: Fleet) -> bool:
    response = shared_client().post(
        f"/api/v1/worker-queues/{fleet.queue.pk}/start",
        json.dumps({"system_info": {"hostname": "h"}}),
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {factories.issue_token(fleet.queue)}",
    )
    return response.status_code == 409


def test_a_queue_whose_worker_could_not_start_is_a_problem_everywhere(fleet: Fleet, client: Client) -> None:
    assert (start(fleet).status_code, refused_in_queue(fleet)) == (409, True)
    assert told(client, fleet) == {
        "dashboard": 1,
        "metrics": [True],
        "queues": 1,
        "queues only own": 0,
        "workers": 1,
        "page": "No LiteLLM connection at any level: starts in this queue are refused, and those of 1 worker.",
        "listed": [NO_LITELLM],
        "doctor": [("problem", f"{CANNOT}: 1 ({fleet.organization.pk}/production/default: {NO_LITELLM})")],
    }


def test_a_queue_whose_workers_all_have_their_own_is_to_be_known_and_no_problem(fleet: Fleet, client: Client) -> None:
    give_own(fleet)
    assert (start(fleet).status_code, refused_in_queue(fleet)) == (200, True)
    assert told(client, fleet) == {
        "dashboard": 0,
        "metrics": [False],
        "queues": 0,
        "queues only own": 1,
        "workers": 0,
        "page": "No LiteLLM connection at any level: starts in this queue and registrations are refused. Its workers "
        "have connections of their own and start.",
        "listed": [None],
        "doctor": [("note", f"{ONLY_OWN}: 1 ({fleet.organization.pk}/production/default: {NO_LITELLM})")],
    }


def test_one_worker_among_them_without_its_own_is_a_problem(fleet: Fleet, client: Client) -> None:
    give_own(fleet)
    other = factories.create_worker(fleet.queue, "other")
    found = told(client, fleet)
    assert (found["dashboard"], found["workers"], found["doctor"][0][0]) == (1, 1, "problem")
    assert found["page"].endswith("refused, and those of 1 worker.")
    factories.point(other, is_disabled=True)
    found = told(client, fleet)
    assert (found["dashboard"], found["workers"], found["doctor"][0][0]) == (0, 0, "note")


def test_a_queue_without_workers_is_incomplete(fleet: Fleet, client: Client) -> None:
    ApiKey.objects.all().delete()
    Worker.objects.all().delete()
    found = told(client, fleet)
    assert (found["dashboard"], found["workers"], found["queues"]) == (1, 0, 1)
    assert found["page"] == "No LiteLLM connection at any level: starts in this queue are refused."


def test_nothing_is_said_of_a_complete_or_disabled_queue(fleet: Fleet, client: Client) -> None:
    nothing = {"dashboard": 0, "metrics": [False], "queues": 0, "queues only own": 0, "workers": 0, "page": ""}
    WorkerQueue.objects.update(is_disabled=True)
    assert told(client, fleet) == nothing | {"listed": [NO_LITELLM], "doctor": []}
    WorkerQueue.objects.update(is_disabled=False)
    factories.point(fleet.organization, litellm_connection=fleet.litellm)
    assert told(client, fleet) == nothing | {"listed": [None], "doctor": []}


def test_another_connection_of_its_own_is_not_enough(fleet: Fleet, client: Client) -> None:
    """What counts is each section: a worker with a Temporal connection of its own still lacks LiteLLM."""
    factories.point(fleet.worker, temporal_connection=fleet.temporal)
    found = told(client, fleet)
    assert (found["dashboard"], found["workers"], found["queues only own"]) == (1, 1, 0)


def test_the_page_of_a_new_queue_says_nothing(fleet: Fleet, client: Client) -> None:
    assert "incomplete" not in client.get("/admin/workers/workerqueue/add/").context
    assert 'id="incomplete"' not in client.get("/admin/workers/workerqueue/add/").content.decode()
