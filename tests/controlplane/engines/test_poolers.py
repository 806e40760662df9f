"""A real PgBouncer that nobody declared is found however it is set up; one that is declared has to have limits."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from django.db import OperationalError, connection

from controlplane.api.health import readiness_problems
from controlplane.engines.postgresql import poolers
from controlplane.engines.postgresql.base import DatabaseWrapper
from controlplane.serving.gate import Gate
from tests.support.processes import ROOT, ServerProcess, free_port

pytestmark = [
    pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL only"),
    pytest.mark.django_db,
]
PROGRAM = Path("/usr/sbin/pgbouncer")
CONFIGURATION = """
[databases]
transactions = {server}
limited = {server} connect_query='{limits}'
sessions = {server} connect_query='{limits}' pool_mode=session
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
user = nobody
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 3
server_reset_query =
{more}
"""
#: As set on every connection to the server, so that they are in force though what is sent is dropped.
LIMITS = "SET lock_timeout = 2000; SET statement_timeout = 5000"


@contextmanager
def pooler(folder: Path, more: str = "") -> Iterator[int]:
    """PgBouncer before the run's server; its port."""
    if not PROGRAM.exists():
        pytest.skip("needs PgBouncer (Debian's package pgbouncer)")
    url, port = urlsplit(os.environ["DATABASE_URL"]), free_port()
    server = f"host={url.hostname} port={url.port} dbname={connection.settings_dict['NAME']}"
    (users := folder / "users.txt").write_text(f'"{url.username}" "{url.password}"\n')
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(CONFIGURATION.format(server=server, limits=LIMITS, port=port, users=users, more=more))
    process = ServerProcess([PROGRAM, configuration], log=folder / "pgbouncer", stop_signal=signal.SIGINT, cwd="/")
    process.wait_until(lambda: "process up" in process.log_text(), seconds=10)
    yield port
    process.stop()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[int]:
    """A pooler that drops the options that are sent."""
    with pooler(tmp_path_factory.mktemp("pooler"), "ignore_startup_parameters = options") as port:
        yield port


def behind(port: int, name: str, **changes: Any) -> DatabaseWrapper:
    where = {"HOST": "127.0.0.1", "PORT": str(port), "NAME": name}
    return DatabaseWrapper({**connection.settings_dict, **where, **changes}, "pooled")


def refusal(wrapper: DatabaseWrapper) -> str:
    with pytest.raises(OperationalError) as caught:
        wrapper.ensure_connection()
    assert "DATABASE_IS_POOLED=true" in str(caught.value)
    assert wrapper.connection is None
    return str(caught.value)


def test_one_that_drops_the_limits_is_found(port: int) -> None:
    assert "drops the limits" in refusal(behind(port, "transactions"))


def test_one_that_lends_a_connection_for_a_transaction_is_found_though_limits_are_in_force(port: int) -> None:
    assert "each transaction another connection" in refusal(behind(port, "limited"))


def test_one_that_refuses_the_limits_is_found(tmp_path: Path, django_db_setup: None) -> None:
    with pooler(tmp_path) as port:
        assert "refuses the limits" in refusal(behind(port, "transactions"))


def test_one_that_lends_a_connection_for_a_session_does_no_harm(port: int) -> None:
    with closing(behind(port, "sessions")) as wrapper, wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_a_server_of_ones_own_is_asked_once_and_keeps_its_limits(db: None) -> None:
    with closing(DatabaseWrapper(dict(connection.settings_dict), "direct")) as wrapper:
        for _ in range(2):
            wrapper.ensure_connection()
            assert wrapper._is_examined
            wrapper.close()


@pytest.mark.parametrize(
    "text",
    [
        "FATAL:  unsupported startup parameter: options",
        "FATAL:  unsupported startup parameter in options: lock_timeout",
        "ERROR: unsupported startup parameter in options: work_mem. Remove this parameter from the startup package.",
        "FATAL:  Feature not supported: RDS Proxy currently doesn't support command-line options.",
    ],
)
def test_how_poolers_refuse_options_is_known(text: str) -> None:
    with pytest.raises(poolers.UndeclaredPoolerError, match="DATABASE_IS_POOLED"):
        poolers.explain(psycopg.OperationalError(text))


@pytest.mark.parametrize(
    "text",
    [
        'connection to server at "127.0.0.1", port 1 failed: Connection refused',
        'FATAL:  password authentication failed for user "options"',
        'FATAL:  database "startup" does not exist',
        "FATAL:  the database system is starting up",
    ],
)
def test_what_a_server_refuses_is_no_pooler(text: str) -> None:
    poolers.explain(psycopg.OperationalError(text))


def test_readiness_and_the_gate_name_the_setting(port: int, transactional_db: None) -> None:
    before = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict |= {"HOST": "127.0.0.1", "PORT": str(port), "NAME": "transactions"}
    connection._is_examined = False
    try:
        (problem,) = readiness_problems()
        gate = Gate()
        gate.look()
    finally:
        connection.close()
        connection.settings_dict |= before
    assert "DATABASE_IS_POOLED=true" in problem
    assert "DATABASE_IS_POOLED=true" in gate.problem
    gate.look()
    assert gate.problem == ""


@pytest.mark.parametrize("command", [("migrate",), ("rotate_encryption",)])
def test_commands_name_the_setting_and_change_nothing(command: tuple[str, ...], port: int) -> None:
    url = urlsplit(os.environ["DATABASE_URL"])
    through = url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{port}", path="/transactions").geturl()
    environ = os.environ | {"DATABASE_URL": through}
    arguments = [sys.executable, "manage.py", *command]
    done = subprocess.run(arguments, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 1
    assert "DATABASE_IS_POOLED=true" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_declared_one_whose_role_has_no_limits_is_told(port: int) -> None:
    options = {name: value for name, value in connection.settings_dict["OPTIONS"].items() if name != "options"}
    declared = {"DISABLE_SERVER_SIDE_CURSORS": True, "OPTIONS": options | {"prepare_threshold": None}}
    with closing(behind(port, "transactions", **declared)) as wrapper:
        (message,) = wrapper.validation.check()
        assert "lock_timeout and statement_timeout" in message.msg
    with closing(behind(port, "limited", **declared)) as wrapper:
        assert wrapper.validation.check() == []
