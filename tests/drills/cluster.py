"""PostgreSQL on several machines, as in docs/operate/scale.md: here each machine is a directory with its own ports.

Debian's packages postgresql-15-auto-failover and pgbouncer: a monitor, and two machines that each have a server that
replicates to the other, the keeper that promotes it, and a pooler.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.support.databases import directory_for
from tests.support.processes import ServerProcess, free_port

PROGRAMS = ("pg_autoctl", "pgbouncer")
POSTGRESQL = Path("/usr/lib/postgresql/15/bin")
ACCOUNT = "postgres"  # the packages make it
ROLE = DATABASE = "controlplane"
#: How soon the monitor takes a machine for gone, in milliseconds; its own defaults make that a minute.
MONITOR = """
pgautofailover.health_check_period = 1000
pgautofailover.health_check_timeout = 2000
pgautofailover.health_check_max_retries = 1
pgautofailover.health_check_retry_delay = 1000
pgautofailover.node_considered_unhealthy_timeout = 5000
pgautofailover.primary_demote_timeout = 10000
"""
#: In seconds: a server that reaches neither monitor nor standby for so long stops, before another is promoted.
NETWORK_PARTITION_TIMEOUT = 5
POOLER = """
[databases]
{database} = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
; Knows nobody while its server takes no writes: a standby, or one that is being promoted. What a server says of itself when
; the pooler first connects, such as that it is read-only, the pooler tells all clients from then on, and libpq passes by.
auth_user = {account}
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1 AND current_setting('transaction_read_only') = 'off'
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000
# A server that is away is told so at once, so that the service asks the other machine.
server_connect_timeout = 3
server_login_retry = 1
query_wait_timeout = 3
"""


def missing_programs() -> list[str]:
    """What of it is not installed here."""
    return [program for program in PROGRAMS if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")]


@dataclass
class Machine:
    """One of the two: its server with its keeper, and its pooler."""

    name: str
    server_port: int = field(default_factory=free_port)
    pooler_port: int = field(default_factory=free_port)
    processes: list[ServerProcess] = field(default_factory=list)


class Cluster:
    """A monitor and two machines; `url` leads to whichever is primary, through the poolers if asked for."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        account = pwd.getpwnam(ACCOUNT)
        self.directory = directory_for(account, directory)
        self.machines = [Machine("a"), Machine("b")]
        self._port = free_port()
        self._password = secrets.token_urlsafe(24)
        # Without a locale that says so, its databases would not be in UTF-8.
        self._where: dict[str, Any] = {
            "cwd": self.directory,
            "env": {"LC_ALL": "C.UTF-8"}
            | {"PATH": f"{POSTGRESQL}:/usr/sbin:/usr/bin:/bin", "HOME": str(self.directory)}
            | {"XDG_RUNTIME_DIR": str(self.directory), "PG_CONFIG": str(POSTGRESQL / "pg_config")},
        }
        if os.geteuid() == 0:
            self._where |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._monitor = f"postgres://autoctl_node@127.0.0.1:{self._port}/pg_auto_failover"
        self._create("monitor", self._port)
        with (self.directory / "monitor" / "postgresql.conf").open("a") as settings:
            settings.write(MONITOR)
        self._monitor_process = self._keep("monitor")
        self._wait_for(lambda: bool(self._ask(self._monitor, "SELECT 1")))
        for machine in self.machines:
            self._add(machine)
        self.wait_until_synchronous()
        with psycopg.connect(self.url(role=ACCOUNT), autocommit=True) as connection:
            for change in (f"PASSWORD '{self._password}'", "SET lock_timeout = '2s'", "SET statement_timeout = '5s'"):
                connection.execute(f"ALTER ROLE {ROLE} {change}")

    def url(self, *, is_pooled: bool = False, role: str = ROLE) -> str:
        """A DATABASE_URL for both machines."""
        ports = [machine.pooler_port if is_pooled else machine.server_port for machine in self.machines]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"postgresql://{role}:{self._password}@{hosts}/{DATABASE}?target_session_attrs=read-write"

    def primary(self) -> Machine:
        """The machine that takes writes now."""
        with psycopg.connect(self.url(role=ACCOUNT), connect_timeout=3) as connection:
            return next(machine for machine in self.machines if machine.server_port == connection.info.port)

    def kill(self, machine: Machine) -> None:
        """Ends everything on a machine at once, as when its power fails."""
        for process in machine.processes:
            process.kill()

    def start(self, machine: Machine) -> None:
        """Starts a machine again; its server rejoins as the standby."""
        configuration, users = (self.directory / f"{machine.name}.{kind}" for kind in ("ini", "users"))
        users.write_text(f'"{ACCOUNT}" ""\n')
        places = {"server": machine.server_port, "port": machine.pooler_port, "users": users, "account": ACCOUNT}
        configuration.write_text(POOLER.format(database=DATABASE, **places))
        log = self.directory / f"{machine.name}-pooler"
        pooler = ServerProcess(["pgbouncer", configuration], log=log, stop_signal=signal.SIGINT, **self._where)
        machine.processes = [self._keep(machine.name), pooler]

    def wait_until_synchronous(self) -> None:
        """Returns once every commit waits until the standby has it too."""
        states = "SELECT string_agg(reportedstate::text, ' ' ORDER BY reportedstate::text) FROM pgautofailover.node"
        self._wait_for(lambda: self._ask(self._monitor, states) == "primary secondary")

    def stop(self) -> None:
        for process in [process for machine in self.machines for process in machine.processes]:
            process.stop()
        self._monitor_process.stop()

    def _add(self, machine: Machine) -> None:
        names = ("--name", machine.name, "--username", ROLE, "--dbname", DATABASE, "--monitor", self._monitor)
        self._create("postgres", machine.server_port, *names, directory=machine.name)
        partition = ("timeout.network_partition_timeout", str(NETWORK_PARTITION_TIMEOUT))
        self._run("config", "set", "--pgdata", str(self.directory / machine.name), *partition)
        self.start(machine)
        self._wait_for(
            lambda: bool(self._ask(f"postgresql://{ACCOUNT}@127.0.0.1:{machine.server_port}/postgres", "SELECT 1"))
        )

    def _create(self, kind: str, port: int, *options: str, directory: str = "") -> None:
        data = ("--pgdata", str(self.directory / (directory or kind)), "--pgctl", str(POSTGRESQL / "pg_ctl"))
        host = ("--hostname", "127.0.0.1", "--pgport", str(port), "--auth", "trust", "--no-ssl")
        self._run("create", kind, *data, *host, *options)

    def _run(self, *arguments: str) -> None:
        command = ["pg_autoctl", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, **self._where)  # noqa: S603
        if done.returncode:
            message = f"pg_autoctl {' '.join(arguments)} exited with {done.returncode}:\n{done.stderr}"
            raise AssertionError(message)

    def _keep(self, name: str) -> ServerProcess:
        command = ["pg_autoctl", "run", "--pgdata", str(self.directory / name)]
        return ServerProcess(command, log=self.directory / f"{name}-keeper", stop_signal=signal.SIGINT, **self._where)

    def _ask(self, url: str, statement: str) -> Any:
        """The first value; None while nobody answers."""
        try:
            with psycopg.connect(url, connect_timeout=3) as connection:
                row = connection.execute(statement).fetchone()
        except psycopg.OperationalError:
            return None
        return row[0] if row else None

    def _wait_for(self, is_so: Any, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                logs = [path.read_text()[-2000:] for path in sorted(self.directory.glob("*-keeper.stderr"))]
                raise AssertionError("\n".join(["The cluster is not as it should be.", *logs]))
            time.sleep(0.2)
