"""`manage.py doctor`: silent about a healthy installation, and for each thing that can be wrong one finding."""

import io
import ipaddress
import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from pytest_django import Settings

from controlplane.doctor.clocks import compare
from controlplane.doctor.installation import examine_transport
from controlplane.models import DatabaseMark
from controlplane.serving.restoration import mark
from environments.audit import Actor, record
from environments.encryption import SEALS_TO_WARN_AT, KeyRing, generate_key
from environments.models import DataKey, TemporalConnection
from environments.sealing.rotation import Progress, replace_data_keys
from tests.support import factories
from tests.support.calls import fresh_fleet
from tests.support.factories import ACTOR, Fleet, presented
from tests.support.processes import ROOT
from workers.lifecycle import Client, start_worker
from workers.lifecycle.starts import Attempt
from workers.models import ApiKey, Pulse, Worker, WorkerInstance

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


@pytest.fixture
def fleet() -> Fleet:
    return fresh_fleet()


def run() -> tuple[list[dict[str, str]], bool]:
    """What is found, and whether it failed.

    Left out are the test server's own settings, which trade durability for speed, and that nothing runs.
    """
    out = io.StringIO()
    failed = False
    try:
        call_command("doctor", "--format=json", stdout=out, stderr=io.StringIO())
    except CommandError:
        failed = True
    document: dict[str, Any] = json.loads(out.getvalue())
    levels = [finding["level"] for finding in document["findings"]]
    assert document["problems"] == levels.count("problem")
    assert document["notes"] == levels.count("note")
    assert failed == (document["problems"] > 0)
    told = [finding for finding in document["findings"] if not finding["text"].startswith("Nothing runs")]
    return [finding for finding in told if finding["check"] != "durability"], failed


def found() -> list[tuple[str, str]]:
    return [(finding["level"], finding["check"]) for finding in run()[0]]


def the_one() -> str:
    """The text of the only finding, which has to be a problem that says what to do."""
    ((finding,), failed) = run()
    assert finding["level"] == "problem"
    assert finding["advice"]
    assert failed
    return finding["text"]


def start(fleet: Fleet, now: datetime) -> None:
    key = ApiKey.objects.get(pk=fleet.api_key.pk)
    start_worker(fleet.worker.pk, Attempt(presented(key), {}, Client("127.0.0.1"), now))


def age(fleet: Fleet, days: int) -> None:
    """The fleet is as if made so long ago."""
    Worker.objects.update(created_at=timezone.now() - days * DAY)
    ApiKey.objects.update(created_at=timezone.now() - days * DAY)


# --- In order ----------------------------------------------------------------------------------------------------------


def test_finds_nothing_in_a_new_installation(fleet: Fleet) -> None:
    assert found() == []


def test_finds_nothing_in_an_empty_one() -> None:
    assert found() == []


def test_prints_a_line_for_each_finding_and_the_counts(fleet: Fleet) -> None:
    factories.issue_key(fleet.queue, name="for\x1bever", lifetime=None, no_expiry_reason="an appliance")
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError, match="Problems found: "):
        call_command("doctor", stdout=out, stderr=err)
    (line,) = [line for line in out.getvalue().splitlines() if "API keys" in line]
    assert line.startswith(f"problem: API keys: API keys that never expire: 1 ({fleet.organization.pk}/for\\u001bever ")
    assert " -> Replace them" in line
    assert out.getvalue().splitlines()[-1].startswith("problems: ")
    assert "sealed rows opened: " in err.getvalue()


# --- What is sealed ----------------------------------------------------------------------------------------------------


def test_opens_every_secret_and_names_each_row_that_does_not_open(fleet: Fleet) -> None:
    moved = fleet.litellm.sealed_api_key
    TemporalConnection.objects.filter(pk=fleet.temporal.pk).update(sealed_api_key=moved)
    text = the_one()
    assert f"environments_temporalconnection {fleet.temporal.pk} sealed_api_key" in text
    assert fleet.temporal_secret not in text
    assert moved[-20:] not in text


def test_names_the_key_that_the_ring_lacks(fleet: Fleet, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-other")])
    assert "sealed with key ek-test1: 3 " in the_one()


def test_a_retired_key_that_still_wraps_is_a_problem_and_one_that_seals_nothing_a_note(
    fleet: Fleet, settings: Settings
) -> None:
    ring = [generate_key("ek-new"), settings.ENCRYPTION_KEYS.active]
    settings.ENCRYPTION_KEYS = KeyRing(ring)
    assert "ek-test1 is not the active one, and 1 data keys are still wrapped" in the_one()
    call_command("rotate_encryption", stdout=io.StringIO(), stderr=io.StringIO())
    assert found() == [("note", "encryption keys")]
    settings.ENCRYPTION_KEYS = KeyRing(ring[:1])
    assert found() == []


def test_secrets_under_a_replaced_data_key_are_a_problem(fleet: Fleet) -> None:
    now = timezone.now() + DAY
    assert list(replace_data_keys(made_before=now, actor=ACTOR, now=now)) == [Progress(1, 1)]
    assert the_one() == "2 secrets are sealed with a retired key."


def test_a_data_key_that_has_sealed_too_often(fleet: Fleet) -> None:
    DataKey.objects.update(seal_count=SEALS_TO_WARN_AT)
    assert the_one().startswith("Data keys that have sealed too often: 1 (")


# --- API keys ----------------------------------------------------------------------------------------------------------


def test_a_key_that_was_not_used_for_90_days(fleet: Fleet) -> None:
    start(fleet, timezone.now() - 91 * DAY)
    age(fleet, 89)
    assert found() == []
    age(fleet, 91)
    assert f"{fleet.organization.pk}/key {fleet.api_key.pk}" in the_one()


@pytest.mark.parametrize("sign", ["start", "heartbeat"])
def test_a_key_that_was_used_within_90_days(fleet: Fleet, sign: str) -> None:
    start(fleet, timezone.now() - (89 if sign == "start" else 300) * DAY)
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - (89 if sign == "heartbeat" else 300) * DAY)
    age(fleet, 301)
    assert found() == []


def test_a_managers_key_that_changed_something_within_90_days(fleet: Fleet) -> None:
    start(fleet, timezone.now() - 300 * DAY)
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now() - 300 * DAY)
    age(fleet, 301)
    actor = Actor(f"key:{fleet.api_key.pk}")
    record("worker.updated", fleet.worker, actor=actor, now=timezone.now() - 91 * DAY)
    assert f"{fleet.organization.pk}/key {fleet.api_key.pk}" in the_one()
    record("worker.updated", fleet.worker, actor=actor, now=timezone.now() - 89 * DAY)
    assert found() == []


def test_a_key_that_is_revoked_or_expired_is_nobodys_business(fleet: Fleet) -> None:
    start(fleet, timezone.now() - 100 * DAY)
    age(fleet, 100)
    ApiKey.objects.update(expires_at=timezone.now() - DAY)
    assert found() == []
    ApiKey.objects.update(expires_at=timezone.now() + DAY, revoked_at=timezone.now())
    assert found() == []


def test_a_key_whose_signature_cannot_be_verified_any_more(fleet: Fleet, settings: Settings) -> None:
    new = generate_key("acp-new")
    settings.API_KEY_SIGNING_KEYS = KeyRing([new, settings.API_KEY_SIGNING_KEYS.active])
    assert found() == [("note", "signing keys")]
    settings.API_KEY_SIGNING_KEYS = KeyRing([new])
    assert "signed with acp-test1, which is not in API_KEY_SIGNING_KEYS" in the_one()


# --- Workers -----------------------------------------------------------------------------------------------------------


def test_workers_that_never_started_within_a_week_are_counted_and_the_first_named(fleet: Fleet) -> None:
    for number in range(20):
        factories.create_worker(fleet.queue, f"new-{number:02}")
    age(fleet, 6)
    assert found() == []
    age(fleet, 8)
    text = the_one()
    assert text.startswith(
        f"Workers that never started in 7 days: 21 ({fleet.organization.pk}/production/default/new-00"
    )
    assert text.endswith("new-09 and 11 more)")


@pytest.mark.parametrize("state", ["is_disabled", "is_draining"])
@pytest.mark.parametrize("level", ["worker", "queue"])
def test_a_worker_that_a_person_holds_back_is_not_missed(fleet: Fleet, level: str, state: str) -> None:
    row = getattr(fleet, level)
    setattr(row, state, True)
    row.save()
    age(fleet, 8)
    assert found() == []


# --- Clocks ------------------------------------------------------------------------------------------------------------


def test_a_start_from_the_future(fleet: Fleet) -> None:
    start(fleet, timezone.now() + timedelta(minutes=1))
    assert "The latest start on record" in the_one()


def test_a_pulse_from_the_future(fleet: Fleet) -> None:
    Pulse.objects.update_or_create(defaults={"beat_at": timezone.now() + timedelta(minutes=1)})
    assert "The latest pulse on record" in the_one()


NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


def test_the_database_servers_clock() -> None:
    assert list(compare(NOON + timedelta(seconds=4), NOON)) == []
    (finding,) = compare(NOON - timedelta(seconds=90), NOON)
    assert "by -90 s" in finding.text


@pytest.mark.parametrize(("seconds", "word"), [(-3600, "ahead"), (-60, "ahead"), (60, "behind"), (3600, "behind")])
def test_the_machine_whose_clock_is_off_is_named(seconds: int, word: str) -> None:
    (finding,) = compare(NOON + timedelta(seconds=seconds), NOON)
    assert finding.text.endswith(f"{socket.gethostname()} is {word}.")
    assert "on every machine" in finding.advice


@pytest.mark.parametrize("ahead", [timedelta(seconds=60), timedelta(days=730)])
def test_a_key_that_a_machine_issued_whose_clock_was_ahead(fleet: Fleet, ahead: timedelta) -> None:
    key = factories.issue_key(fleet.queue, name="early", age=-ahead).row
    text = the_one()
    assert text.startswith("API keys that a machine issued whose clock was ahead")
    assert f"{fleet.organization.pk}/early {key.pk}" in text


# --- Settings and database ---------------------------------------------------------------------------------------------


def test_djangos_own_checks_beyond_this_machine(fleet: Fleet, settings: Settings) -> None:
    settings.IS_LOCAL = False
    settings.REQUIRE_SECOND_FACTOR = True
    texts = [finding["text"] for finding in run()[0] if finding["check"] == "settings"]
    assert any(text.startswith("security.W012: ") for text in texts)  # SESSION_COOKIE_SECURE


def test_a_console_without_second_factor_beyond_this_machine_is_a_note(fleet: Fleet, settings: Settings) -> None:
    settings.IS_LOCAL = False
    findings = [finding for finding in run()[0] if "second factor" in finding["text"]]
    assert [finding["level"] for finding in findings] == ["note"]


def test_everybody_trusted_as_a_proxy(fleet: Fleet, settings: Settings) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("0.0.0.0/0")]
    assert the_one().startswith("TRUSTED_PROXIES has 0.0.0.0/0")


@pytest.mark.parametrize("url", ["https://cp.example.com", "https://CP.example.com:8443", "https://[2001:db8::1]"])
def test_a_url_whose_host_is_refused_is_a_note(fleet: Fleet, settings: Settings, url: str) -> None:
    settings.CONTROL_PLANE_URL, settings.ALLOWED_HOSTS = url, ["other.example.com"]
    assert found() == [("note", "settings")]
    settings.ALLOWED_HOSTS = ["cp.example.com", "[2001:db8::1]"]
    assert found() == []


def test_debug_is_a_note(fleet: Fleet, settings: Settings) -> None:
    settings.DEBUG = True
    assert found() == [("note", "settings")]


def test_a_server_that_may_lose_what_it_committed(fleet: Fleet) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite's settings are ours")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = on")
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("doctor", "--format=json", stdout=out, stderr=io.StringIO())
    texts = [finding["text"] for finding in json.loads(out.getvalue())["findings"]]
    assert [text.partition(":")[0] for text in texts] == [
        "PostgreSQL's fsync is off",
        "PostgreSQL's full_page_writes is off",
    ]


def test_an_open_way_to_the_database() -> None:
    assert list(examine_transport("127.0.0.1", is_encrypted=False)) == []
    assert list(examine_transport("", is_encrypted=False)) == []
    assert list(examine_transport("192.0.2.7", is_encrypted=True)) == []
    (finding,) = examine_transport("192.0.2.7", is_encrypted=False)
    assert "192.0.2.7 is not encrypted" in finding.text


def test_pending_migrations(fleet: Fleet) -> None:
    MigrationRecorder.Migration.objects.filter(app="workers").order_by("-id")[0].delete()
    assert the_one() == "Migrations are pending."


def test_a_database_that_is_away() -> None:
    environ = os.environ | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    command = [sys.executable, "manage.py", "doctor", "--format=json"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["level"], finding["check"]) == ("problem", "database")
    assert "Traceback" not in done.stderr


# --- A database of then ------------------------------------------------------------------------------------------------


def test_a_database_that_was_restored(fleet: Fleet) -> None:
    mark(timezone.now())
    DatabaseMark.objects.update(identity="another")
    assert "restored or copied" in the_one()


def test_a_database_without_its_mark(fleet: Fleet) -> None:
    DatabaseMark.objects.all().delete()
    assert "restored or copied" in the_one()


def test_another_timeline_is_a_note(fleet: Fleet) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("PostgreSQL only")
    mark(timezone.now())
    DatabaseMark.objects.update(timeline=7)
    assert found() == [("note", "restored database")]
