from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from environments.models import Environment, LiteLLMConnection, Organization, Role, TemporalConnection
from environments.roles import EVERYWHERE, Staff
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.models import Liveness, WorkerInstance, WorkerQueue
from workers.reports.dashboard import Dashboard, Trouble, first_steps, look_at_fleet

pytestmark = pytest.mark.sqlite


def look(staff: Staff = EVERYWHERE, hours: int = 24) -> Dashboard:
    return look_at_fleet(staff, hours=hours, now=timezone.now())


def test_counts_workers_by_liveness(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    factories.create_worker(fleet.queue, "never")
    assert look().workers == {
        Liveness.NEVER_STARTED: 1,
        Liveness.ONLINE: 1,
        Liveness.LATE: 0,
        Liveness.OFFLINE: 0,
        Liveness.STOPPED: 0,
    }
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - timedelta(minutes=5))
    assert look().workers[Liveness.OFFLINE] == look().attention.offline == 1


def test_the_chart_has_each_start_in_its_hour(fleet: Fleet) -> None:
    for _ in range(2):
        assert start(fleet).status_code == 200
    for hours in (24, 168):
        chart = look(hours=hours).chart
        assert len(chart.bars) == hours
        assert (chart.total, sum(bar.count for bar in chart.bars[-2:])) == (2, 2)


def test_queues_are_shown_with_how_full_they_are_the_fullest_first(fleet: Fleet) -> None:
    for name, limit in (("roomy", 4), ("full", 1)):
        queue = factories.create_queue(fleet.environment, name, max_workers=limit)
        worker = factories.create_worker(queue)
        assert start(fleet, worker_id=worker.pk, token=factories.issue_token(worker)).status_code == 200
    assert start(fleet).status_code == 200
    loads = [(load.queue.name, load.live, load.share) for load in look().loads]
    assert loads == [("full", 1, 100), ("roomy", 1, 25), ("default", 1, 100)]


def test_a_duplicate_takes_a_place_of_its_queue(fleet: Fleet) -> None:
    assert start(fleet, {"system_info": {"hostname": "a", "pid": 1}}).status_code == 200
    assert start(fleet, {"system_info": {"hostname": "b", "pid": 1}}).status_code == 200
    dashboard = look()
    assert dashboard.attention.duplicates == 1
    assert dashboard.loads[0].live == 2


def test_tells_what_needs_attention(fleet: Fleet) -> None:
    assert look().attention.total == 0
    for _ in range(3):
        assert start(fleet).status_code == 200
    WorkerInstance.objects.filter(is_current=False).update(stopped_at=timezone.now())
    factories.point(fleet.queue, heartbeat_interval=30)
    factories.issue_key(fleet.worker, lifetime=timedelta(days=29))
    factories.issue_key(fleet.worker, lifetime=timedelta(days=31))
    TemporalConnection.objects.update(api_key_expires_on=timezone.now().date())
    LiteLLMConnection.objects.update(verification_problem="refused")
    attention = look().attention
    assert (attention.crash_looping, attention.outdated, attention.expiring_keys) == (1, 1, 1)
    assert attention.connections == {
        "temporalconnection": Trouble(failing=0, expiring=1),
        "litellmconnection": Trouble(failing=1, expiring=0),
        "telemetrysettings": Trouble(),
    }
    assert attention.total == 5


def test_a_person_sees_their_own_organizations_only(fleet: Fleet) -> None:
    other = fresh_fleet()
    for _ in range(3):
        assert start(other).status_code == 200
    TemporalConnection.objects.update(verification_problem="refused")
    mine = look(Staff(roles={fleet.organization.pk: Role.VIEWER}))
    assert mine.workers[Liveness.NEVER_STARTED] == 1
    assert sum(mine.workers.values()) == 1
    assert (mine.chart.total, mine.latest_starts, mine.loads) == (0, [], [])
    assert (mine.attention.crash_looping, mine.attention.connections["temporalconnection"].failing) == (0, 1)
    nobody = look(Staff())
    assert (sum(nobody.workers.values()), nobody.attention.total, nobody.chart.total) == (0, 0, 0)


@pytest.mark.parametrize("workers", [1, 30])
def test_the_statements_do_not_grow_with_the_fleet(
    fleet: Fleet, workers: int, django_assert_max_num_queries: Any
) -> None:
    for number in range(workers):
        queue = factories.create_queue(fleet.environment, f"queue-{number}", max_workers=2)
        worker = factories.create_worker(queue, temporal_connection=fleet.temporal, litellm_connection=fleet.litellm)
        assert start(fleet, worker_id=worker.pk, token=factories.issue_token(worker)).status_code == 200
    with django_assert_max_num_queries(10):
        look()


def test_the_first_steps_tick_themselves_off(db: None) -> None:
    assert [is_done for _, _, is_done in first_steps(EVERYWHERE)] == [False] * 7
    organization = factories.create_organization("acme")
    assert [is_done for _, _, is_done in first_steps(EVERYWHERE)] == [True] + [False] * 6
    factories.create_queue(factories.create_environment(organization))
    assert [model for _, model, is_done in first_steps(EVERYWHERE) if is_done] == [
        Organization,
        Environment,
        WorkerQueue,
    ]
    assert [is_done for _, _, is_done in first_steps(Staff())] == [False] * 7
