"""A connection's page and list, and who still runs on an older key."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from environments.models import LiteLLMConnection, Role, TemporalConnection
from tests.support import factories
from tests.support.calls import start
from tests.support.console import errors_of, form_of, member, post_confirmed, signed_in, url
from tests.support.endpoints import KEY
from tests.support.factories import Fleet
from tests.support.verifying import stored, text_of
from workers.admin.connections.context import travels_openly
from workers.models import Worker, WorkerInstance

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


def page_of(client: Client, row: Any) -> str:
    return text_of(client.get(url(type(row), "change", row.pk)))


@pytest.mark.parametrize(
    ("days", "badge"), [(None, "not known"), (31, ""), (30, "in 30 days"), (0, "today"), (-1, "expired")]
)
def test_the_expiry_of_the_key_is_told(days: int | None, badge: str, fleet: Fleet, client: Client) -> None:
    day = None if days is None else timezone.now().date() + timedelta(days=days)
    LiteLLMConnection.objects.update(api_key_expires_on=day)
    page = page_of(client, fleet.litellm)
    assert badge in page
    assert ("cp-badge-warning" in page, "cp-badge-danger" in page) == (badge[:2] == "in", badge in {"today", "expired"})
    listed = client.get(url(LiteLLMConnection, "changelist"), {"expires": "soon"}).context["cl"].result_count
    assert listed == (days is not None and days <= 30)


@pytest.mark.parametrize(
    ("api_url", "is_open"),
    [
        ("https://llm.example.com", False),
        ("http://llm.example.com", True),
        ("http://litellm:4000", True),
        ("http://10.0.0.1:4000", True),
        ("http://127.0.0.1:4000", False),
        ("http://[::1]:4000", False),
        ("http://localhost:4000", False),
    ],
)
def test_a_key_travels_openly_without_tls_unless_it_stays_on_the_machine(api_url: str, is_open: bool) -> None:
    assert travels_openly(LiteLLMConnection(api_url=api_url)) is is_open
    host = api_url.rpartition("/")[2]
    assert travels_openly(TemporalConnection(host=host, is_tls_enabled=False)) is (is_open or "llm.e" in host)
    assert not travels_openly(TemporalConnection(host=host, is_tls_enabled=True))
    assert not travels_openly(LiteLLMConnection(api_url=api_url, requires_api_key=False))


def test_a_key_that_travels_openly_is_warned_of(fleet: Fleet, client: Client) -> None:
    assert "in plain text" not in page_of(client, fleet.litellm)
    LiteLLMConnection.objects.update(api_url="http://llm.example.com")
    assert "in plain text" in page_of(client, fleet.litellm)


def test_the_page_tells_who_uses_it_as_far_as_fits(
    fleet: Fleet, client: Client, django_assert_num_queries: Any
) -> None:
    temporal = fleet.temporal
    factories.point(fleet.environment, temporal_connection=temporal)
    for number in range(25):
        factories.create_worker(fleet.queue, f"pointing-{number}", temporal_connection=temporal)
    address = url(TemporalConnection, "change", temporal.pk)
    client.get(address)  # Django keeps what content types there are
    with django_assert_num_queries(13):
        page = client.get(address)
    users = {each.level: (len(each.links), each.count) for each in page.context["users"]}
    assert users == {"organization": (1, 1), "environment": (1, 1), "workers": (20, 25)}
    assert "and 5 more" in text_of(page)
    unused = factories.create_temporal(fleet.organization, "unused")
    assert "no worker is given it" in page_of(client, unused)


def test_the_list_takes_the_same_statements_for_any_number_of_rows(
    fleet: Fleet, client: Client, django_assert_num_queries: Any
) -> None:
    for number in range(20):
        factories.create_litellm(fleet.organization, f"gateway-{number}")
    with django_assert_num_queries(5):
        page = text_of(client.get(url(LiteLLMConnection, "changelist")))
    assert stored(fleet.litellm).api_key_fingerprint in page
    assert KEY not in page


def boot(fleet: Fleet, worker: Worker) -> None:
    WorkerInstance.objects.filter(worker=worker).update(stopped_at=timezone.now())
    assert start(fleet, token=factories.issue_token(worker), worker_id=worker.pk).status_code == 200


def replace_key(client: Client, row: Any, api_key: str) -> None:
    address = url(type(row), "change", row.pk)
    assert post_confirmed(client, address, {**form_of(client, address), "api_key": api_key}).status_code == 302


def workers_on(client: Client, row: Any, version: Any) -> set[str]:
    response = client.get(url(Worker, "changelist"), {"runs_on": f"{row.pk}:{version}"})
    assert response.status_code == 200
    return {worker.name for worker in response.context["cl"].result_list}


@pytest.mark.parametrize("kind", ["temporal", "litellm"])
def test_the_page_tells_when_the_old_key_can_be_retired(kind: str, fleet: Fleet, client: Client) -> None:
    row = getattr(fleet, kind)
    if kind == "temporal":
        TemporalConnection.objects.filter(pk=row.pk).update(host="temporal.example.com:7233")
    second = factories.create_worker(fleet.queue, "worker-2")
    for worker in (fleet.worker, second):
        boot(fleet, worker)
    old = stored(row).api_key_version
    replace_key(client, row, "sk-new")
    page = page_of(client, row)
    assert f"2 live workers still run on version {old}: restart them" in page
    assert workers_on(client, row, old) == {"worker-1", "worker-2"}
    assert f"?runs_on={row.pk}%3A{old}" in page

    boot(fleet, second)
    assert f"1 live worker still runs on version {old}: restart it" in page_of(client, row)
    assert (workers_on(client, row, old), workers_on(client, row, old + 1)) == ({"worker-1"}, {"worker-2"})

    boot(fleet, fleet.worker)
    assert f"Version {old} can be retired: no live worker runs on it." in page_of(client, row)
    assert workers_on(client, row, old) == set()


def test_the_list_of_who_runs_on_a_key_is_the_reader_s_own(fleet: Fleet, client: Client) -> None:
    boot(fleet, fleet.worker)
    version = stored(fleet.litellm).api_key_version
    assert workers_on(client, fleet.litellm, version) == {"worker-1"}
    stranger = signed_in(member(factories.create_organization("other"), Role.VIEWER))
    assert workers_on(stranger, fleet.litellm, version) == set()


@pytest.mark.parametrize(
    "value",
    ["", ":", "nosuch:1", "\0", "{pk}", "{pk}:", "{pk}:x", "{pk}:-1", "{pk}:9999999999999", "{pk}:１", "x" * 8_000],
)
def test_an_odd_filter_by_version_finds_nothing(value: str, fleet: Fleet, client: Client) -> None:
    boot(fleet, fleet.worker)
    asked = value.format(pk=fleet.litellm.pk)
    response = client.get(url(Worker, "changelist"), {"runs_on": asked})
    assert response.status_code == 200
    assert response.context["cl"].result_count == (0 if value else 1)


def test_the_form_shows_no_key_again(fleet: Fleet, client: Client) -> None:
    address = url(LiteLLMConnection, "change", fleet.litellm.pk)
    response = client.post(address, {**form_of(client, address), "name": "not a slug", "api_key": KEY})
    assert errors_of(response)
