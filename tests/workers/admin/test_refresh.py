"""The dashboard refreshes what changes, at the cost of one look; changes of secrets are told in words people read."""

import re
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from environments.models import TemporalConnection
from tests.support.calls import fresh_fleet, start
from tests.support.console import form_of, person, post_confirmed, signed_in, url
from tests.support.factories import Fleet
from workers.admin.connections.pages import UNPROVEN

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

PART = "/admin/?period=7d&part=fleet"


@pytest.fixture
def fleet(db: None) -> Fleet:
    person(is_staff=True, is_superuser=True)
    return fresh_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()


def test_the_dashboard_fetches_its_part_for_the_chosen_period(client: Client) -> None:
    text = client.get("/admin/?period=7d").content.decode()
    assert [unescape(address) for address in re.findall(r'data-refresh="([^"]+)"', text)] == ["?period=7d&part=fleet"]
    assert "<html" in text


def test_the_part_is_what_changes_and_nothing_else(client: Client, fleet: Fleet) -> None:
    start(fleet)
    text = client.get(PART).content.decode()
    assert text.count('id="fleet"') == 1
    assert fleet.worker.name in text
    assert not re.search(r"<html|<script|data-refresh|nav-sidebar", text)


def test_the_part_costs_what_one_look_costs(client: Client, fleet: Fleet) -> None:
    start(fleet)
    costs = []
    for address in ("/admin/?period=7d", PART):
        client.get(address)
        with CaptureQueriesContext(connection) as statements:
            client.get(address)
        costs.append(len(statements))
    assert costs[1] <= costs[0] <= 12


def test_a_confirmation_tells_times_to_the_second(client: Client, fleet: Fleet) -> None:
    start(fleet)
    address = url(TemporalConnection, "change", fleet.temporal.pk)
    text = client.post(address, {**form_of(client, address), "api_key": "another-secret"}).content.decode()
    assert "What you change" in text
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", text)
    assert not re.search(r"\d\d:\d\d:\d\d\.\d{3,}", text)


def test_a_new_secret_that_was_never_seen_to_work_is_told(client: Client, fleet: Fleet) -> None:
    start(fleet)
    address = url(TemporalConnection, "change", fleet.temporal.pk)
    assert post_confirmed(client, address, {**form_of(client, address), "api_key": "another-secret"}).status_code == 302
    text = client.get(address).content.decode()
    assert UNPROVEN in text
    assert "Version 2 was never seen to work" in text
