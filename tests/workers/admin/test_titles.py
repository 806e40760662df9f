"""Each page of the console is called by what it is, lies where the menu has it, and says what to do where it is empty."""

import re
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from environments.admin.paginator import MOST_ROWS, CappedPaginator
from environments.models import LiteLLMConnection, Membership, Role, TemporalConnection
from tests.support import factories
from tests.support.calls import start
from tests.support.console import REGISTERED, member, person, routes_of, row_of, signed_in, url
from tests.support.factories import Fleet
from tests.support.notifications import tell
from tests.support.sharing import made_once, own_copy
from workers.models import ApiKey, Worker

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

#: Model -> its section in the menu, its list, the name of a row of the fixture's, and what a new one is called.
PAGES = {
    "Worker": ("Fleet", "Workers", "acme/worker-1", "New worker"),
    "WorkerQueue": ("Fleet", "Worker queues", "acme.production.default", "New worker queue"),
    "WorkerStart": ("Fleet", "Starts", r"acme/worker-1 [\d-]+ [\d:]+", None),
    "WorkerInstance": ("Fleet", "Worker instances", "[0-9a-f]{8} of acme/worker-1", None),
    "ApiKey": ("Access", "API keys", "acme/key", "Issue an API key"),
    "Membership": ("Access", "Members", "bob in acme", "New member"),
    "User": ("Access", "Users", "ada", "New user"),
    "Organization": ("Configuration", "Organizations", "acme", "New organization"),
    "Environment": ("Configuration", "Environments", "acme/production", "New environment"),
    "TemporalConnection": ("Configuration", "Temporal connections", "acme/temporal", "New Temporal connection"),
    "LiteLLMConnection": ("Configuration", "LiteLLM connections", "acme/litellm", "New LiteLLM connection"),
    "TelemetrySettings": ("Configuration", "Telemetry settings", "acme/telemetry", "New telemetry settings"),
    "Incident": ("Notifications", "Incidents", "acme: Crash loop: some-host", None),
    "NotificationTarget": ("Notifications", "Notification targets", "acme/some-target", "New notification target"),
    "NotificationDelivery": ("Notifications", "Notification deliveries", "acme: some message", None),
    "AuditEvent": ("Records", "Audit events", "acme: api_key.issued key", None),
    "DataKey": ("Records", "Data keys", "acme/[0-9a-f-]{36}", None),
}
#: Pages of a model beside those that each has: what the way ends with.
BESIDE = {
    "workers_worker_boot": "First boot",
    "workers_apikey_calendar": "Expiry calendar",
    "workers_apikey_whose": "Whose key is this?",
    "workers_apikey_rotate": "Rotate API key",
    "workers_apikey_revoke": "Revoke API key",
    "auth_user_password_change": "Change password: ada",
}
SHINES_THROUGH = re.compile(r"to change\b|to view\b|\bShow all\b|Django|site admin|multiple objects")


def make_fleet() -> Fleet:
    fleet = factories.create_fleet("acme")
    person(is_staff=True, is_superuser=True)
    factories.create_telemetry(fleet.organization)
    tell(fleet.organization)
    assert start(fleet).status_code == 200
    Membership.objects.create(organization=fleet.organization, user=person("bob", is_staff=True))
    return fleet


shared_fleet = made_once(make_fleet)


@pytest.fixture
def fleet(shared_fleet: Fleet, db: None) -> Fleet:
    return own_copy(shared_fleet)


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()


def page(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, (address, response.status_code)
    return response.content.decode()


def title_of(text: str) -> str:
    (found,) = re.findall(r"<title>(.*?)</title>", text, re.DOTALL)
    return unescape(found).strip().removesuffix(" | Control plane")


def way_of(text: str) -> list[str]:
    """The parts of the head of a page."""
    (head,) = re.findall(r'<h1 class="overflow-hidden.*?</h1>', text, re.DOTALL)
    return [unescape(part) for part in re.findall(r"<bdi>(.*?)</bdi>", head)]


def rows_page(model: Any) -> Any:
    """The row that the table names."""
    chosen = {"User": {"username": "ada"}, "AuditEvent": {"action": "api_key.issued"}}.get(model.__name__, {})
    return model._default_manager.filter(**chosen).first() or row_of(model)


def assert_matches(found: list[str], *expected: str) -> None:
    assert re.fullmatch(" > ".join(expected), " > ".join(found)), (found, expected)


def test_the_menu_marks_the_one_entry_that_a_page_belongs_to(client: Client) -> None:
    calendar = reverse("admin:workers_apikey_calendar")
    key = ApiKey.objects.get()
    belongs = {"/admin/": "/admin/", calendar: calendar, url(ApiKey, "change", key.pk): url(ApiKey, "changelist")}
    belongs |= {each: each for each in (url(model, "changelist") for model in REGISTERED)}
    for address, entry in belongs.items():
        marked = re.findall(r'<a href="([^"]+)" class="[^"]* active"', page(client, address))
        assert marked == [entry], address


def test_the_person_of_a_membership_is_a_link_for_those_who_see_users(client: Client, fleet: Fleet) -> None:
    row = Membership.objects.get()
    viewer = signed_in(member(fleet.organization, Role.VIEWER))
    for browser, is_link in ((client, True), (viewer, False)):
        shown = page(browser, url(Membership, "change", row.pk))
        assert row.user.username in shown
        assert (f"/auth/user/{row.user_id}/" in shown) is is_link


def test_the_table_has_every_page_of_the_menu() -> None:
    assert {model.__name__ for model in REGISTERED} == set(PAGES)


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model.__name__)
def test_titles_and_ways_are_the_menu_s_and_nothing_of_django_shines_through(client: Client, model: Any) -> None:
    section, plural, name, adding = PAGES[model.__name__]
    row = rows_page(model)
    listed, shown = page(client, url(model, "changelist")), page(client, url(model, "change", row.pk))
    told = page(client, url(model, "history", row.pk))
    assert_matches(way_of(listed), section, plural)
    assert title_of(listed) in {plural, f"Worker {plural.lower()}"}
    assert_matches(way_of(shown), section, plural, name)
    assert re.fullmatch(rf"[A-Z].* {name}", title_of(shown)), title_of(shown)
    assert_matches(way_of(told), section, plural, name, "History")
    added = client.get(url(model, "add"))
    if adding:
        assert_matches(way_of(added.content.decode()), section, plural, adding)
        assert title_of(added.content.decode()) == adding
    deleted = client.get(url(model, "delete", row.pk))
    if deleted.status_code != 403:  # records are not deleted
        assert_matches(way_of(deleted.content.decode()), section, plural, name, "Delete")
        assert re.fullmatch(f"(Delete|Cannot delete) {name}", title_of(deleted.content.decode()))
    for text in (listed, shown, told, added.content.decode(), deleted.content.decode()):
        assert_is_ours(text, model)


def assert_is_ours(text: str, model: Any) -> None:
    main = text.partition('id="main"')[2]
    assert SHINES_THROUGH.search(main) is None, (title_of(text), SHINES_THROUGH.search(main))
    buttons = re.findall(r"<(?:button|a)\b[^>]*>\s*([^<>]*?)\s*</(?:button|a)>", main)
    assert [button for button in buttons if re.fullmatch(rf"(Add|Delete) {model._meta.verbose_name}", button)] == []


@pytest.mark.parametrize("route", BESIDE)
def test_pages_beside_end_the_way_with_their_title(client: Client, route: str) -> None:
    (model,) = [model for model in REGISTERED if route in routes_of(model)]
    section, plural, name, _ = PAGES[model.__name__]
    page_name = route.removeprefix(f"{model._meta.app_label}_{model._meta.model_name}_")
    with_row = bool(routes_of(model)[route])
    arguments = [rows_page(model).pk] if with_row else []
    text = page(client, url(model, page_name, *arguments))
    assert_matches(way_of(text), section, plural, *([name] if with_row else []), re.escape(BESIDE[route]))


def test_a_row_s_way_is_the_same_however_its_id_is_written(client: Client, fleet: Fleet) -> None:
    assert way_of(page(client, url(Worker, "change", fleet.worker.pk.hex))) == ["Fleet", "Workers", "acme/worker-1"]


def test_a_confirmation_is_the_end_of_its_row_s_way(client: Client, fleet: Fleet) -> None:
    address = url(TemporalConnection, "change", fleet.temporal.pk)
    form = client.get(address).context["adminform"].form
    data = {name: form.get_initial_for_field(field, name) or "" for name, field in form.fields.items()}
    text = client.post(address, {**data, "host": "elsewhere.example:7233"}).content.decode()
    assert way_of(text) == ["Configuration", "Temporal connections", "acme/temporal", "Confirm the change"]


def test_a_list_that_is_searched_leads_to_all_without_counting_them(client: Client) -> None:
    text = page(client, f"{url(Worker, 'changelist')}?q=worker-1")
    assert "Show all" not in text


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model.__name__)
def test_a_list_without_a_match_says_so_and_leads_back(client: Client, model: Any) -> None:
    text = page(client, f"{url(model, 'changelist')}?q=nothing-is-called-that")
    assert "Nothing matches" in text
    assert "Show the list without search and filters" in text


def test_every_list_says_what_its_rows_are() -> None:
    assert [model.__name__ for model in REGISTERED if not admin.site._registry[model].empty] == []  # type: ignore[attr-defined]


def test_only_a_connection_that_has_a_key_offers_to_keep_it(client: Client, fleet: Fleet) -> None:
    keep = "Leave it blank to keep the stored one"
    for model, row in ((TemporalConnection, fleet.temporal), (LiteLLMConnection, fleet.litellm)):
        assert keep not in page(client, url(model, "add"))
        assert keep in page(client, url(model, "change", row.pk))


def test_more_rows_than_a_list_counts_are_told_as_more(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CappedPaginator, "count", MOST_ROWS + 1)
    text = page(client, f"{url(Worker, 'changelist')}?q=worker")
    assert "more than 10,000" in text
    assert "10001" not in text
