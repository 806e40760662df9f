"""The ways in which a drill takes the database away: each is a context, and the database is there again after it."""

import os
import pwd
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from tests.support.databases import PostgresqlServer, directory_for

#: Megabytes of a small disk before it is filled.
ROOMY = 512


class SmallDisk:
    """A file system of its own in memory, which can be full; making it takes the right to mount."""

    def __init__(self, directory: Path) -> None:
        """PermissionError where mounting is not allowed."""
        directory.mkdir()
        # Where PostgreSQL's account may go, so that the server does not choose another place by itself.
        self.directory = directory_for(pwd.getpwnam("nobody") if os.geteuid() == 0 else None, directory)
        try:
            _mount("-t", "tmpfs", "-o", f"size={ROOMY}m,mode=755", "tmpfs", self.directory)
        except (OSError, subprocess.CalledProcessError):
            raise PermissionError(directory) from None

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leaves no room for anything more."""
        self._shrink()
        try:
            yield
        finally:
            _mount("-o", f"remount,size={ROOMY}m", self.directory)

    def _shrink(self) -> None:
        """To what is used, which a load may raise before the kernel looks: it refuses a size below that."""
        for attempts_left in reversed(range(20)):
            room = os.statvfs(self.directory)
            used = (room.f_blocks - room.f_bfree) * room.f_frsize
            try:
                _mount("-o", f"remount,size={used}", self.directory)
            except subprocess.CalledProcessError:
                if not attempts_left:
                    raise
            else:
                return

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", self.directory], check=False, capture_output=True)  # noqa: S603, S607


@contextmanager
def stopped(server: PostgresqlServer) -> Iterator[None]:
    """PostgreSQL is not running."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def stalled(server: PostgresqlServer) -> Iterator[None]:
    """PostgreSQL's processes all stand still: connections are open, and nothing is answered."""
    pids = [server.process.pid, *server.process.descendants()]
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


@contextmanager
def locked(server: PostgresqlServer, statement: str, *values: object) -> Iterator[None]:
    """Somebody's transaction holds the locks that the statement takes."""
    with psycopg.connect(server.url) as connection:
        for attempts_left in reversed(range(20)):
            try:
                connection.execute(statement.encode(), values)
            except psycopg.errors.DeadlockDetected:  # with a start, which took the same tables in its own order
                connection.rollback()
                if not attempts_left:
                    raise
            else:
                break
        yield
        connection.rollback()


@contextmanager
def disk_full(server: PostgresqlServer, disk: SmallDisk) -> Iterator[None]:
    """PostgreSQL's disk is full; if that made it give up, it is started again as soon as there is room."""
    with disk.full():
        yield
    if not server.process.is_running():
        server.start()


@contextmanager
def write_locked(path: Path) -> Iterator[None]:
    """Somebody's transaction holds SQLite's one lock for writing."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


@contextmanager
def sqlite_full(path: Path, disk: SmallDisk) -> Iterator[None]:
    """SQLite's disk is full; its log was emptied before, so that already the next write finds no room."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with disk.full():
        yield


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)  # noqa: S603, S607
