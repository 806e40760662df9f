"""Forms say what will happen: what an empty connection inherits, and that a worker's page begins with what it does."""

from html import unescape
from typing import Any

import pytest
from django.test import Client

from environments.models import TelemetrySettings
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import person, signed_in, url
from tests.support.factories import Fleet, point
from workers.admin.inheritance import EXPORTS_NOTHING, LATER, MISSING, inherited_by
from workers.models import Worker

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


@pytest.fixture
def fleet(db: None) -> Fleet:
    person(is_staff=True, is_superuser=True)
    return fresh_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()


def page(client: Client, row: Any, name: str = "change") -> str:
    response = client.get(url(type(row), name, *([row.pk] if name == "change" else [])))
    assert response.status_code == 200
    return unescape(response.content.decode())


def test_each_level_says_what_it_inherits_and_from_where(fleet: Fleet) -> None:
    staging = factories.create_temporal(fleet.organization, "staging")
    point(fleet.environment, temporal_connection=staging)
    organization = f"Empty inherits {fleet.litellm} from organization {fleet.organization}."
    environment = f"Empty inherits {staging} from environment {fleet.environment}."
    for row in (fleet.worker, fleet.queue):
        assert inherited_by(row) == {
            "temporal_connection": environment,
            "litellm_connection": organization,
            "telemetry_settings": EXPORTS_NOTHING,
        }
    at_environment = inherited_by(fleet.environment)
    assert (
        at_environment["temporal_connection"]
        == f"Empty inherits {fleet.temporal} from organization {fleet.organization}."
    )


def test_the_narrowest_level_above_wins(fleet: Fleet) -> None:
    of_queue = factories.create_litellm(fleet.organization, "of-the-queue")
    point(fleet.queue, litellm_connection=of_queue)
    fleet.worker.refresh_from_db()
    assert inherited_by(fleet.worker)["litellm_connection"] == (
        f"Empty inherits {of_queue} from worker queue {fleet.queue}."
    )
    assert "of-the-queue" not in inherited_by(fleet.queue)["litellm_connection"]


def test_what_no_level_has_refuses_starts(fleet: Fleet) -> None:
    point(fleet.organization, temporal_connection=None)
    fleet.worker.refresh_from_db()
    assert inherited_by(fleet.worker)["temporal_connection"] == MISSING


def test_the_forms_say_it(client: Client, fleet: Fleet) -> None:
    for row in (fleet.worker, fleet.queue, fleet.environment):
        text = page(client, row)
        assert f"Empty inherits {fleet.temporal} from organization {fleet.organization}." in text
        assert EXPORTS_NOTHING in text
    assert LATER in page(client, fleet.queue, "add")


def test_telemetry_without_an_endpoint_is_said_to_export_nothing(client: Client) -> None:
    assert "Empty exports nothing, even where telemetry is enabled." in page(client, TelemetrySettings(), "add")


def test_a_worker_s_page_begins_with_what_it_does(client: Client, fleet: Fleet) -> None:
    start(fleet)
    text = page(client, fleet.worker)
    parts = ['id="overview"', 'id="processes-of-worker"', 'id="given"', 'id="starts"', 'id="worker_form"']
    assert [text.count(part) for part in parts] == [1] * len(parts)
    assert sorted(parts, key=text.index) == parts
    assert '<a class="cp-link" href="#worker_form">Edit</a>' in text


def test_a_form_with_an_error_is_not_below_all_that(client: Client, fleet: Fleet) -> None:
    response = client.post(url(Worker, "change", fleet.worker.pk), {"name": "not a slug", "queue": fleet.queue.pk})
    text = response.content.decode()
    assert text.index('id="worker_form"') < text.index('id="processes-of-worker"')
    assert text.count('id="processes-of-worker"') == 1
