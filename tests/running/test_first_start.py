"""The main job, end to end: a real worker starts at the running control plane and works on a real Temporal server.

And what follows from it: who is refused, what is on record, and that no secret is found anywhere afterwards.
"""

import base64
import json
import os
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
from psycopg import sql

from environments.encryption import KeyRing
from tests.support.canaries import found_in, spellings
from tests.support.planes import claims_of, console_of, issue, latest_start, records
from tests.support.processes import ROOT, ServerProcess
from tests.support.servers import ControlPlane, TemporalServer

pytestmark = pytest.mark.sqlite

UNKNOWN = "00000000-0000-4000-8000-000000000000"
EXAMPLE = ROOT / "examples" / "temporal_worker.py"
WORKFLOW = ROOT / "examples" / "temporal_workflow.py"
#: Two more tenants; a worker for each refusal.
FLEET = """
organizations:
  - id: first
    name: First
    temporal_connection: cloud
    litellm_connection: gateway
    temporal_connections:
      - {{name: cloud, host: "temporal.example.com:7233", namespace: first, api_key: {{file: {secret}}}}}
    litellm_connections:
      - {{name: gateway, api_url: "https://llm.example.com", api_key: {{file: {secret}}}}}
    environments:
      - name: production
        worker_queues:
          - name: default
            workers:
              - {{name: enabled, id: 11111111-1111-4111-8111-111111111111}}
              - {{name: disabled, id: 22222222-2222-4222-8222-222222222222, is_disabled: true}}
  - id: second
    name: Second
"""
ENABLED, DISABLED = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def start(plane: ControlPlane, worker_id: str, key: str, system_info: Any = None) -> tuple[int, dict[str, Any]]:
    path = f"/api/v1/workers/{worker_id}/start"
    headers = {"Authorization": f"Bearer {key}"}
    status, _, body = plane.request("POST", path, json={"system_info": system_info or {}}, headers=headers)
    return status, json.loads(body)


@pytest.fixture(scope="module")
def local_temporal(
    control_plane: ControlPlane, temporal_server: TemporalServer, tmp_path_factory: Any
) -> TemporalServer:
    """The Temporal server, which the demo's connection points to from now on."""
    fleet = tmp_path_factory.mktemp("demo") / "fleet.yaml"
    (fleet.parent / "key").write_text(f"demo-temporal-{secrets.token_urlsafe(24)}")
    where = f"host: '{temporal_server.host}', namespace: {temporal_server.namespace}"
    connection = f"{{name: local, {where}, requires_api_key: true, api_key: {{file: key}}}}"
    fleet.write_text(f"organizations: [{{id: demo, temporal_connections: [{connection}]}}]")
    control_plane.manage("apply", str(fleet))
    return temporal_server


@pytest.fixture(scope="module")
def tenants(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("tenants")
    (directory / "secret").write_text(secrets.token_urlsafe(24))
    (directory / "fleet.yaml").write_text(FLEET.format(secret="secret"))
    control_plane.manage("apply", str(directory / "fleet.yaml"))


# --- A worker starts and works ---------------------------------------------------------------------------------------


class FinishedWorker(NamedTuple):
    """A process of the example worker that has ended, and the API key that it was given."""

    pid: int
    exit_code: int
    output: str
    api_key: str


@pytest.fixture(scope="module")
def finished_worker(
    control_plane: ControlPlane, local_temporal: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> FinishedWorker:
    """The example worker after a workflow; it was told the URL, its id and its key, and that this Temporal has no TLS."""
    directory = tmp_path_factory.mktemp("worker")
    environ = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "PATH"}} | {
        "CONTROL_PLANE_URL": control_plane.url,
        "WORKER_ID": control_plane.worker_id,
        "API_KEY": control_plane.api_key,
        "TEMPORAL_TLS": "false",
    }
    worker = ServerProcess([sys.executable, str(EXAMPLE)], log=directory / "worker", env=environ)
    worker.wait_until(lambda: "Polling" in worker.log_text())
    where = [local_temporal.host, local_temporal.namespace, "demo.development.default"]
    done = subprocess.run([sys.executable, WORKFLOW, *where], env=environ, check=True, capture_output=True, text=True)  # noqa: S603
    worker._process.terminate()
    exit_code = worker._process.wait(20)
    output = f"{worker.log_text()}{done.stdout}"
    return FinishedWorker(worker._process.pid, exit_code, output, environ["API_KEY"])


def test_the_example_worker_completes_a_workflow(finished_worker: FinishedWorker) -> None:
    polling, completed = finished_worker.output.splitlines()[-2:]
    assert polling == "Polling demo.development.default in namespace default."
    assert completed == "Workflow completed: Hello, Temporal!"
    assert finished_worker.exit_code == 0


def test_temporal_knows_the_workflow_as_completed_on_the_worker_s_task_queue(
    finished_worker: FinishedWorker, local_temporal: TemporalServer
) -> None:
    program = Path(sys.executable).with_name("temporal")
    query = "TaskQueue = 'demo.development.default' AND ExecutionStatus = 'Completed'"
    command = [program, "workflow", "list", "--address", local_temporal.host, "--query", query, "-o", "json"]
    deadline = time.monotonic() + 20
    while True:  # Temporal's visibility store follows with a delay
        done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603
        workflows = json.loads(done.stdout or "[]")
        if workflows or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert {workflow["type"]["name"] for workflow in workflows} == {"Greeting"}


def start_of(worker: FinishedWorker, plane: ControlPlane) -> dict[str, Any]:
    """The one start that this process made."""
    rows = records(plane, "workers.workerstart")
    (row,) = [row for row in rows if row["system_info"].get("pid") == worker.pid]
    return row


def test_the_start_is_on_record(finished_worker: FinishedWorker, control_plane: ControlPlane) -> None:
    row = start_of(finished_worker, control_plane)
    assert row["system_info"]["hostname"] == socket.gethostname()
    assert row["system_info"]["cpu_count"] == os.cpu_count()
    assert row["api_key"] == claims_of(finished_worker.api_key)["sub"]
    assert row["worker"] == control_plane.worker_id
    assert row["organization"] == "demo"
    assert row["client_address"] == "127.0.0.1"
    assert row["user_agent"].startswith("Python-urllib/")
    assert row["task_queue_name"] == "demo.development.default"
    assert re.fullmatch(r"[0-9a-f]{12}", row["configuration_revision"])
    assert (row["temporal_api_key_version"], row["litellm_api_key_version"]) == (1, 1)


def test_the_start_is_in_the_console(finished_worker: FinishedWorker, control_plane: ControlPlane) -> None:
    row = start_of(finished_worker, control_plane)
    console = console_of(control_plane)
    assert f"/admin/workers/workerstart/{row['pk']}/change/" in console.get("/admin/workers/workerstart/")
    page = unescape(console.get(f"/admin/workers/workerstart/{row['pk']}/change/"))
    info = f'"pid": {finished_worker.pid}'
    shown = (info, row["configuration_revision"], "127.0.0.1", row["api_key"], "quickstart", row["user_agent"])
    assert [text for text in shown if text not in page] == []


def test_the_example_worker_says_what_to_set() -> None:
    environ = {"PATH": os.environ["PATH"], "API_KEY": "x"}
    done = subprocess.run([sys.executable, EXAMPLE], env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Set CONTROL_PLANE_URL, WORKER_ID.\n"


def test_the_example_worker_tells_a_refusal_without_its_key(control_plane: ControlPlane) -> None:
    key = f"{control_plane.api_key[:-4]}AAAA"
    environ = {
        "PATH": os.environ["PATH"],
        "CONTROL_PLANE_URL": control_plane.url,
        "WORKER_ID": control_plane.worker_id,
        "API_KEY": key,
    }
    done = subprocess.run([sys.executable, EXAMPLE], env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The control plane refused the start: 401 ")
    assert "Traceback" not in done.stderr
    assert key not in done.stderr


# --- Who is refused --------------------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_at_the_next_start(control_plane: ControlPlane, tenants: None) -> None:
    issued = issue(control_plane, "--worker", ENABLED)
    assert start(control_plane, ENABLED, issued["api_key"])[0] == 200
    control_plane.manage("revoke_api_key", "--stdin", "--reason", "leaked", input=issued["api_key"])
    assert start(control_plane, ENABLED, issued["api_key"]) == (401, {"detail": "This API key is not valid."})


def test_a_disabled_worker_is_refused(control_plane: ControlPlane, tenants: None) -> None:
    issued = issue(control_plane, "--worker", DISABLED)
    assert start(control_plane, DISABLED, issued["api_key"]) == (403, {"detail": "This worker is disabled."})


def test_another_organization_s_key_gets_byte_for_byte_what_an_unknown_id_gets(
    control_plane: ControlPlane, tenants: None
) -> None:
    """The whole answer but for its date and the request's own id: status line, order and spelling of the headers, body."""
    key = issue(control_plane, "--organization", "second")["api_key"]
    unknown = raw_answer(control_plane, UNKNOWN, key)
    assert unknown.startswith(b"HTTP/1.1 404 ")
    assert unknown.endswith(b'{"detail":"Not found."}')
    assert raw_answer(control_plane, ENABLED, key) == unknown
    assert raw_answer(control_plane, DISABLED, key) == unknown
    assert raw_answer(control_plane, control_plane.worker_id, key) == unknown
    assert raw_answer(control_plane, "no-uuid", key) == unknown


def raw_answer(plane: ControlPlane, worker_id: str, key: str) -> bytes:
    host = urlsplit(plane.url).netloc
    request = (
        f"POST /api/v1/workers/{worker_id}/start HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    )
    with socket.create_connection((urlsplit(plane.url).hostname, urlsplit(plane.url).port), timeout=30) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    for header in (b"date", b"x-request-id"):
        assert b"\r\n%b: " % header in answer.lower()
        answer = re.sub(rb"(?i)\r\n%b: [^\r]+" % header, b"", answer)
    return answer


# --- No secret is found anywhere -------------------------------------------------------------------------------------


def stored_bytes(plane: ControlPlane) -> bytes:
    """Everything in the database: its files as they are, and every row of every table as text."""
    if plane.database_url.startswith("sqlite:"):
        path = Path(unquote(urlsplit(plane.database_url).path).removeprefix("/"))
        files = [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm")]
        with sqlite3.connect(path) as connection:
            dump = "\n".join(connection.iterdump())
        connection.close()
        return b"".join(file.read_bytes() for file in files if file.exists()) + dump.encode()
    with psycopg.connect(plane.database_url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        assert len(tables) > 15
        queries = [sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(*table)) for table in tables]
        return b"\n".join(row[0].encode() for query in queries for row in connection.execute(query))


def logged_bytes(plane: ControlPlane) -> bytes:
    """What the server wrote, and the same with JSON's escapes undone."""
    text = plane.log_text()
    return f"{text}\n{text.encode().decode('unicode_escape', errors='replace')}".encode(errors="replace")


def demo_secrets(plane: ControlPlane) -> dict[str, set[bytes]]:
    _, answer = start(plane, plane.worker_id, plane.api_key)
    found = {
        "Temporal API key": spellings(answer["temporal_api_key"]),
        "LiteLLM API key": spellings(answer["litellm_api_key"]),
        "API key": spellings(plane.api_key),
        "signature of the API key": spellings(plane.api_key.rpartition(".")[2]),
        "password": spellings(plane.admin_password),
    }
    for line in (plane.directory / ".env").read_text().splitlines():
        name, equals, value = line.partition("=")
        if not equals or line.startswith("#") or name == "PORT":
            continue
        found[name] = spellings(value)
        if name != "SECRET_KEY":
            for key in KeyRing.parse(value).values():
                found[f"{name} {key.id}"] = spellings(value.partition(":")[2]) | {
                    key.material,
                    key.material.hex().encode(),
                }
    return found


def pages_with(pages: Iterable[tuple[str, str]], wanted: dict[str, set[bytes]]) -> dict[str, set[str]]:
    contents = {path: f"{page}\n{unescape(page)}\n{unquote(unescape(page))}".encode() for path, page in pages}
    return {path: names for path, content in contents.items() if (names := found_in(content, wanted))}


def test_no_secret_is_in_the_database_the_log_or_the_console(
    control_plane: ControlPlane, finished_worker: FinishedWorker
) -> None:
    wanted = demo_secrets(control_plane)
    assert set(wanted) >= {"Temporal API key", "LiteLLM API key", "API key", "password", "SECRET_KEY"}
    assert len(wanted) == 10
    demo = [
        f"/admin/environments/{model}/{row['pk']}/change/"
        for model in ("temporalconnection", "litellmconnection")
        for row in records(control_plane, f"environments.{model}")
        if row["organization"] == control_plane.organization_id
    ]
    assert len(demo) >= 2
    demo.append(f"/admin/workers/worker/{control_plane.worker_id}/change/")
    pages = dict(console_of(control_plane).crawl("/admin/", *demo))
    for model in ("temporalconnection", "litellmconnection", "apikey", "user", "auditevent", "datakey", "workerstart"):
        assert [path for path in pages if f"/{model}/" in path and path.endswith("/change/")], model
        assert [path for path in pages if path.endswith(f"/{model}/")], model
    assert pages_with(pages.items(), wanted) == {}
    assert found_in(stored_bytes(control_plane), wanted) == set()
    assert found_in(logged_bytes(control_plane), wanted) == set()


PLANTED = {
    "as it is": lambda text: text,
    "base64": lambda text: base64.b64encode(f"x{text}".encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(f"??{text}".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
}


@pytest.mark.parametrize("write", PLANTED.values(), ids=PLANTED.keys())
def test_the_search_finds_what_is_there(write: Any, control_plane: ControlPlane) -> None:
    """A canary that a worker tells is found in the database and on its page; the log names the worker."""
    canary = f"canary-{secrets.token_hex(12)}"
    planted = write(canary)
    assert start(control_plane, control_plane.worker_id, control_plane.api_key, {"hostname": planted})[0] == 200
    wanted = {"canary": spellings(canary)}
    assert found_in(stored_bytes(control_plane), wanted)
    assert found_in(logged_bytes(control_plane), {"worker": spellings(control_plane.worker_id)})
    page = f"/admin/workers/worker/{control_plane.worker_id}/change/"
    assert pages_with([(page, console_of(control_plane).get(page))], wanted)


# --- Nothing recorded is lost ----------------------------------------------------------------------------------------


def test_what_was_answered_is_on_record_after_the_server_is_killed(control_plane: ControlPlane, tenants: None) -> None:
    key = issue(control_plane, "--worker", ENABLED)["api_key"]
    mark = secrets.token_hex(8)
    assert start(control_plane, ENABLED, key, {"hostname": mark})[0] == 200
    control_plane.process._process.kill()
    control_plane.restart()
    assert latest_start(control_plane, ENABLED)["system_info"] == {"hostname": mark}
