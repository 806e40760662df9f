"""`prune_workers` removes ephemeral workers that have gone, and nothing else."""

import json
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.factories import ACTOR, Fleet, presented
from workers.lifecycle import Client, gone_workers, start_in_queue, start_worker
from workers.lifecycle.refusals import RefusedCall, record_refused_call
from workers.lifecycle.starts import Attempt
from workers.models import ApiKey, InstanceReport, Refusal, Worker, WorkerInstance, WorkerStart

pytestmark = pytest.mark.sqlite

DAY = timedelta(days=1)


@pytest.fixture
def committed_fleet(transactional_db: None) -> Fleet:
    return fresh_fleet()


def ephemeral(fleet: Fleet, *, silent_for: timedelta, **values: Any) -> Worker:
    """A worker that started in the fleet's queue, and was last heard of so long ago."""
    heard_of = timezone.now() - silent_for
    key = ApiKey.objects.get(pk=factories.issue_key(fleet.queue).row.pk)
    worker = start_in_queue(
        fleet.queue.pk, Attempt(presented(key), {"hostname": "h"}, Client("127.0.0.1"), heard_of)
    ).worker
    instance = worker.instances.get()
    WorkerInstance.objects.filter(pk=instance.pk).update(**values)
    InstanceReport.objects.create(
        id=instance.pk, organization_id=worker.organization_id, instance=instance, reported_at=heard_of
    )
    return worker


def run(*arguments: str) -> Any:
    out = StringIO()
    call_command("prune_workers", "--format=json", *arguments, stdout=out, stderr=StringIO())
    return json.loads(out.getvalue())


def test_removes_one_that_was_silent_for_a_day_and_keeps_its_start(committed_fleet: Fleet) -> None:
    gone = ephemeral(committed_fleet, silent_for=DAY + timedelta(minutes=1))
    assert run() == {"is_dry_run": False, "gone": 1, "removed": 1}
    assert not Worker.objects.filter(pk=gone.pk).exists()
    assert not WorkerInstance.objects.exists()
    assert not InstanceReport.objects.exists()
    assert WorkerStart.objects.get().worker_id == gone.pk
    event = AuditEvent.objects.get(action="worker.deleted")
    assert (event.object_id, event.actor) == (str(gone.pk), "command:prune_workers")
    assert run() == {"is_dry_run": False, "gone": 0, "removed": 0}


def test_what_was_refused_to_it_goes_with_it(committed_fleet: Fleet) -> None:
    gone = ephemeral(committed_fleet, silent_for=2 * DAY)
    refused = RefusedCall(gone.pk, 415, "The body must be application/json in UTF-8.", None, timezone.now())
    record_refused_call(committed_fleet.api_key, "heartbeat", refused)
    assert Refusal.objects.get().pk == gone.pk
    assert run()["removed"] == 1
    assert not Refusal.objects.exists()


def test_a_dry_run_only_counts(committed_fleet: Fleet) -> None:
    ephemeral(committed_fleet, silent_for=2 * DAY)
    workers = Worker.objects.count()
    assert run("--dry-run") == {"is_dry_run": True, "gone": 1, "removed": 0}
    assert Worker.objects.count() == workers


def test_keeps_one_that_was_heard_of_within_the_day(committed_fleet: Fleet) -> None:
    ephemeral(committed_fleet, silent_for=DAY - timedelta(minutes=1))
    assert run()["gone"] == 0


def test_removes_one_that_said_goodbye_long_ago(committed_fleet: Fleet) -> None:
    ephemeral(committed_fleet, silent_for=2 * DAY, stopped_at=timezone.now() - 2 * DAY)
    assert run()["removed"] == 1


def test_keeps_one_that_a_person_gave_a_key(committed_fleet: Fleet) -> None:
    factories.issue_key(ephemeral(committed_fleet, silent_for=2 * DAY))
    assert run()["gone"] == 0


def test_keeps_one_that_is_late_at_a_very_long_interval(committed_fleet: Fleet) -> None:
    committed_fleet.queue.heartbeat_interval = 3600
    committed_fleet.queue.save()
    ephemeral(committed_fleet, silent_for=timedelta(hours=2))
    assert run("--hours=1")["gone"] == 0


def test_never_removes_a_worker_that_a_person_created(committed_fleet: Fleet) -> None:
    long_ago = timezone.now() - 400 * DAY
    key = ApiKey.objects.get(pk=committed_fleet.api_key.pk)
    start_worker(committed_fleet.worker.pk, Attempt(presented(key), {}, Client(None), long_ago))
    Worker.objects.update(created_at=long_ago)
    assert run()["gone"] == 0
    assert Worker.objects.count() == 1


def test_works_in_batches_and_reports_each(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gone_workers, "BATCH", 2)
    for _ in range(5):
        ephemeral(fleet, silent_for=2 * DAY)
    now: datetime = timezone.now()
    assert list(gone_workers.prune_workers(silent_for=DAY, actor=ACTOR, now=now)) == [2, 2, 1]


@pytest.mark.parametrize("hours", ["0", "-1", "x", "9999999999999", "1.5", ""])
def test_refuses_nonsense(db: None, hours: str) -> None:
    with pytest.raises(CommandError, match="a whole number from 1 to 8,760 is needed"):
        run(f"--hours={hours}")


def test_a_run_that_is_broken_off_says_and_records_just_what_was_removed(
    another: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of one, of which the second is held by another session."""
    monkeypatch.setattr(gone_workers, "BATCH", 1)
    fleet = fresh_fleet()
    first, second = sorted((ephemeral(fleet, silent_for=2 * DAY) for _ in range(2)), key=lambda row: row.pk)
    another.execute("SELECT id FROM workers_worker WHERE id = %s FOR UPDATE", [second.pk])
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = 50")
    with pytest.raises(CommandError, match="Stopped after 1 workers"):
        run()
    connection.close()
    another.rollback()
    assert list(Worker.objects.filter(is_ephemeral=True)) == [second]
    assert [event.object_id for event in AuditEvent.objects.filter(action="worker.deleted")] == [str(first.pk)]
