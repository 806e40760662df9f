"""What lists of the console show: which organization's, what they are narrowed to, and the columns that were chosen."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import person, signed_in, url
from tests.support.factories import Fleet
from workers.models import ApiKey, InstanceReport, Worker, WorkerInstance

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

LIST = "changelist"


@pytest.fixture
def fleet(db: None) -> Fleet:
    person(is_staff=True, is_superuser=True)
    return fresh_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()


def page(client: Client, query: str = "", model: type = Worker) -> str:
    response = client.get(f"{url(model, LIST)}{query}")
    assert response.status_code == 200
    return unescape(response.content.decode())


def chips(text: str) -> dict[str, str]:
    """What is narrowed to, and the address without it."""
    found = re.findall(r'<a class="cp-badge cp-chip" href="([^"]*)" aria-label="Take off ([^"]+)"', text)
    return {name: address for address, name in found}


def test_workers_of_one_name_are_told_apart_by_their_organization(client: Client, fleet: Fleet) -> None:
    other = factories.create_fleet()
    text = page(client)
    assert f"{fleet.organization.pk}/worker-1" in text
    assert f"{other.organization.pk}/worker-1" in text


def test_search_and_filters_in_force_can_be_taken_off(client: Client) -> None:
    found = chips(page(client, "?q=worker&liveness=Never+started&state=Enabled"))
    assert set(found) == {"search: worker", "liveness: Never started", "state: Enabled"}
    for name, without in found.items():
        assert set(chips(page(client, without))) == set(found) - {name}


def test_a_filter_that_the_list_does_not_offer_is_told_too(client: Client, fleet: Fleet) -> None:
    assert list(chips(page(client, f"?queue__id__exact={fleet.queue.pk}"))) == [f"queue: {fleet.queue.pk}"]


def test_a_worker_that_could_not_start_again_is_not_called_outdated(client: Client, fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    badges = re.compile(r'<span class="cp-badge[^"]*">(Current|Outdated|Cannot start again)</span>')
    assert badges.findall(page(client)) == ["Current"]
    factories.point(fleet.organization, litellm_connection=None)
    assert badges.findall(page(client)) == ["Cannot start again"]
    assert badges.findall(page(client, "?attention=outdated")) == []


def test_a_list_that_is_not_narrowed_has_no_chips(client: Client) -> None:
    assert chips(page(client)) == {}
    assert chips(page(client, "?o=1")) == {}
    assert chips(page(client, model=ApiKey)) == {}


def shown(text: str) -> list[str]:
    """The workers' names, as they stand on the page."""
    return re.findall(r"change/[^>]*>[\w-]+/([\w-]+)</a></th>", text)


def column(client: Client, name: str) -> int:
    """The number that a column has in addresses."""
    return list(client.get(url(Worker, LIST)).context["cl"].list_display).index(name)


def test_the_order_of_liveness_has_those_first_that_somebody_has_to_look_after(client: Client, fleet: Fleet) -> None:
    for name, silence in {
        "b-late": timedelta(minutes=2),
        "c-offline": timedelta(hours=1),
        "d-online": timedelta(0),
    }.items():
        worker = factories.create_worker(fleet.queue, name)
        assert start(fleet, worker_id=worker.pk, token=factories.issue_token(worker)).status_code == 200
        WorkerInstance.objects.filter(worker=worker).update(last_heartbeat_at=timezone.now() - silence)
    found = shown(page(client, f"?o={column(client, 'liveness')}"))
    assert found == ["c-offline", "b-late", "worker-1", "d-online"]


def test_the_order_that_was_chosen_stays_until_it_is_taken_off(client: Client, fleet: Fleet) -> None:
    factories.create_worker(fleet.queue, "a-worker")
    assert shown(page(client)) == ["a-worker", "worker-1"]
    backwards = f"-{column(client, 'whole_name')}"
    assert shown(page(client, f"?o={backwards}")) == ["worker-1", "a-worker"]
    assert shown(page(client)) == ["worker-1", "a-worker"]
    assert shown(page(client, "?q=worker")) == ["worker-1", "a-worker"]
    assert page(client, model=ApiKey)  # another list is in its own order
    assert shown(page(client, "?o=")) == shown(page(client)) == ["a-worker", "worker-1"]
    assert shown(page(client, "?o=nonsense")) == ["a-worker", "worker-1"]


def test_the_order_is_kept_by_the_columns_names_whatever_else_is_shown(client: Client, fleet: Fleet) -> None:
    for number, name in enumerate(["c-first", "b-second", "a-third"]):
        worker = factories.create_worker(fleet.queue, name)
        Worker.objects.filter(pk=worker.pk).update(created_at=timezone.now() + timedelta(minutes=number))
    latest_first = ["a-third", "b-second", "c-first", "worker-1"]
    assert shown(page(client, f"?o=-{column(client, 'created')}")) == latest_first
    assert shown(page(client, "?columns=all")) == latest_first
    assert 'href="?columns=version"' in page(client)
    assert shown(page(client)) == latest_first
    # Where something is chosen for a field there is no box before the columns, and nothing is kept.
    assert page(client, "?_popup=1&o=1")
    assert shown(page(client)) == latest_first


def test_what_the_order_leaves_open_is_by_name(client: Client, fleet: Fleet) -> None:
    for name in ("c", "a", "b"):
        factories.create_worker(fleet.queue, name)
    assert shown(page(client, f"?o={column(client, 'liveness')}")) == ["a", "b", "c", "worker-1"]


def test_labels_and_version_are_columns_to_choose(client: Client, fleet: Fleet) -> None:
    Worker.objects.update(labels="gpu, blue")
    assert start(fleet).status_code == 200
    instance = WorkerInstance.objects.get()
    report = {"organization": fleet.organization, "reported_at": instance.started_at}
    InstanceReport.objects.update_or_create(
        id=instance.pk, instance=instance, defaults={**report, "system_info": {"sdk_version": "1.35.0-mine"}}
    )
    assert "gpu, blue" not in page(client)
    assert "gpu, blue" in page(client, "?columns=labels")
    assert "1.35.0-mine" not in page(client, "?columns=labels")
    both = page(client, "?columns=all")
    assert "gpu, blue" in both
    assert "1.35.0-mine" in both
    assert "gpu, blue" not in page(client, "?columns=nonsense")


def test_a_list_with_all_columns_takes_few_statements(
    client: Client, fleet: Fleet, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(2, 8):
        factories.create_worker(fleet.queue, f"worker-{number}")
    start(fleet)
    page(client)
    with django_assert_max_num_queries(12):
        page(client, "?columns=all&q=worker")
