"""What the pages of a worker and of its queue tell of the latest look at Temporal."""

import re
from datetime import datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from tests.support.factories import Fleet
from tests.support.worker_pages import starts, told
from workers.models import QueueObservation, Sweep, WorkerInstance

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

SECOND = timedelta(seconds=1)


def observe(fleet: Fleet, at: datetime, **seen: object) -> None:
    row = {"queue": fleet.queue, "organization": fleet.organization, "asked_at": at, "observed_at": at}
    QueueObservation.objects.create(pk=fleet.queue.pk, **{**row, **seen})


@pytest.mark.parametrize(
    ("pass_began", "looked", "text"),
    [
        (20, 60, r"before this process started; the next look is due in [34]\d s \.$"),
        (70, 60, r"before this process started; the next look is due now\.$"),
        (None, 60, r"before this process started; the next look is due now\.$"),
        (20, 20, r"; whether this process polls cannot be told\.$"),
        (20, 300, r", which is too long ago to say anything\.$"),
    ],
)
def test_a_process_that_began_after_the_look_is_told_when_the_next_one_is(
    fleet: Fleet, client: Client, pass_began: int | None, looked: int, text: str
) -> None:
    """It started 40 seconds ago; so many seconds ago the latest pass began, and the queue was looked at."""
    starts(fleet, {"hostname": "host", "pid": 7})
    now = timezone.now()
    WorkerInstance.objects.update(started_at=now - 40 * SECOND)
    Sweep.objects.create(started_at=now - pass_began * SECOND if pass_began else None)
    observe(fleet, now - looked * SECOND)
    assert re.search(text, told(client, fleet, "observation"))


@pytest.mark.parametrize(("has_answered", "who"), [(False, "Temporal"), (True, "It")])
def test_a_server_that_does_not_answer_is_named_where_nothing_was_said_of_it(
    fleet: Fleet, client: Client, has_answered: bool, who: str
) -> None:
    starts(fleet, {"hostname": "host", "pid": 7})
    now = timezone.now()
    observe(fleet, now, observed_at=now if has_answered else None, problem="Nothing listens.")
    assert re.search(rf"(^|\. ){who} does not answer: Nothing listens\.$", told(client, fleet, "observation"))


def test_nothing_of_it_is_said_of_one_that_has_ended(fleet: Fleet, client: Client) -> None:
    starts(fleet, {"hostname": "host", "pid": 7})
    observe(fleet, timezone.now() - 30 * SECOND)
    WorkerInstance.objects.update(stopped_at=timezone.now())
    assert "started" not in told(client, fleet, "observation")


def test_a_stranger_that_calls_itself_like_two_is_one(fleet: Fleet, client: Client) -> None:
    names = ["1@host, 2@host", "<b>", "3@host"]
    observe(fleet, timezone.now(), pollers=4, strangers=4, stranger_identities=names)
    page = client.get(f"/admin/workers/workerqueue/{fleet.queue.pk}/change/").content.decode()
    strangers = page[page.index('id="strangers"') :].partition("</ul>")[0]
    shown = [item.partition("</li>")[0] for item in strangers.split("<li>")[1:]]
    assert shown == ["<bdi>1@host, 2@host</bdi>", "<bdi>&lt;b&gt;</bdi>", "<bdi>3@host</bdi>", "and others"]
