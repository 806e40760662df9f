from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from environments import audit
from environments.encryption import Secret
from environments.sealing.data_keys import seal_api_key
from tests.support import factories
from tests.support.calls import start
from tests.support.factories import ACTOR, Fleet
from workers.models import DuplicatePolicy, Worker, WorkerInstance, WorkerStart
from workers.reports.rotation_wave import running_on, wave_of

pytestmark = pytest.mark.sqlite


def replace_secret(connection: Any, secret: str) -> None:
    """As the console and `apply` do it."""
    before = audit.snapshot(connection)
    seal_api_key(connection, Secret(secret), now=timezone.now())
    connection.save()
    changes = audit.difference(before, audit.snapshot(connection))
    audit.record(f"{audit.kind_of(connection)}.updated", connection, actor=ACTOR, now=timezone.now(), changes=changes)


def boot(fleet: Fleet, worker: Worker, **system_info: Any) -> None:
    token = factories.issue_token(worker)
    response = start(fleet, {"system_info": system_info}, token=token, worker_id=worker.pk)
    assert response.status_code == 200, response.content


def restart(fleet: Fleet, worker: Worker) -> None:
    """Ends the worker's process in an orderly way and starts another."""
    WorkerInstance.objects.filter(worker=worker).update(stopped_at=timezone.now())
    boot(fleet, worker)


def workers_of(fleet: Fleet, count: int) -> list[Worker]:
    return [fleet.worker, *(factories.create_worker(fleet.queue, f"worker-{number}") for number in range(2, count + 1))]


def told(connection: Any) -> list[tuple[int, bool, int, int]]:
    """Of each version: which, whether current, live and offline workers."""
    return [(use.version, use.is_current, use.live, use.offline) for use in wave_of(connection, timezone.now())]


def silence(worker: Worker) -> None:
    WorkerInstance.objects.filter(worker=worker).update(last_heartbeat_at=timezone.now() - timedelta(hours=2))


@pytest.mark.parametrize("kind", ["temporal", "litellm"])
def test_a_wave_moves_with_each_restart(fleet: Fleet, kind: str) -> None:
    connection = getattr(fleet, kind)
    workers = workers_of(fleet, 3)
    for worker in workers:
        boot(fleet, worker)
    assert told(connection) == [(1, True, 3, 0)]
    replace_secret(connection, "second")
    assert told(connection) == [(2, True, 0, 0), (1, False, 3, 0)]
    restart(fleet, workers[0])
    assert told(connection) == [(2, True, 1, 0), (1, False, 2, 0)]
    for worker in workers[1:]:
        restart(fleet, worker)
    assert told(connection) == [(2, True, 3, 0), (1, False, 0, 0)]


def test_a_wave_tells_fingerprints_times_and_shares(fleet: Fleet) -> None:
    first = fleet.temporal.api_key_fingerprint
    audit.record(
        "temporal_connection.created",
        fleet.temporal,
        actor=ACTOR,
        now=timezone.now(),
        changes=audit.difference({}, audit.snapshot(fleet.temporal)),
    )
    workers = workers_of(fleet, 4)
    for worker in workers:
        boot(fleet, worker)
    replace_secret(fleet.temporal, "second")
    restart(fleet, workers[0])
    new, old = wave_of(fleet.temporal, timezone.now())
    assert (new.fingerprint, old.fingerprint) == (fleet.temporal.api_key_fingerprint, first)
    assert new.set_at
    assert old.set_at
    assert old.set_at <= new.set_at
    assert (new.share, old.share) == (25, 75)
    latest = WorkerStart.objects.filter(temporal_api_key_version=1).order_by("-started_at")[0]
    assert old.last_started_at == latest.started_at


def test_offline_workers_are_told_apart_and_stopped_ones_left_out(fleet: Fleet) -> None:
    live, offline, stopped = workers_of(fleet, 3)
    for worker in (live, offline, stopped):
        boot(fleet, worker)
    silence(offline)
    WorkerInstance.objects.filter(worker=stopped).update(stopped_at=timezone.now())
    replace_secret(fleet.temporal, "second")
    assert told(fleet.temporal) == [(2, True, 0, 0), (1, False, 1, 1)]
    boot(fleet, offline)
    assert told(fleet.temporal) == [(2, True, 1, 0), (1, False, 1, 0)]


def test_a_live_older_process_still_counts(fleet: Fleet) -> None:
    assert fleet.queue.duplicate_policy == DuplicatePolicy.ALLOW
    boot(fleet, fleet.worker, hostname="old", pid=1)
    replace_secret(fleet.temporal, "second")
    boot(fleet, fleet.worker, hostname="new", pid=2)
    assert told(fleet.temporal) == [(2, True, 1, 0), (1, False, 1, 0)]
    assert list(running_on(fleet.temporal, 1, timezone.now()).values_list("hostname", flat=True)) == ["old"]
    WorkerInstance.objects.filter(hostname="old").update(last_heartbeat_at=timezone.now() - timedelta(hours=2))
    assert told(fleet.temporal) == [(2, True, 1, 0), (1, False, 0, 0)]


def test_a_worker_that_runs_twice_on_a_version_counts_once(fleet: Fleet) -> None:
    boot(fleet, fleet.worker, hostname="one", pid=1)
    boot(fleet, fleet.worker, hostname="two", pid=2)
    assert told(fleet.temporal) == [(1, True, 1, 0)]


def test_a_wave_counts_only_who_was_given_this_connection(fleet: Fleet) -> None:
    own = factories.create_temporal(fleet.organization, "own")
    boot(fleet, fleet.worker)
    other = factories.create_worker(fleet.queue, "other")
    factories.point(other, temporal_connection=own)
    boot(fleet, other)
    factories.point(other, temporal_connection=None)  # what it points to now is not what it was given
    assert told(own) == told(fleet.temporal) == [(1, True, 1, 0)]
    assert [process.worker_id for process in running_on(own, 1, timezone.now())] == [other.pk]


def test_a_server_that_takes_no_key_has_no_wave(fleet: Fleet) -> None:
    open_server = factories.create_temporal(fleet.organization, "open", requires_api_key=False)
    factories.point(fleet.worker, temporal_connection=open_server)
    boot(fleet, fleet.worker)
    assert told(open_server) == []


def test_a_wave_takes_two_statements_however_many_workers(fleet: Fleet, django_assert_num_queries: Any) -> None:
    for worker in workers_of(fleet, 5):
        boot(fleet, worker)
    for number in range(30):
        replace_secret(fleet.temporal, f"secret-{number}")
    with django_assert_num_queries(2):
        wave = wave_of(fleet.temporal, timezone.now())
    assert [use.version for use in wave] == [31, 30, 1]
