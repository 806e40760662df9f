from datetime import timedelta

import pytest
from django.utils import timezone

from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.api_keys.issuing import revoke_api_key
from workers.models import Liveness, WorkerInstance
from workers.reports.monitoring import count_expiries, count_workers

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db]


@pytest.fixture
def fleet() -> Fleet:
    return fresh_fleet()


def liveness_of(fleet: Fleet, queue: str = "default") -> dict[Liveness, int]:
    return {
        figure.liveness: figure.workers
        for figure in count_workers(timezone.now())
        if figure[:3] == (fleet.organization.pk, "production", queue)
    }


def expiries_of(fleet: Fleet, kind: str) -> dict[str, int]:
    return {
        figure.expires: figure.number
        for figure in count_expiries(timezone.now())
        if (figure.kind, figure.organization) == (kind, fleet.organization.pk)
    }


def test_workers_are_counted_by_queue_and_liveness(fleet: Fleet) -> None:
    factories.create_worker(fleet.queue, "worker-2")
    assert liveness_of(fleet) == {**dict.fromkeys(Liveness, 0), Liveness.NEVER_STARTED: 2}
    assert start(fleet).status_code == 200
    assert liveness_of(fleet) == {**dict.fromkeys(Liveness, 0), Liveness.NEVER_STARTED: 1, Liveness.ONLINE: 1}
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(hours=1))
    assert liveness_of(fleet)[Liveness.OFFLINE] == 1


def test_a_queue_without_workers_is_told_too(fleet: Fleet) -> None:
    factories.create_queue(fleet.environment, "empty")
    assert liveness_of(fleet, "empty") == dict.fromkeys(Liveness, 0)


def test_keys_are_counted_by_the_warning_that_they_have_reached(fleet: Fleet) -> None:
    age = timedelta(days=60)
    for days in (0.5, 2, 2.5, 9, 25, 29):
        factories.issue_key(fleet.worker, name="key", lifetime=age + timedelta(days=days), age=age)
    factories.issue_key(fleet.worker, name="for a day", lifetime=timedelta(days=1))
    factories.issue_key(fleet.worker, name="key", lifetime=None, no_expiry_reason="a test")
    factories.issue_key(fleet.worker, name="key", lifetime=timedelta(days=9), age=timedelta(days=10))
    factories.issue_key(fleet.worker, name="key", lifetime=timedelta(days=1), age=timedelta(days=80))  # history
    own = {"later": 1}  # the fleet's
    assert expiries_of(fleet, "apikey") == {"1d": 1, "3d": 2, "10d": 1, "30d": 2, "never": 1, "expired": 1, **own}


def test_keys_that_nobody_misses_are_not_counted(fleet: Fleet) -> None:
    now = timezone.now()
    revoke_api_key(fleet.api_key.pk, reason="test", actor=factories.ACTOR, now=now)
    assert expiries_of(fleet, "apikey") == {}


@pytest.mark.parametrize(("days", "expires"), [(-1, "expired"), (0, "1d"), (2, "3d"), (3, "10d"), (60, "later")])
def test_a_credential_is_good_for_the_whole_of_its_last_day(fleet: Fleet, days: int, expires: str) -> None:
    assert expiries_of(fleet, "temporalconnection") == {"never": 1}
    fleet.temporal.api_key_expires_on = timezone.now().date() + timedelta(days=days)
    fleet.temporal.save()
    assert expiries_of(fleet, "temporalconnection") == {expires: 1}
    assert expiries_of(fleet, "litellmconnection") == {"never": 1}
