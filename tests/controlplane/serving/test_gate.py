"""While it is not safe to serve on the database nobody gets anything from it, and everybody learns that."""

import json

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.engines.troubles import DATABASE_AWAY
from controlplane.models import DatabaseMark
from controlplane.serving.gate import Gate, gate
from controlplane.serving.restoration import RESTORED, mark
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet

pytestmark = pytest.mark.django_db


@pytest.fixture
def fleet() -> Fleet:
    return fresh_fleet()


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "problem", RESTORED)


@pytest.mark.usefixtures("closed")
def test_a_start_is_503_and_reads_nothing(fleet: Fleet) -> None:
    answer = start(fleet)
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0
    assert fleet.temporal_secret not in answer.content.decode()


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("path", ["/api/v1/worker-queues", "/api/health", "/admin/", "/admin/login/", "/api/docs/"])
def test_nothing_that_asks_the_database_is_served(path: str) -> None:
    answer = Client().get(path, secure=True)
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0


@pytest.mark.usefixtures("closed")
def test_a_page_of_the_console_says_what_to_do() -> None:
    assert "accept_restore" in Client().get("/admin/login/", secure=True).content.decode()


@pytest.mark.usefixtures("closed")
def test_the_process_lives() -> None:
    assert Client().get("/livez").status_code == 200


def test_before_its_first_look_it_serves_nobody(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "problem", DATABASE_AWAY)
    answer = start(fleet)
    assert (answer.status_code, answer.json()) == (503, {"detail": DATABASE_AWAY})


def test_it_closes_and_opens_with_what_it_finds() -> None:
    found = Gate()
    mark(timezone.now())
    found.look()
    assert found.problem == ""
    DatabaseMark.objects.update(identity="another")
    found.look()
    assert found.problem == RESTORED
    mark(timezone.now())
    found.look()
    assert found.problem == ""


def test_readiness_says_why(fleet: Fleet) -> None:
    DatabaseMark.objects.update(identity="another")
    answer = Client().get("/readyz")
    assert (answer.status_code, json.loads(answer.content)["problems"]) == (503, [RESTORED])
