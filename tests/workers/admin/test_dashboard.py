"""The console's first page: every figure leads to the list behind it, and none costs more for a larger fleet."""

import re
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from environments.models import LiteLLMConnection, Organization, Role, TemporalConnection
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import member, person, signed_in, url
from workers.models import ApiKey, Worker, WorkerInstance

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:Overriding get_action_choices")]

#: What issue and operators were promised for a page, whatever the size of the fleet.
MOST_STATEMENTS = 12


@pytest.fixture
def client() -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))


def seed(tmp_path: Any, *, workers: int) -> None:
    counts = ("--organizations=2", "--queues=4", f"--workers={workers}", f"--starts={workers * 3}")
    call_command("seed_fleet", *counts, f"--output={tmp_path / 'ids'}", "--format=json")


def links_in(page: str, part: str) -> dict[str, str]:
    """The links of one part of the page, by their text without markup."""
    (section,) = re.findall(rf'id="{part}".*?</(?:ul|div|table|svg)>', page, re.DOTALL)
    found = re.findall(r'<a [^>]*?href="([^"]+)"[^>]*>(.*?)</a>', section, re.DOTALL)
    return {" ".join(re.sub(r"<[^>]+>", " ", text).split()): unescape(url) for url, text in found}


@pytest.mark.sqlite
def test_every_figure_leads_to_a_list_with_just_as_many(client: Client, tmp_path: Any) -> None:
    seed(tmp_path, workers=60)
    page = client.get("/admin/").content.decode()
    figures = {**links_in(page, "liveness"), **links_in(page, "attention")}
    assert len(figures) == 12
    told = {
        text: (int(text.split()[0]), client.get(url).context)
        for text, url in figures.items()
        if "credentials" not in text  # the calendar shows these
    }
    shown = {text: context["cl"].result_count for text, (_, context) in told.items()}
    assert shown == {text: count for text, (count, _) in told.items()}


def test_the_bars_of_the_chart_lead_to_their_hours(client: Client) -> None:
    fleet = fresh_fleet()
    for _ in range(2):
        assert start(fleet).status_code == 200
    page = client.get("/admin/").content.decode()
    urls = {unescape(url) for url in re.findall(r'<a href="([^"]+)" aria-label="[^"]+ UTC: \d+ starts?"', page)}
    assert sum(client.get(url).context["cl"].result_count for url in urls) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/admin/",
        "/admin/?period=7d",
        "/admin/workers/worker/",
        "/admin/workers/workerqueue/",
        "/admin/workers/workerstart/",
    ],
)
def test_the_statements_of_a_page_do_not_grow_with_the_fleet(client: Client, tmp_path: Any, path: str) -> None:
    counts = []
    for workers in (12, 60):
        seed(tmp_path, workers=workers)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert client.get(path).status_code == 200
        counts.append(len(queries))
    assert max(counts) <= MOST_STATEMENTS
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "path",
    [
        f"/admin/workers/worker/?{query}"
        for query in (
            "liveness=Offline",
            "attention=outdated",
            "attention=crash-loop",
            "attention=duplicate",
            "attention=not-polling",
            "attention=cut-off",
            "q=worker",
        )
    ],
)
def test_a_filtered_list_of_workers_keeps_to_its_statements(client: Client, tmp_path: Any, path: str) -> None:
    seed(tmp_path, workers=60)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    assert len(queries) <= MOST_STATEMENTS


def test_a_member_sees_the_figures_of_their_organizations(client: Client, tmp_path: Any) -> None:
    seed(tmp_path, workers=20)
    organization = Organization.objects.get(pk="seed-1")
    page = signed_in(member(organization, Role.VIEWER)).get("/admin/").content.decode()
    counted = sum(int(text.split()[0]) for text in links_in(page, "liveness"))
    assert counted == Worker.objects.filter(organization=organization).count()
    assert "seed-2" not in page


def test_an_empty_control_plane_leads_to_the_first_start_step_by_step(client: Client) -> None:
    steps = links_in(client.get("/admin/").content.decode().replace("</ol>", "</ul>"), "first-steps")
    assert list(steps) == [
        *("Make an organization", "Connect it to Temporal", "Connect it to LiteLLM", "Make an environment"),
        *("Make a worker queue", "Make a worker", "Issue an API key"),
    ]
    assert {client.get(url).status_code for url in steps.values()} == {200}
    fleet = fresh_fleet()
    page = client.get("/admin/").content.decode()
    assert page.count('cp-badge-success">Done') == 7
    assert start(fleet).status_code == 200
    assert 'id="first-steps"' not in client.get("/admin/").content.decode()


@pytest.mark.parametrize("period", ["", "7d", "1y", "\x00", "é" * 3000])
def test_an_odd_period_is_the_usual_one(client: Client, period: str) -> None:
    response = client.get("/admin/", {"period": period})
    assert response.status_code == 200
    assert response.context["period"] == ("7d" if period == "7d" else "24h")


def test_a_member_of_no_organization_is_shown_nothing(client: Client) -> None:
    factories.create_fleet()
    stranger = signed_in(person("stranger", is_staff=True))
    response = stranger.get("/admin/")
    assert response.status_code in {200, 403}
    assert "org-" not in response.content.decode()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMINISTRATOR])
def test_the_first_steps_lead_only_where_the_person_may_go(db: None, role: Role) -> None:
    visitor = signed_in(member(factories.create_organization("acme"), role))
    content = visitor.get("/admin/").content.decode()
    steps = content.partition('id="first-steps"')[2].partition("</ol>")[0]
    found = re.findall(r'href="([^"]+)"', steps)
    assert [visitor.get(address).status_code for address in found] == [200] * len(found)
    assert ("An administrator of the organization does this." in steps) == (role != Role.ADMINISTRATOR)


def test_a_list_without_rows_says_what_to_do_next(client: Client) -> None:
    for model in (Worker, WorkerInstance, ApiKey, TemporalConnection, LiteLLMConnection):
        listed = unescape(client.get(url(model, "changelist")).content.decode())
        assert "Nothing here yet" in listed
        assert admin.site._registry[model].empty in listed
        assert ("Add the first one" in listed) is (client.get(url(model, "add")).status_code == 200)
