"""A refused start is the first thing that is told: by dashboard, lists, doctor and metrics, until it is answered."""

import io
import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments.roles import EVERYWHERE
from tests.support import factories
from tests.support.calls import fresh_fleet, shared_client, start
from tests.support.console import person, signed_in
from tests.support.factories import Fleet
from workers.lifecycle.refusals import HOSTS_OF_KEY, REFUSED_FOR
from workers.models import ApiKey, RefusedStart, Worker, WorkerInstance, WorkerQueue
from workers.reports.dashboard import Dashboard, look_at_fleet
from workers.reports.monitoring import count_refused, count_refused_hosts

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.sqlite,
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]

NO_LITELLM = "no LiteLLM connection at any of these levels: worker, worker queue, environment, organization."


@pytest.fixture
def fleet() -> Fleet:
    return fresh_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def refuse(fleet: Fleet, **options: Any) -> None:
    cache.clear()
    assert start(fleet, **options).status_code in {401, 403, 409, 422}


def start_in_queue(fleet: Fleet, host: str, token: str) -> int:
    cache.clear()
    response = shared_client().post(
        f"/api/v1/worker-queues/{fleet.queue.pk}/start",
        json.dumps({"system_info": {"hostname": host}}),
        "application/json",
        HTTP_AUTHORIZATION=f"Bearer {token}",
    )
    return response.status_code


def look() -> Dashboard:
    return look_at_fleet(EVERYWHERE, hours=24, now=timezone.now())


def refused() -> list[tuple[str, int]]:
    return [(str(found.worker or found.start.hostname), found.start.times) for found in look().refused]


def take_away(fleet: Fleet) -> None:
    factories.point(fleet.organization, litellm_connection=None)


def give_back(fleet: Fleet) -> None:
    factories.point(fleet.organization, litellm_connection=fleet.litellm)


def doctor() -> list[str]:
    out = io.StringIO()
    with suppress(CommandError):
        call_command("doctor", "--format=json", stdout=out, stderr=io.StringIO())
    found = json.loads(out.getvalue())["findings"]
    return [f"{each['level']}: {each['text']}" for each in found if each["check"] == "starts"]


def listed(*arguments: str) -> list[dict[str, Any]]:
    out = io.StringIO()
    call_command("list_workers", "--format=json", *arguments, stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


# --- What is counted -----------------------------------------------------------------------------------------------------


def test_says_how_often_in_a_row_and_since_when(fleet: Fleet) -> None:
    take_away(fleet)
    for _ in range(3):
        refuse(fleet)
    row = RefusedStart.objects.get()
    assert (row.pk, row.times, row.status, row.reason.endswith(NO_LITELLM)) == (fleet.worker.pk, 3, 409, True)
    assert row.first_at < row.occurred_at
    give_back(fleet)
    assert start(fleet).status_code == 200
    assert refused() == []
    take_away(fleet)
    refuse(fleet)
    again = RefusedStart.objects.get()
    assert (again.times, again.first_at) == (1, again.occurred_at)


def test_another_reason_begins_anew(fleet: Fleet) -> None:
    take_away(fleet)
    refuse(fleet)
    refuse(fleet)
    Worker.objects.update(is_disabled=True)
    refuse(fleet)
    assert refused() == [(str(fleet.worker), 1)]


def test_every_worker_with_the_same_key_is_told_and_its_page_says_why(fleet: Fleet, client: Client) -> None:
    second = factories.create_worker(fleet.queue, "worker-2")
    token = factories.issue_token(fleet.queue)
    take_away(fleet)
    refuse(fleet, token=token)
    refuse(fleet, token=token, worker_id=second.pk)
    assert sorted(refused()) == [(str(fleet.worker), 1), (str(second), 1)]
    for worker in (fleet.worker, second):
        assert NO_LITELLM in client.get(f"/admin/workers/worker/{worker.pk}/change/").content.decode()


def test_a_key_that_ended_is_a_reason_too(fleet: Fleet) -> None:
    ApiKey.objects.update(revoked_at=timezone.now(), revoke_reason="leaked")
    refuse(fleet)
    assert [found.start.reason for found in look().refused] == ["This API key is revoked."]


def test_what_is_not_there_makes_no_row_whatever_is_asked_for(fleet: Fleet) -> None:
    token = factories.issue_token(fleet.organization, age=timedelta(days=2), lifetime=timedelta(days=1))
    other = factories.create_fleet()
    for worker_id in (other.worker.pk, "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "nonsense"):
        cache.clear()
        assert start(fleet, token=token, worker_id=worker_id).status_code in {401, 404}
        cache.clear()
        assert start(fleet, worker_id=worker_id).status_code == 404
    assert not RefusedStart.objects.exists()


def test_hosts_that_start_in_queues_are_told_and_bounded(fleet: Fleet) -> None:
    token = factories.issue_token(fleet.queue)
    take_away(fleet)
    for _ in range(2):
        assert start_in_queue(fleet, "host-1", token) == 409
    assert refused() == [("host-1", 2)]
    for number in range(3 * HOSTS_OF_KEY):
        start_in_queue(fleet, f"host-{number}", token)
    assert look().attention.refused_hosts <= HOSTS_OF_KEY
    give_back(fleet)
    assert start_in_queue(fleet, "host-1", token) == 200
    assert look().attention.refused_hosts == 0


def test_it_is_news_for_a_day(fleet: Fleet) -> None:
    take_away(fleet)
    refuse(fleet)
    RefusedStart.objects.update(occurred_at=timezone.now() - REFUSED_FOR - timedelta(minutes=1))
    assert refused() == []
    refuse(fleet)
    assert refused() == [(str(fleet.worker), 1)]


def test_a_deleted_worker_is_not_told(fleet: Fleet) -> None:
    token = factories.issue_token(fleet.queue)
    take_away(fleet)
    refuse(fleet, token=token)
    ApiKey.objects.filter(worker__isnull=False).delete()
    Worker.objects.all().delete()
    assert (refused(), look().attention.refused_workers) == ([], 0)


# --- Who tells it --------------------------------------------------------------------------------------------------------


def test_all_of_them_tell_and_all_are_quiet_again(fleet: Fleet, client: Client) -> None:
    assert start(fleet).status_code == 200
    page = client.get("/admin/").content.decode()
    assert "Nothing. All that runs is as it should be." in page
    assert 'id="refused-starts"' not in page
    take_away(fleet)
    refuse(fleet)
    page = client.get("/admin/").content.decode()
    assert "as it should be" not in page
    for text in ("worker whose latest start was refused", "worker queue whose configuration is incomplete", NO_LITELLM):
        assert text in page
    path = f"{fleet.organization.pk}/production/default"
    workers, queues = doctor()
    missing = "no LiteLLM connection at any level"
    assert workers.startswith(
        f"problem: Workers whose latest start was refused: 1 ({path}/worker-1, at least 1 times since "
    )
    assert NO_LITELLM in workers
    assert (
        queues
        == f"problem: Worker queues whose configuration is incomplete, so that starts are refused: 1 ({path}: {missing})"
    )
    (worker,) = listed("--refused")
    assert (worker["refusals"], worker["missing"]) == (1, "no LiteLLM connection at any level")
    assert worker["refusal"].endswith(NO_LITELLM)
    assert worker["refused_since"]
    assert [figure[3:] for figure in count_refused(timezone.now())] == [(1, True)]
    for query in ("worker/?attention=refused", "workerqueue/?configuration=incomplete"):
        assert client.get(f"/admin/workers/{query}").context["cl"].result_count == 1
    give_back(fleet)
    assert start(fleet).status_code == 200
    WorkerInstance.objects.filter(is_current=False).update(stopped_at=timezone.now())
    assert "Nothing. All that runs is as it should be." in client.get("/admin/").content.decode()
    assert (doctor(), listed("--refused")) == ([], [])
    assert [figure[3:] for figure in count_refused(timezone.now())] == [(0, False)]


def test_hosts_are_counted_for_monitoring_and_named_by_doctor(fleet: Fleet, client: Client) -> None:
    WorkerQueue.objects.update(is_disabled=True)
    token = factories.issue_token(fleet.queue)
    assert start_in_queue(fleet, "h\x1b[2J", token) == 409
    assert count_refused_hosts(timezone.now()) == {fleet.organization.pk: 1}
    (hosts,) = doctor()
    assert hosts.startswith("problem: Hosts whose latest start in a queue was refused: 1 (")
    page = client.get("/admin/").content.decode()
    assert "host whose latest start was refused" in page
    assert "<bdi>h\x1b[2J</bdi>" in page


def test_nothing_runs_is_said_where_nothing_runs(fleet: Fleet, client: Client) -> None:
    assert "Nothing runs." in client.get("/admin/").content.decode()
    assert doctor() == []
    assert start(fleet).status_code == 200
    assert "Nothing runs." not in client.get("/admin/").content.decode()
    WorkerInstance.objects.update(stopped_at=timezone.now())
    page = client.get("/admin/").content.decode()
    assert "Nothing runs." in page
    assert "as it should be" not in page
    assert doctor() == ["note: Nothing runs: no worker is live."]


def test_a_queue_is_incomplete_for_want_of_either_unless_it_is_disabled(fleet: Fleet) -> None:
    factories.point(fleet.queue, litellm_connection=fleet.litellm)
    factories.create_queue(fleet.environment, "other")
    take_away(fleet)
    assert look().attention.incomplete_queues == 1
    factories.point(fleet.organization, temporal_connection=None)
    assert look().attention.incomplete_queues == 2
    WorkerQueue.objects.update(is_disabled=True)
    assert look().attention.incomplete_queues == 0


@pytest.mark.parametrize("workers", [2, 20])
def test_the_statements_do_not_grow_with_the_refused(fleet: Fleet, client: Client, workers: int) -> None:
    token = factories.issue_token(fleet.queue)
    take_away(fleet)
    for number in range(workers):
        refuse(fleet, token=token, worker_id=factories.create_worker(fleet.queue, f"more-{number}").pk)
    with CaptureQueriesContext(connection) as queries:
        assert client.get("/admin/").status_code == 200
    assert len(queries) <= 12
