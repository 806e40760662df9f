"""`prune_starts` takes old starts off the ledger, keeps what a reader still needs, and holds no start up."""

import json
import threading
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments.models import AuditEvent
from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.factories import ACTOR, Fleet, presented
from workers.lifecycle import Client, old_starts, start_worker
from workers.lifecycle.starts import Attempt
from workers.models import ApiKey, InstanceReport, Worker, WorkerInstance, WorkerStart
from workers.reports.rotation_wave import wave_of

pytestmark = pytest.mark.sqlite

DAY = timedelta(days=1)


@pytest.fixture
def fleet(transactional_db: None) -> Fleet:
    return fresh_fleet()


def start(fleet: Fleet, *, days_ago: float, worker: Worker | None = None, heard_days_ago: float = -1) -> WorkerStart:
    """A start so long ago, whose process was last heard of then, or later if that is said."""
    now = timezone.now() - days_ago * DAY
    worker = worker or fleet.worker
    key = ApiKey.objects.get(pk=fleet.api_key.pk)
    start_worker(worker.pk, Attempt(presented(key), {"hostname": "h", "pid": 1}, Client("127.0.0.1"), now))
    found = WorkerStart.objects.get(worker=worker.pk, started_at=now)
    instance = WorkerInstance.objects.get(pk=found.pk)
    if heard_days_ago >= 0:
        WorkerInstance.objects.filter(pk=found.pk).update(last_heartbeat_at=timezone.now() - heard_days_ago * DAY)
    InstanceReport.objects.create(
        id=found.pk, organization_id=found.organization_id, instance=instance, reported_at=now
    )
    return found


def run(*arguments: str, older_than: str = "180d") -> dict[str, Any]:
    out = StringIO()
    arguments = (f"--older-than={older_than}", "--format=json", *arguments)
    call_command("prune_starts", *arguments, stdout=out, stderr=StringIO())
    found: dict[str, Any] = json.loads(out.getvalue())
    assert datetime.fromisoformat(found.pop("before")) < timezone.now()
    return found


def remaining() -> list[WorkerStart]:
    return list(WorkerStart.objects.order_by("started_at"))


def test_removes_the_older_starts_with_their_ended_processes(fleet: Fleet) -> None:
    start(fleet, days_ago=300)
    start(fleet, days_ago=181)
    younger, latest = start(fleet, days_ago=179), start(fleet, days_ago=1)
    assert run() == {"is_dry_run": False, "old": 2, "kept": 0, "removed": 2}
    assert remaining() == [younger, latest]
    for model in (WorkerInstance, InstanceReport):
        assert {row.pk for row in model.objects.all()} == {younger.pk, latest.pk}
    assert run() == {"is_dry_run": False, "old": 0, "kept": 0, "removed": 0}


def test_a_dry_run_counts_the_same_and_removes_nothing(fleet: Fleet) -> None:
    for days_ago in (300, 290, 280):
        start(fleet, days_ago=days_ago)
    expected = {"old": 3, "kept": 1, "removed": 2}
    assert run("--dry-run") == {"is_dry_run": True, **expected}
    assert len(remaining()) == WorkerInstance.objects.count() == 3
    assert run() == {"is_dry_run": False, **expected}


def test_the_last_start_of_a_worker_stays_however_old(fleet: Fleet) -> None:
    start(fleet, days_ago=400)
    last = start(fleet, days_ago=390)
    assert run()["kept"] == 1
    assert remaining() == [last]
    assert WorkerInstance.objects.get().pk == last.pk


def test_a_process_that_still_beats_keeps_its_start_and_its_place_in_the_rotation_wave(fleet: Fleet) -> None:
    running = start(fleet, days_ago=300, heard_days_ago=0)
    newest = start(fleet, days_ago=200, heard_days_ago=0)
    before = wave_of(fleet.temporal, timezone.now())
    assert run() == {"is_dry_run": False, "old": 2, "kept": 2, "removed": 0}
    assert remaining() == [running, newest]
    assert wave_of(fleet.temporal, timezone.now()) == before


def test_an_older_process_that_was_heard_of_since_keeps_its_start(fleet: Fleet) -> None:
    silent_for_long = start(fleet, days_ago=300, heard_days_ago=179)
    newest = start(fleet, days_ago=2)
    assert run()["removed"] == 0
    assert remaining() == [silent_for_long, newest]


def test_removes_the_starts_of_a_worker_that_is_gone(fleet: Fleet) -> None:
    start(fleet, days_ago=300)
    WorkerInstance.objects.all().delete()
    ApiKey.objects.all().delete()
    Worker.objects.all().delete()
    assert run()["removed"] == 1
    assert remaining() == []


def test_the_trail_of_each_organization_says_since_when_its_ledger_is_complete(fleet: Fleet) -> None:
    other = factories.create_fleet()
    for each in (fleet, fleet, other, other):
        start(each, days_ago=300)
    start(factories.create_fleet(), days_ago=1)
    run()
    events = AuditEvent.objects.filter(action="organization.starts_pruned").order_by("organization")
    assert {event.organization_id for event in events} == {fleet.organization.pk, other.organization.pk}
    assert len(events) == 2
    assert {event.actor for event in events} == {"command:prune_starts"}
    since = datetime.fromisoformat(events[0].changes["starts_before"][1])
    assert abs(timezone.now() - 180 * DAY - since) < timedelta(minutes=1)


def test_goes_on_batch_by_batch_past_what_stays_also_at_one_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_starts, "BATCH", 2)
    for _ in range(3):
        start(fleet, days_ago=300)
    at = WorkerStart.objects.earliest("started_at").started_at
    others = [factories.create_worker(fleet.queue, f"other-{number}") for number in range(4)]
    rows = [WorkerStart(**facts(fleet, other), started_at=at) for other in others]
    WorkerStart.objects.bulk_create(rows)
    now = timezone.now()
    batches = list(old_starts.prune_starts(before=now - 180 * DAY, actor=ACTOR, now=now))
    assert [batch.seen for batch in batches] == [2, 2, 2, 1]
    assert sum(batch.removed for batch in batches) == 6
    assert [row.pk for row in remaining()] == [WorkerInstance.objects.get(is_current=True).pk]


def facts(fleet: Fleet, worker: Worker) -> dict[str, Any]:
    row = WorkerStart.objects.earliest("started_at")
    names = (field.attname for field in WorkerStart._meta.concrete_fields if field.name not in {"id", "started_at"})
    return {name: getattr(row, name) for name in names} | {"worker_id": worker.pk}


def test_what_was_removed_before_it_was_broken_off_stays_removed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_starts, "BATCH", 1)
    for days_ago in (300, 290, 280, 1):
        start(fleet, days_ago=days_ago)
    now = timezone.now()
    next(old_starts.prune_starts(before=now - 180 * DAY, actor=ACTOR, now=now))
    assert len(remaining()) == 3
    assert run()["removed"] == 2


def test_each_batch_takes_as_few_statements_as_any_other(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for days_ago in range(300, 280, -1):
        start(fleet, days_ago=days_ago)
    now = timezone.now()
    with CaptureQueriesContext(
        connection,
    ) as one:
        list(old_starts.prune_starts(before=now - 290.5 * DAY, actor=ACTOR, now=now))
    monkeypatch.setattr(old_starts, "BATCH", 3)
    with CaptureQueriesContext(connection) as three:
        list(old_starts.prune_starts(before=now - 281.5 * DAY, actor=ACTOR, now=now))
    assert len(three) <= 3 * len(one)


def test_a_worker_starts_while_a_batch_is_removed(fleet: Fleet) -> None:
    """On PostgreSQL, where a start need not wait for another writer at all."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time: a start waits for the batch, a fraction of a second")
    for days_ago in (300, 290, 280):
        start(fleet, days_ago=days_ago)
    now = timezone.now()
    started = threading.Event()

    def start_now() -> None:
        start(fleet, days_ago=0)
        started.set()
        connection.close()

    with transaction.atomic():
        next(old_starts.prune_starts(before=now - 285 * DAY, actor=ACTOR, now=now))
        thread = threading.Thread(target=start_now)
        thread.start()
        was_held_up = not started.wait(10)
    thread.join()
    assert not was_held_up


def test_a_process_that_a_start_has_locked_is_left_for_the_next_run(fleet: Fleet) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite locks no rows")
    locked, _ = start(fleet, days_ago=300), start(fleet, days_ago=1)
    counts: list[dict[str, Any]] = []

    def prune() -> None:
        counts.append(run())
        connection.close()

    with transaction.atomic():
        WorkerInstance.objects.filter(pk=locked.pk).update(stop_reason="superseded")
        thread = threading.Thread(target=prune)
        thread.start()
        thread.join(20)
        assert counts == [{"is_dry_run": False, "old": 1, "kept": 1, "removed": 0}]
    assert run()["removed"] == 1


@pytest.mark.parametrize("age", ["", "0d", "-1d", "180", "6m", "1.5d", "999999d", "١d"])
def test_refuses_nonsense(db: None, age: str) -> None:
    with pytest.raises(CommandError, match="expected a number of days such as 180d, at least 1d"):
        run(older_than=age)


def test_the_oldest_age_is_fine(db: None) -> None:
    assert run(older_than="99999d")["removed"] == 0


def test_the_age_has_to_be_said(db: None) -> None:
    with pytest.raises(CommandError, match="--older-than"):
        call_command("prune_starts")


def test_tells_progress_on_stderr_and_the_result_on_stdout(fleet: Fleet) -> None:
    for days_ago in (300, 290, 280):
        start(fleet, days_ago=days_ago)
    out, err = StringIO(), StringIO()
    call_command("prune_starts", "--older-than=180d", stdout=out, stderr=err)
    assert out.getvalue() == "2 starts removed, 1 older ones kept\n"
    assert err.getvalue() == "starts looked at: 3 of 3\n"
