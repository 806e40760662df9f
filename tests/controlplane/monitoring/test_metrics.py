"""`/metrics`: who may read it, what it tells, and that it is right with several processes."""

import re
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from controlplane.engines.circuit import circuit
from controlplane.releases import CURRENT
from environments.encryption import KeyRing, generate_key
from environments.models import TemporalConnection
from tests.drills.service import Service
from tests.support.calls import fresh_fleet, heartbeat, start
from tests.support.databases import MakeDatabase
from tests.support.factories import Fleet

TOKEN = "a-token-of-monitoring-for-these-tests"
MOST_STATEMENTS = 21

type Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def token(settings: Settings) -> str:
    settings.METRICS_TOKEN = TOKEN
    return TOKEN


@pytest.fixture
def fleet(db: None, token: str) -> Fleet:
    return fresh_fleet()


def scrape(**environ: Any) -> Any:
    return Client().get("/metrics", HTTP_AUTHORIZATION=f"Bearer {TOKEN}", **environ)


def parsed(text: str) -> Figures:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def figure(name: str, figures: Figures | None = None, **labels: str) -> float:
    """The one sample with these labels; 0 where there is none yet."""
    return (figures or parsed(scrape().content.decode())).get((name, frozenset(labels.items())), 0)


# --- Which release it is -----------------------------------------------------------------------------------------------------


def test_the_release_is_told_also_while_the_database_is_away(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit, "_is_open", True)
    assert figure("controlplane_info", version=CURRENT) == 1
    assert figure("controlplane_database_up") == 0


# --- Who may read it ---------------------------------------------------------------------------------------------------------


def test_without_the_setting_there_is_no_such_page(settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    for authorization in ("Bearer ", "Bearer", "", f"Bearer {TOKEN}"):
        assert Client().get("/metrics", HTTP_AUTHORIZATION=authorization).status_code == 404


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Basic {TOKEN}", "Bearer é"],
)
def test_without_the_token_nothing_is_told(token: str, authorization: str) -> None:
    response = Client().get("/metrics", HTTP_AUTHORIZATION=authorization)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert b"controlplane" not in response.content


def test_an_api_key_is_no_token(fleet: Fleet) -> None:
    assert Client().get("/metrics", HTTP_AUTHORIZATION=f"Bearer {fleet.token}").status_code == 401


def test_it_is_read_and_never_written(token: str) -> None:
    response = Client().post("/metrics", HTTP_AUTHORIZATION=f"Bearer {TOKEN}")
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


@pytest.mark.usefixtures("fleet")
def test_a_machine_is_asked_by_its_address(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    response = scrape(HTTP_HOST="10.1.2.3:8000", REMOTE_ADDR="10.1.2.4")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=")
    assert response["Cache-Control"] == "no-store"


# --- What it tells -----------------------------------------------------------------------------------------------------------


def test_starts_are_counted_by_outcome(fleet: Fleet) -> None:
    calls: dict[str, dict[str, Any]] = {
        "done": {},
        "unauthenticated": {"token": f"{fleet.token[:-4]}AAAA"},
        "unknown": {"worker_id": uuid4()},
        "invalid": {"body": b"["},
    }
    before = parsed(scrape().content.decode())
    for call in calls.values():
        start(fleet, **call)
    after = parsed(scrape().content.decode())
    for outcome in calls:
        name = "controlplane_starts_total"
        assert figure(name, after, outcome=outcome) == figure(name, before, outcome=outcome) + 1, outcome


def test_answers_are_timed(fleet: Fleet) -> None:
    before = figure("controlplane_response_seconds_count", call="start")
    seconds = figure("controlplane_response_seconds_sum", call="start")
    start(fleet)
    assert figure("controlplane_response_seconds_count", call="start") == before + 1
    assert 0 < figure("controlplane_response_seconds_sum", call="start") - seconds < 5


def test_heartbeats_are_counted(fleet: Fleet) -> None:
    start(fleet)
    before = figure("controlplane_heartbeats_total", outcome="done")
    heartbeat(fleet)
    assert figure("controlplane_heartbeats_total", outcome="done") == before + 1


@pytest.mark.parametrize(
    ("method", "path", "call", "status"),
    [
        ("post", "/api/v1/worker-queues/x/start", "queue_start", "401"),
        ("post", "/api/v1/workers/register", "register", "401"),
        ("post", "/api/v1/workers/x/heartbeat", "heartbeat", "401"),
        ("post", "/api/v1/workers/heartbeat", "heartbeat", "401"),
        ("post", "/api/v1/workers/x/disconnect", "disconnect", "401"),
        ("get", "/api/v1/worker-queues", "api", "401"),
        ("get", "/api/v1/nothing", "api", "404"),
        ("get", "/admin/login/", "console", "200"),
        ("get", "/favicon.ico", "other", "302"),
        ("get", "/nothing", "other", "404"),
    ],
)
@pytest.mark.usefixtures("fleet")
def test_each_call_has_its_name(method: str, path: str, call: str, status: str) -> None:
    before = figure("controlplane_responses_total", call=call, status=status)
    getattr(Client(), method)(path)
    assert figure("controlplane_responses_total", call=call, status=status) == before + 1


def test_workers_keys_and_credentials_are_told_as_they_are(fleet: Fleet) -> None:
    start(fleet)
    figures = parsed(scrape().content.decode())
    name = fleet.organization.pk
    queue = {"organization": name, "environment": "production", "queue": "default"}
    assert figure("controlplane_workers", figures, **queue, liveness="online") == 1
    assert figure("controlplane_workers", figures, **queue, liveness="never_started") == 0
    assert ("controlplane_workers", frozenset({**queue, "liveness": "never_started"}.items())) in figures
    assert figure("controlplane_expiries", figures, kind="apikey", organization=name, expires="later") == 1
    assert figure("controlplane_database_up", figures) == 1


def test_the_progress_of_a_rotation_is_told(fleet: Fleet, settings: Settings) -> None:
    assert figure("controlplane_sealed", kind="data keys", key="older") == 0
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-new"), settings.ENCRYPTION_KEYS.active])
    assert figure("controlplane_sealed", kind="data keys", key="older") == 1
    call_command("rotate_encryption")
    figures = parsed(scrape().content.decode())
    assert figure("controlplane_sealed", figures, kind="data keys", key="older") == 0
    assert figure("controlplane_sealed", figures, kind="data keys", key="active") == 1


def test_a_credential_that_does_not_open_is_counted(fleet: Fleet) -> None:
    before = figure("controlplane_credentials_unopened_total")
    damaged = f"{TemporalConnection.objects.get().sealed_api_key[:-4]}AAAA"
    TemporalConnection.objects.update(sealed_api_key=damaged)
    assert start(fleet).status_code == 503
    assert figure("controlplane_credentials_unopened_total") == before + 1


def test_no_secret_and_no_workers_or_keys_id_is_told(fleet: Fleet) -> None:
    start(fleet)
    text = scrape().content.decode()
    ids = (str(fleet.worker.pk), str(fleet.api_key.pk))
    assert not [
        word for word in (*ids, TOKEN, fleet.token, fleet.temporal_secret, fleet.litellm_secret) if word in text
    ]
    assert set(re.findall(r'(\w+)="', text)) <= {
        "call", "environment", "expires", "key", "kind", "le", "liveness", "organization", "outcome", "queue", "state", "status",
        "version", "work",
    }  # fmt: skip


def test_the_statements_do_not_grow_with_the_fleet(fleet: Fleet, tmp_path: Path) -> None:
    counts = []
    for workers in (12, 60):
        size = ("--organizations=2", "--queues=4", f"--workers={workers}", f"--starts={workers}")
        call_command("seed_fleet", *size, f"--output={tmp_path / 'ids'}", "--format=json")
        with CaptureQueriesContext(connection) as queries:
            assert scrape().status_code == 200
        counts.append(len(queries))
    assert counts == [21, 21]
    assert max(counts) <= MOST_STATEMENTS


# --- With several processes --------------------------------------------------------------------------------------------------


def read(service: Service, path: str) -> str:
    """One request on a connection of its own, which goes to whichever process takes it."""
    caller = HTTPConnection("127.0.0.1", service.port, timeout=30)
    caller.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}", "Connection": "close"})
    with caller.getresponse() as response:
        return response.read().decode()


def counted(service: Service) -> float:
    return figure("controlplane_responses_total", parsed(read(service, "/metrics")), call="api", status="404")


def ask_until(service: Service, processes: int) -> int:
    """Asks for something until so many processes have counted; how often that was."""
    deadline = time.monotonic() + 60
    asked = 0
    while len(list(service.directory.glob("controlplane-counts-*/counter_*.db"))) < processes:
        assert time.monotonic() < deadline
        read(service, "/api/nothing")
        asked += 1
        time.sleep(0.02)
    return asked


@pytest.mark.processes
def test_all_processes_are_counted_also_those_that_ended(tmp_path: Path, migrated_database: MakeDatabase) -> None:
    service = Service(tmp_path, migrated_database("metrics"), METRICS_TOKEN=TOKEN, TMPDIR=str(tmp_path))
    service.start()
    try:
        asked = ask_until(service, processes=2)
        assert {counted(service) for _ in range(8)} == {asked}
        service.kill_one()
        asked += ask_until(service, processes=3)
        assert {counted(service) for _ in range(8)} == {asked}
    finally:
        service.stop()
