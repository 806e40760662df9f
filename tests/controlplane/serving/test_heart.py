"""The pulse tells what workers could reach: there is none while they are refused, whatever refuses them."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection
from django.test import RequestFactory
from django.utils import timezone

from controlplane.engines.circuit import Circuit
from controlplane.serving import heart as module
from controlplane.serving.heart import Heart, heart
from tests.support.calls import fresh_fleet, shared_client, start
from tests.support.circuits import Probe, wait_until
from tests.support.factories import Fleet, create_worker
from workers.lifecycle.pulse import reach
from workers.models import Liveness, Outage, Pulse, WorkerInstance


@pytest.fixture
def own() -> Heart:
    return Heart()


def answered(own: Heart, status: int, worker: str = "one") -> None:
    own.hear(RequestFactory().post(f"/api/v1/workers/{worker}/heartbeat"), status)


def pulse_of(age: timedelta) -> None:
    Pulse.objects.update_or_create(defaults={"beat_at": timezone.now() - age})


def has_beaten() -> bool:
    return Pulse.objects.filter(beat_at__gt=timezone.now() - timedelta(seconds=20)).exists()


def test_beats_where_nobody_calls(fleet: Fleet, own: Heart) -> None:
    own.beat()
    assert has_beaten()


def test_does_not_beat_while_the_circuit_refuses(fleet: Fleet, own: Heart, used: Circuit, probe: Probe) -> None:
    """Seen: 40 seconds in which everybody was refused, no outage, and a healthy fleet that was Offline."""
    assert start(fleet).status_code == 200
    long_ago = timedelta(seconds=200)
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - long_ago)
    pulse_of(long_ago - timedelta(seconds=10))
    probe.is_there = False
    used.found_away()
    own.beat()
    assert not has_beaten()
    assert liveness() in {Liveness.ONLINE, Liveness.LATE}
    used.close()
    own.beat()
    assert has_beaten()
    assert Outage.objects.count() == 1
    assert liveness() == Liveness.ONLINE


def liveness() -> str:
    return WorkerInstance.objects.with_liveness(timezone.now()).get().liveness


@pytest.mark.parametrize(
    ("answers", "is_heard"),
    [
        ([], True),
        ([("one", 204)], True),
        ([("one", 204), ("one", 503)], False),
        ([("one", 500)], False),
        ([("one", 503), ("one", 204)], True),
        ([("one", 204), ("two", 503), ("two", 503)], True),
        ([("one", 204), ("two", 503), ("one", 500)], False),
        ([("one", 503), ("two", 204)], True),
        ([("one", 404), ("one", 409), ("one", 401), ("one", 422)], True),
        ([("one", 503), ("two", 404), ("two", 409)], False),
    ],
)
def test_is_heard_as_long_as_one_workers_latest_heartbeat_was_noted(
    own: Heart, answers: list[tuple[str, int]], is_heard: bool
) -> None:
    for worker, status in answers:
        answered(own, status, worker)
    assert own.is_heard() is is_heard


def test_a_refusal_long_ago_tells_nothing(own: Heart, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(own, 503)
    monkeypatch.setattr(module, "TELLS_FOR", -1.0)
    assert own.is_heard()


def test_a_worker_that_was_noted_long_ago_tells_nothing_of_those_refused_now(
    own: Heart, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(own, 204, "ended")
    own._noted = dict.fromkeys(own._noted, -1_000.0)
    answered(own, 503)
    assert not own.is_heard()


def test_keeps_few_workers_in_mind(own: Heart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 10)
    for number in range(100):
        answered(own, 204, str(number))
    assert len(own._noted) <= 10
    assert own.is_heard()


def test_hears_what_heartbeats_are_answered(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart, "_noted", {})
    assert start(fleet).status_code == 200
    body, key = json.dumps({"status": "active"}).encode(), f"Bearer {fleet.token}"
    path = f"/api/v1/workers/{fleet.worker.pk}/heartbeat"
    assert shared_client().post(path, body, "application/json", HTTP_AUTHORIZATION=key).status_code == 204
    assert list(heart._noted) == [path]


def test_the_look_after_an_outage_puts_it_on_record(fleet: Fleet, own: Heart) -> None:
    pulse_of(timedelta(seconds=100))
    own.look()
    assert Outage.objects.count() == 1
    answered(own, 503)
    pulse_of(timedelta(seconds=100))
    own.look()
    assert not has_beaten()


# --- What holds up everybody ----------------------------------------------------------------------------------------------


@pytest.fixture
def held_up(transactional_db: None, another: psycopg.Connection[Any]) -> Callable[[str], None]:
    """Another transaction runs a statement, and stays."""
    fleet = fresh_fleet()
    assert start(fleet).status_code == 200
    create_worker(fleet.queue, "second")
    Pulse.objects.all().delete()
    return another.execute  # type: ignore[return-value]


@pytest.mark.parametrize("table", ["workers_workerinstance", "workers_worker", "workers_apikey", "workers_workerqueue"])
def test_a_locked_table_holds_up_everybody_so_there_is_no_pulse_and_the_door_closes(
    held_up: Callable[[str], None], own: Heart, used: Circuit, table: str
) -> None:
    used.probe = reach
    held_up(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    own.beat()
    connection.close()
    assert not has_beaten()
    wait_until(used.is_open)


@pytest.mark.parametrize("table", ["workers_workerinstance", "workers_worker", "environments_organization"])
def test_rows_that_somebody_has_locked_hold_up_their_own_only(
    held_up: Callable[[str], None], own: Heart, used: Circuit, table: str
) -> None:
    held_up(f"SELECT 1 FROM {table} FOR UPDATE")  # noqa: S608  # our own names
    own.beat()
    assert has_beaten()
    assert not used.is_looking()


def test_another_process_that_stands_still_in_its_beat_keeps_nobody_waiting(
    held_up: Callable[[str], None], own: Heart, used: Circuit
) -> None:
    own.beat()
    held_up("SELECT 1 FROM workers_pulse FOR UPDATE")
    own.beat()
    assert not used.is_open()
    assert not used.is_looking()


def test_a_beat_that_fails_ends_no_thread(own: Heart, used: Circuit, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError

    monkeypatch.setattr(module, "beat", fail)
    used.probe = Probe()
    own.beat()
    wait_until(lambda: not used.is_looking())
    assert not used.is_open()
