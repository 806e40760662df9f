"""A newcomer does it again, or is told what is in the way."""

import json
import os
import re
import socket
import subprocess
from datetime import datetime, timedelta

import pytest

from controlplane.startup.secrets_file import KINDS
from tests.support.clones import SECRETS, Clone, Prepared, Served

pytestmark = [
    pytest.mark.sqlite,
    pytest.mark.xdist_group("quickstart"),  # together, since they share what takes long
    # On PostgreSQL it is what sets up the control plane of tests/support/servers.py.
    pytest.mark.skipif(os.environ.get("TEST_DATABASE") == "postgresql", reason="a newcomer's database is SQLite"),
]

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


def assert_message(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """It failed with a message, not with a traceback."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert [part for part in parts if part not in done.stderr] == [], done.stderr


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
    assert names == [*(name for name in SECRETS if name != "SECRET_KEY"), "PORT"]


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


def test_a_temporal_that_cannot_be_is_told(clone: Clone) -> None:
    assert_message(clone.manage("quickstart", "--no-serve", "--temporal", "http://nowhere"), "--temporal", "host:port")
