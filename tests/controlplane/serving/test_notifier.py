"""The service's own part in telling: it looks and sends only on its turn, and only where it may serve."""

import threading
from collections.abc import Iterator

import pytest
from django.db import connection
from pytest_django import Settings

from controlplane.serving.gate import gate
from controlplane.serving.notifier import Notifier
from environments.models import LiteLLMConnection
from tests.support.calls import fresh_fleet
from tests.support.factories import Fleet
from tests.support.notifications import create_target
from tests.support.receivers import Receiver
from workers.models import Incident, Lookout, NotificationDelivery

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.stop()


@pytest.fixture
def fleet(transactional_db: None, receiver: Receiver, settings: Settings) -> Fleet:
    """A fleet whose target listens, and of which there is something to tell."""
    settings.CONNECTION_HOSTS = ()
    settings.CONTROL_PLANE_URL = "https://controlplane.example.com/"
    fleet = fresh_fleet()
    create_target(fleet.organization, url=receiver.url)
    LiteLLMConnection.objects.update(verification_problem="Down.")
    return fleet


def looked(notifier: Notifier) -> bool:
    """What it says in a thread of its own, as in the service, which closes that thread's connection."""
    told: list[bool] = []

    def run() -> None:
        told.append(notifier.look())
        assert connection.connection is None

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return told[0]


def test_one_of_all_looks_and_sends_with_links_to_the_console(fleet: Fleet, receiver: Receiver) -> None:
    first, second = Notifier(), Notifier()
    assert [looked(one) for one in (first, second, first)] == [True, False, False]
    (received,) = receiver.received
    pages = "https://controlplane.example.com/admin"
    assert received.payload["message"] == "Connection litellm does not work: Down."
    assert received.payload["url"] == f"{pages}/environments/litellmconnection/{fleet.litellm.pk}/change/"
    assert NotificationDelivery.objects.get().delivered_at
    assert Lookout.objects.get().finished_at


def test_nobody_is_told_where_nobody_may_be_served(
    fleet: Fleet, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "problem", "restored")
    assert not looked(Notifier())
    assert not Incident.objects.exists()
    monkeypatch.setattr(gate, "problem", "")
    assert looked(Notifier())
    assert len(receiver.received) == 1
