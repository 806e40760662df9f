from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from tests.support import factories
from tests.support.calls import start
from tests.support.factories import Fleet
from tests.support.shared_fleet import *  # noqa: F403  # the fixtures
from workers.models import ApiKey, Scope, Worker, WorkerInstance, WorkerQueue, WorkerStart

pytestmark = pytest.mark.sqlite

NOW = timezone.now()


# --- API keys ----------------------------------------------------------------------------------------------------------


SCOPES = {
    "worker scope without worker": {"scope": "worker", "worker_id": None},
    "worker scope with a queue too": {"scope": "worker", "queue": "queue"},
    "worker scope with an environment too": {"scope": "worker", "environment": "environment"},
    "queue scope for a worker": {"scope": "queue"},
    "queue scope without queue": {"scope": "queue", "worker_id": None},
    "environment scope without environment": {"scope": "environment", "worker_id": None},
    "environment scope with a queue": {"scope": "environment", "worker_id": None, "queue": "queue"},
    "organization scope for a worker": {"scope": "organization"},
    "organization scope with a queue": {"scope": "organization", "worker_id": None, "queue": "queue"},
    "all at once": {"scope": "worker", "queue": "queue", "environment": "environment"},
    "an unknown scope": {"scope": "root", "worker_id": None},
    "an empty scope": {"scope": ""},
    "an upper-case scope": {"scope": "WORKER"},
}


@pytest.mark.parametrize("change", SCOPES.values(), ids=SCOPES)
def test_the_database_takes_exactly_one_scope(fleet: Fleet, change: dict[str, Any]) -> None:
    values = {
        name: getattr(fleet, value) if name in {"queue", "environment"} else value for name, value in change.items()
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.filter(pk=fleet.api_key.pk).update(**values)


def test_the_database_takes_each_scope_with_its_own_target(fleet: Fleet) -> None:
    none = {"worker": None, "queue": None, "environment": None}
    for scope in Scope:
        target = {} if scope == Scope.ORGANIZATION else {scope.value: getattr(fleet, scope.value)}
        assert ApiKey.objects.update(scope=scope, **none | target) == 1


def test_the_database_demands_a_reason_for_no_expiry(fleet: Fleet) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.update(expires_at=None)
    assert ApiKey.objects.update(expires_at=None, no_expiry_reason="air gap") == 1


def test_two_keys_cannot_share_a_hash(fleet: Fleet) -> None:
    other = factories.issue_key(fleet.worker).row
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.filter(pk=other.pk).update(token_hash=fleet.api_key.token_hash)


def test_a_key_covers_what_lies_below_its_scope(fleet: Fleet) -> None:
    sibling = factories.create_worker(fleet.queue, "sibling")
    elsewhere = factories.create_worker(factories.create_queue(fleet.environment, "elsewhere"))
    staging = factories.create_worker(
        factories.create_queue(factories.create_environment(fleet.organization, "staging"))
    )
    foreign = factories.create_fleet().worker
    workers = [fleet.worker, sibling, elsewhere, staging, foreign]
    for target, expected in (
        (fleet.worker, [True, False, False, False, False]),
        (fleet.queue, [True, True, False, False, False]),
        (fleet.environment, [True, True, True, False, False]),
        (fleet.organization, [True, True, True, True, False]),
    ):
        key = factories.issue_key(target).row
        assert [key.covers(worker) for worker in workers] == expected


@pytest.mark.parametrize(
    ("change", "is_usable"),
    [
        ({"expires_at": NOW + timedelta(seconds=1)}, True),
        ({"expires_at": NOW}, False),
        ({"expires_at": NOW - timedelta(seconds=1)}, False),
        ({"expires_at": None, "no_expiry_reason": "x"}, True),
        ({"revoked_at": NOW}, False),
        ({"revoked_at": NOW + timedelta(days=1)}, False),
        ({"revoked_at": NOW, "expires_at": None, "no_expiry_reason": "x"}, False),
    ],
)
def test_a_key_is_usable_until_it_is_revoked_or_expires(fleet: Fleet, change: dict[str, Any], is_usable: bool) -> None:
    ApiKey.objects.update(**change)
    assert ApiKey.objects.get().is_usable(NOW) is is_usable


@pytest.mark.parametrize(
    ("left", "warning"),
    [
        (timedelta(days=31), None),
        (timedelta(days=30, seconds=1), None),
        (timedelta(days=30), 30),
        (timedelta(days=20, seconds=1), 30),
        (timedelta(days=20), 20),
        (timedelta(days=10), 10),
        (timedelta(days=3), 3),
        (timedelta(days=1), 1),
        (timedelta(seconds=1), 1),
        (timedelta(0), None),
    ],
)
def test_warns_at_30_20_10_3_and_1_days(left: timedelta, warning: int | None) -> None:
    key = ApiKey(created_at=NOW - timedelta(days=60), expires_at=NOW + left)
    assert key.expiry_warning(NOW) == warning


@pytest.mark.parametrize(
    ("lifetime", "warning"), [(timedelta(hours=24), None), (timedelta(days=2), None), (timedelta(days=3), 1)]
)
def test_nobody_is_warned_of_the_end_of_a_key_for_one_occasion(lifetime: timedelta, warning: int | None) -> None:
    key = ApiKey(created_at=NOW + timedelta(hours=1) - lifetime, expires_at=NOW + timedelta(hours=1))
    assert key.expiry_warning(NOW) == warning


def test_does_not_warn_of_keys_that_are_over_or_never_expire() -> None:
    assert ApiKey(created_at=NOW, expires_at=NOW + timedelta(days=9), revoked_at=NOW).expiry_warning(NOW) is None
    assert ApiKey(created_at=NOW, expires_at=None).expiry_warning(NOW) is None


# --- Ledger ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [field.column for field in WorkerStart._meta.concrete_fields])
def test_the_database_refuses_to_change_the_ledger(fleet: Fleet, column: str) -> None:
    start(fleet)
    before = WorkerStart.objects.values().get()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE workers_workerstart SET {column} = {column}")  # noqa: S608
    assert WorkerStart.objects.values().get() == before


def test_the_ledger_outlives_what_it_names(fleet: Fleet) -> None:
    start(fleet)
    worker_id = fleet.worker.pk
    ApiKey.objects.all().delete()
    Worker.objects.filter(pk=worker_id).delete()
    row = WorkerStart.objects.get()
    assert (row.worker_id, row.worker_name) == (worker_id, "worker-1")


# --- Instances ---------------------------------------------------------------------------------------------------------


def test_a_worker_has_one_current_instance(fleet: Fleet) -> None:
    start(fleet)
    start(fleet)
    assert WorkerInstance.objects.filter(is_current=True).count() == 1
    with pytest.raises(IntegrityError), transaction.atomic():
        WorkerInstance.objects.update(is_current=True)


# --- Queues ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 4, 3601, -1])
def test_the_database_refuses_an_absurd_heartbeat_interval(fleet: Fleet, seconds: int) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        WorkerQueue.objects.update(heartbeat_interval=seconds)


def test_the_task_queue_is_named_by_organization_environment_and_queue(fleet: Fleet) -> None:
    assert fleet.queue.task_queue_name == f"{fleet.organization.id}.production.default"
