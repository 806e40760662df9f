"""`manage.py audit`: what people, commands and workers did, in the order of time, without a secret."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from environments import audit
from environments.audit import Actor
from environments.models import AuditEvent
from environments.times import parse_time
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from workers.lifecycle.goodbyes import Goodbye, disconnect_worker
from workers.lifecycle.process import Client
from workers.models import WorkerInstance, WorkerStart
from workers.reports.history import Wanted, records

pytestmark = pytest.mark.sqlite

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture
def busy(fleet: Fleet) -> Fleet:
    """A key issued, a worker started, changed, and stopped."""
    assert start(fleet, {"system_info": {"hostname": "host-1"}}).status_code == 200
    record(fleet.worker, changes={"is_draining": [False, True]})
    goodbye = Goodbye("done\x1b[2J", 3, "the error message")
    disconnect_worker(fleet.worker.pk, goodbye, api_key=fleet.api_key, client=Client("127.0.0.1"), now=timezone.now())
    return fleet


def record(subject: Any, *, at: datetime | None = None, action: str = "worker.updated", **kwargs: Any) -> AuditEvent:
    return audit.record(action, subject, actor=Actor("user:ann", "203.0.113.7"), now=at or timezone.now(), **kwargs)


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("audit", *arguments, stdout=out)
    return out.getvalue()


def run_json(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, "--format", "json").splitlines()]


def actions(*arguments: str) -> list[str]:
    return [found["action"] for found in run_json(*arguments)]


# --- What it prints --------------------------------------------------------------------------------------------------------


def test_people_commands_and_workers_come_in_the_order_of_time(busy: Fleet) -> None:
    assert actions() == ["api_key.issued", "worker.started", "worker.updated", "worker.stopped"]
    assert actions("--people") == ["api_key.issued", "worker.updated"]


def test_each_line_tells_who_did_what_from_where_to_which_object(busy: Fleet) -> None:
    _, started, updated, stopped = run_json()
    assert updated == {
        "at": updated["at"],
        "actor": "user:ann",
        "action": "worker.updated",
        "organization_id": busy.organization.pk,
        "object_type": "worker",
        "object_id": str(busy.worker.pk),
        "object_name": str(busy.worker),
        "client_address": "203.0.113.7",
        "fields": {"is_draining": {"before": False, "after": True}},
        "details": {},
    }
    assert datetime.fromisoformat(updated["at"]).tzinfo is not None
    instance = WorkerInstance.objects.get()
    assert started["actor"] == stopped["actor"] == f"key:{busy.api_key.pk}"
    assert started["details"]["configuration_revision"] == instance.configuration_revision
    assert started["details"]["instance_id"] == stopped["details"]["instance_id"] == str(instance.pk)
    assert (stopped["details"]["reason"], stopped["details"]["exit_code"]) == ("done\x1b[2J", 3)
    assert stopped["object_id"] == str(busy.worker.pk)


def test_the_text_is_one_line_each_and_steers_no_terminal(busy: Fleet) -> None:
    text = run()
    assert len(text.splitlines()) == 4
    assert all(line.isprintable() for line in text.splitlines())
    line = next(line for line in text.splitlines() if "worker.updated" in line)
    assert "user:ann  203.0.113.7  worker.updated" in line
    assert "is_draining: false -> true" in line


def test_no_secret_and_nothing_that_a_process_said_of_its_end_is_printed(busy: Fleet) -> None:
    for text in (run(), run("--format", "json")):
        for secret in (busy.token, busy.api_key.token_hash, busy.temporal_secret, busy.litellm_secret, "error message"):
            assert secret not in text


# --- What it is asked for --------------------------------------------------------------------------------------------------


def test_it_can_be_asked_for_a_time(fleet: Fleet) -> None:
    for days in range(4):
        record(fleet.worker, at=NOW + timedelta(days=days), action=f"day.{days}")
    assert actions("--until", "2026-04-02") == ["day.0", "day.1"]
    assert actions("--since", "2026-04-01T12:00:00Z", "--until", "2026-04-03") == ["day.1", "day.2"]
    assert actions("--since", "2026-04-01T14:00:00+02:00", "--until", "2026-04-02") == ["day.1"]
    record(fleet.worker, at=timezone.now() - timedelta(hours=2), action="lately.done")
    assert actions("--since", "3h", "--action", "lately.done") == ["lately.done"]
    assert actions("--since", "1h", "--action", "lately.done") == []


def test_it_can_be_asked_for_an_actor_an_action_an_object_and_an_organization(busy: Fleet) -> None:
    other = fresh_fleet()
    key = f"key:{busy.api_key.pk}"
    assert actions("--actor", "user:ann") == ["worker.updated"]
    assert actions("--actor", key) == ["worker.started", "worker.stopped"]
    assert actions("--actor", key, "--action", "worker.stopped") == ["worker.stopped"]
    assert actions("--action", "worker.started") == ["worker.started"]
    assert actions("--object", str(busy.worker.pk)) == ["worker.started", "worker.updated", "worker.stopped"]
    assert actions("--object", str(other.worker.pk)) == []
    assert actions("--organization", other.organization.pk) == ["api_key.issued"]
    assert actions("--organization", busy.organization.pk, "--object", str(busy.api_key.pk)) == ["api_key.issued"]


def test_a_limit_keeps_the_newest_in_the_same_order(busy: Fleet) -> None:
    assert actions("--limit", "2") == ["worker.updated", "worker.stopped"]
    assert actions("--limit", "100") == actions()


@pytest.mark.parametrize("is_reversed", [False, True])
def test_pages_lose_and_repeat_nothing_even_at_one_moment(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, is_reversed: bool
) -> None:
    monkeypatch.setattr("workers.reports.history.PAGE", 3)
    for number in range(10):
        record(fleet.worker, at=NOW + timedelta(seconds=number // 5), action=f"n.{number}")
    WorkerStart.objects.bulk_create(
        WorkerStart(
            **{**dict.fromkeys(("worker_name", "task_queue_name"), "w"), "user_agent": ""},
            organization=fleet.organization,
            worker=fleet.worker,
            api_key=fleet.api_key,
            started_at=NOW + timedelta(seconds=number % 2),
            configuration_revision="r",
            temporal_connection_id=fleet.temporal.pk,
            temporal_api_key_version=1,
            litellm_connection_id=fleet.litellm.pk,
            litellm_api_key_version=1,
        )
        for number in range(7)
    )
    found = list(records(Wanted(until=NOW + timedelta(days=1)), is_reversed=is_reversed))
    times = [each.at for each in found]
    assert times == sorted(times, reverse=is_reversed)
    assert sorted(each.action for each in found) == sorted([f"n.{n}" for n in range(10)] + 7 * ["worker.started"])
    assert len({each.details["instance_id"] for each in found if each.details}) == 7


def test_it_changes_nothing_and_reads_a_page_in_one_statement(busy: Fleet) -> None:
    with CaptureQueriesContext(connection) as statements:
        run()
    assert len(statements) == 6
    assert all(each["sql"].startswith("SELECT") for each in statements)


# --- What it says no to ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], "expected a time such as 24h"),
        (["--since", "2026-13-45"], "month must be in 1..12"),
        (["--since", "0001-01-01T00:00:00+14:00"], "within the years"),
        (["--until", "7w"], "expected a time such as 24h"),
        (["--actor", "ann"], "An actor is user:<name>"),
        (["--actor", "user:\0"], "NUL"),
        (["--organization", "nowhere"], "There is no organization 'nowhere'."),
        (["--organization", "No/where"], "expected the id of an organization"),
        (["--limit", "0"], "a whole number from 1"),
    ],
)
def test_what_it_does_not_understand_it_says(db: None, arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message.replace("<", ".")):
        run(*arguments)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30min", NOW - timedelta(minutes=30)),
        ("24h", NOW - timedelta(hours=24)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-03-31", NOW.replace(hour=0)),
        ("2026-03-31T09:30:00", NOW.replace(hour=9, minute=30)),
        ("2026-03-31 09:30:00+02:00", NOW.replace(hour=7, minute=30)),
    ],
)
def test_a_time_is_read_as_it_is_meant(text: str, meant: datetime) -> None:
    assert parse_time(text, NOW) == meant
