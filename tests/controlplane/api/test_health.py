"""The database is taken away for real: SQLite's file is moved, PostgreSQL accepts no connection to it.

Requests go through WSGI as a server makes them, since Django closes and checks connections at their beginning and end.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from psycopg import sql
from pytest_django import Settings

from controlplane.api.health import readiness_problems
from controlplane.engines.troubles import ROWS_LOCKED
from controlplane.releases import CURRENT
from environments.encryption import KeyRing, encode, generate_key, key_entry
from tests.support.calls import fresh_fleet, start
from tests.support.factories import Fleet
from tests.support.processes import ROOT, free_port
from workers.models import WorkerStart

pytestmark = pytest.mark.sqlite

READY = {"status": "ready", "problems": [], "version": CURRENT}

type Away = Callable[[], AbstractContextManager[None]]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def call(path: str, *, method: str = "GET", token: str = "", body: bytes = b"{}") -> Answer:
    """One request through WSGI, with Django's signals at its beginning and end."""
    seen: list[Any] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": f"Bearer {token}",
        "wsgi.input": BytesIO(body),
        "wsgi.url_scheme": "http",
    }
    response = WSGIHandler()(environ, lambda status, headers: seen.extend((status, headers)))
    content = b"".join(response)
    response.close()
    return Answer(int(seen[0].split()[0]), dict(seen[1]), content)


def call_start(fleet: Fleet) -> Answer:
    return call(f"/api/v1/workers/{fleet.worker.pk}/start", method="POST", token=fleet.token)


def recovered(ask: Callable[[], Answer]) -> Answer:
    """The answer once it is no 503 any more, which takes the process 5 seconds at most."""
    deadline = time.monotonic() + 5
    while (answer := ask()).status == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def assert_unavailable(answer: Answer) -> None:
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"detail": "The database is not available."}


@pytest.fixture
def fleet(transactional_db: None) -> Iterator[Fleet]:
    yield fresh_fleet()
    connection.close()


@pytest.fixture
def away() -> Away:
    """What takes the database away for as long as it is entered; connections that were open are cut."""
    return _no_file if connection.vendor == "sqlite" else _no_connections


@contextmanager
def _no_file() -> Iterator[None]:
    connection.close()
    path = Path(connection.settings_dict["NAME"])
    elsewhere = path.with_name(f"{path.name}.away")
    shutil.move(path, elsewhere)
    path.mkdir()
    try:
        yield
    finally:
        connection.close()
        path.rmdir()
        shutil.move(elsewhere, path)


@contextmanager
def _no_connections() -> Iterator[None]:
    name = connection.settings_dict["NAME"]
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
        server.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            server.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))


def test_a_start_without_database_is_503_and_the_next_one_passes_without_restart(fleet: Fleet, away: Away) -> None:
    assert call_start(fleet).status == 200
    with away():
        before = time.monotonic()
        for _ in range(3):
            assert_unavailable(call_start(fleet))
        assert time.monotonic() - before < 10
    assert recovered(lambda: call_start(fleet)).status == 200
    assert WorkerStart.objects.count() == 2


def test_the_process_lives_but_is_not_ready_without_database(fleet: Fleet, away: Away) -> None:
    with away():
        assert call("/livez").status == 200
        answer = call("/readyz")
        assert answer.status == 503
        assert answer.json() == {
            "status": "not ready",
            "problems": ["The database is not available."],
            "version": CURRENT,
        }
        assert "hidden" not in answer.body.decode()
    assert recovered(lambda: call("/readyz")).json() == READY


def test_a_forged_key_is_401_without_database(fleet: Fleet, away: Away) -> None:
    with away():
        answer = call(f"/api/v1/workers/{fleet.worker.pk}/start", method="POST", token=f"{fleet.token[:-4]}AAAA")
        assert answer.status == 401


def test_a_page_of_the_console_is_503_without_database(fleet: Fleet, away: Away) -> None:
    with away():
        answer = call("/admin/login/", method="POST", body=b"")
        assert answer.status in {403, 503}  # 403: the form's token was missing, which needs no database
        page = call("/admin/workers/worker/")
        assert page.status in {302, 503}
    assert call("/admin/login/").status == 200


def test_no_reason_and_no_address_of_the_database_goes_to_the_caller(
    fleet: Fleet, away: Away, caplog: pytest.LogCaptureFixture
) -> None:
    with away():
        body = call_start(fleet).body.decode() + call("/readyz").body.decode()
    for text in (
        str(connection.settings_dict["NAME"]),
        str(connection.settings_dict["HOST"] or "127.0.0.1"),
        "OperationalError",
    ):
        assert text not in body
    assert "database away" in caplog.text
    password = connection.settings_dict["PASSWORD"]
    assert not password or password not in caplog.text


# --- A database that stalls ------------------------------------------------------------------------------------------------


@contextmanager
def _another_writer(fleet: Fleet) -> Iterator[None]:
    """A transaction of somebody else that holds the lock which a start needs."""
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        connection.connection.patience = 0.2
        writer = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        yield
        writer.rollback()
        writer.close()
        return
    url = psycopg.conninfo.make_conninfo(os.environ["DATABASE_URL"], dbname=connection.settings_dict["NAME"])
    with psycopg.connect(url) as writer_connection:
        writer_connection.execute("SELECT 1 FROM workers_worker WHERE id = %s FOR UPDATE", [fleet.worker.pk])
        yield
        writer_connection.rollback()


def test_a_start_that_waits_for_a_lock_is_503_in_bounded_time(fleet: Fleet) -> None:
    assert start(fleet).status_code == 200
    with _another_writer(fleet):
        before = time.monotonic()
        response = start(fleet)
        assert time.monotonic() - before < 4
        assert response.status_code == 503
        assert int(response["Retry-After"]) > 0
        # On SQLite nobody can write meanwhile.
        held = "The database is not available." if connection.vendor == "sqlite" else ROWS_LOCKED
        assert response.json() == {"detail": held}
    assert recovered(lambda: call_start(fleet)).status == 200
    assert WorkerStart.objects.count() == 2


def test_sessions_carry_their_limits(fleet: Fleet) -> None:
    with connection.cursor() as cursor:

        def value(statement: str) -> Any:
            cursor.execute(statement)
            return cursor.fetchone()[0]

        if connection.vendor == "postgresql":
            assert value("SHOW lock_timeout") == "2s"
            assert value("SHOW statement_timeout") == "5s"
            assert connection.settings_dict["OPTIONS"]["connect_timeout"] == 3
            assert connection.settings_dict["CONN_HEALTH_CHECKS"] is True
        else:
            assert value("PRAGMA journal_mode") == "wal"
            assert value("PRAGMA synchronous") == 2
            assert value("PRAGMA foreign_keys") == 1
            assert connection.connection.patience == 3


# --- Readiness ---------------------------------------------------------------------------------------------------------------


def test_is_ready_with_database_migrations_and_keys_in_order(fleet: Fleet) -> None:
    answer = call("/readyz")
    assert (answer.status, answer.json()) == (200, READY)


def test_is_not_ready_without_a_key_and_names_it(fleet: Fleet, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-other")])
    answer = call("/readyz")
    assert answer.status == 503
    assert "ek-test1" in answer.json()["problems"][0]
    assert call("/livez").status == 200


def test_is_not_ready_while_migrations_are_pending(fleet: Fleet) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT MAX(id) FROM django_migrations WHERE app = 'workers'")
        (newest,) = cursor.fetchone()
        cursor.execute("UPDATE django_migrations SET app = 'set-aside' WHERE id = %s", [newest])
        try:
            assert any("migrate" in problem for problem in readiness_problems())
            assert call("/readyz").status == 503
        finally:
            with connection.cursor() as another:
                another.execute("UPDATE django_migrations SET app = 'workers' WHERE id = %s", [newest])
    assert readiness_problems() == []


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_needs_no_key(fleet: Fleet, path: str) -> None:
    assert call(path).status == 200


def test_the_process_boots_lives_and_refuses_while_nothing_listens_at_the_databases_port() -> None:
    """From the first moment: a process that starts while the database is away."""
    ek, sk = generate_key("ek-1"), generate_key("acp-1")
    environ = {
        "PATH": os.environ["PATH"],
        "CONTROL_PLANE_ENV_FILE": "/nonexistent",
        "SECRET_KEY": encode(os.urandom(40)),
        "ENCRYPTION_KEYS": key_entry(ek),
        "API_KEY_SIGNING_KEYS": key_entry(sk),
        "DATABASE_URL": f"postgresql://user:hidden@127.0.0.1:{free_port()}/name",
    }
    script = """
import json, uuid
from controlplane.wsgi import application
from django.test import Client
from django.utils import timezone
from workers.api_keys import tokens
token = tokens.mint(api_key_id=uuid.uuid4(), organization_id="a", name="a", now=timezone.now(), expires_at=None).token.reveal()
client = Client(headers={"Authorization": f"Bearer {token}", "Host": "localhost"})
start = client.post(f"/api/v1/workers/{uuid.uuid4()}/start", b"{}", "application/json")
answers = [client.get("/livez"), client.get("/readyz"), start]
print(json.dumps([[a.status_code, a.headers.get("Retry-After"), a.json()] for a in answers]))
"""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    live, ready, started = json.loads(done.stdout)
    assert live[0] == 200
    assert ready[0] == 503
    assert started == [503, "5", {"detail": "The database is not available."}]
    assert "hidden" not in done.stdout + done.stderr
