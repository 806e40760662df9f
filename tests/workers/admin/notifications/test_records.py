"""The pages of what stands and of messages: what they show, and that what was given up is sent again."""

import pytest
from django.test import Client
from django.utils import timezone

from environments.models import AuditEvent, LiteLLMConnection, Role
from tests.support import factories
from tests.support.console import member, signed_in, url
from tests.support.factories import Fleet
from tests.support.notifications import Watch, create_target
from tests.support.receivers import Receiver
from workers.models import Incident, NotificationDelivery

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:Overriding get_action_choices")]

MESSAGE = "Connection litellm does not work: Down."


@pytest.fixture
def watch(fleet: Fleet, receiver: Receiver) -> Watch:
    """Which has seen a connection fail."""
    create_target(fleet.organization, url=receiver.url)
    LiteLLMConnection.objects.update(verification_problem="Down.")
    watch = Watch()
    assert watch.look_after(seconds=1) == [MESSAGE]
    return watch


def test_what_stands_is_listed_until_it_is_over(fleet: Fleet, client: Client, watch: Watch) -> None:
    address = url(Incident, "changelist")
    page = client.get(address).content.decode()
    assert f"/admin/environments/litellmconnection/{fleet.litellm.pk}/change/" in page
    assert "Stands now" in page
    incident = Incident.objects.get()
    assert "Down." in client.get(url(Incident, "change", incident.pk)).content.decode()
    LiteLLMConnection.objects.update(verification_problem="")
    watch.look_after(seconds=1)
    watch.look_after(minutes=1)
    for query, is_shown in (("", False), ("?state=over", True), ("?state=all", True), ("?event=queue_full", False)):
        assert (str(incident.pk) in client.get(address + query).content.decode()) is is_shown, query


def test_what_was_given_up_is_shown_and_sent_again(
    fleet: Fleet, client: Client, watch: Watch, receiver: Receiver
) -> None:
    now = timezone.now()
    other = factories.create_fleet()
    foreign = NotificationDelivery(organization=other.organization, target=create_target(other.organization))
    foreign.given_up_at = now
    foreign.save()
    delivery = NotificationDelivery.objects.get(organization=fleet.organization)
    rows = NotificationDelivery.objects.filter(pk=delivery.pk)
    rows.update(next_attempt_at=None, given_up_at=now, attempts=13, last_error="Nothing listens.")
    assert "notification that was given up" in client.get("/admin/").content.decode()
    address = url(NotificationDelivery, "changelist")
    page = client.get(f"{address}?state=given_up").content.decode()
    assert MESSAGE in page
    assert "Nothing listens." in page
    assert "Down." in client.get(url(NotificationDelivery, "change", delivery.pk)).content.decode()
    data = {"action": "try_again", "_selected_action": [delivery.pk, foreign.pk]}
    viewer = signed_in(member(fleet.organization, Role.VIEWER))
    viewer.post(address, data)
    assert rows.get().given_up_at
    response = client.post(address, data, follow=True)
    assert "One message is sent again." in response.content.decode()
    assert NotificationDelivery.objects.get(pk=foreign.pk).given_up_at
    (event,) = AuditEvent.objects.filter(action="notification_delivery.tried_again")
    assert (event.object_id, event.changes) == (str(delivery.pk), {"attempts": [13, 0]})
    watch.now = timezone.now()
    watch.send()
    assert receiver.messages == [MESSAGE]
    response = client.post(address, data, follow=True)
    assert "Nothing was changed: none of these messages was given up." in response.content.decode()
    assert "notification that was given up" not in client.get("/admin/").content.decode()
