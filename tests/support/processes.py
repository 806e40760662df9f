"""Starts, watches and ends the server processes of a test run."""

import atexit
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Below the range from which systems take the local ports of outgoing connections, which would race with ours.
PORTS = range(20_000, 32_000)
PR_SET_PDEATHSIG = 1
#: Seconds between two looks whether a server is ready: what is soon there is soon seen.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.1

_libc = ctypes.CDLL(None)


class ServerDidNotStartError(Exception):
    """A server ended, or was not ready in time; the message holds the end of its log."""


class ServerProcess:
    """A server in a process group of its own, its output in files; ends with the test run at the latest."""

    def __init__(
        self, command: Sequence[str | Path], *, log: Path, stop_signal: int = signal.SIGTERM, **options: Any
    ) -> None:
        self.stdout, self.stderr = log.with_suffix(".stdout"), log.with_suffix(".stderr")
        self._stop_signal = stop_signal
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            # A session of its own: Ctrl-C then reaches pytest alone, which ends the server in good order.
            self._process = subprocess.Popen(  # noqa: S603  # our own commands
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=self._end_with_parent,  # noqa: PLW1509  # one C call, which takes no lock
                **options,
            )
        atexit.register(self.stop)

    def log_text(self) -> str:
        """Everything that the server has written so far, standard output first."""
        return "".join(path.read_text(errors="replace") for path in (self.stdout, self.stderr))

    def log_tail(self) -> str:
        """The last 50 lines that the server has written."""
        return "\n".join(self.log_text().splitlines()[-50:])

    def wait_until(self, is_ready: Callable[[], bool], *, seconds: float = 90) -> None:
        """Returns once the server is ready; stops it and raises ServerDidNotStartError otherwise."""
        deadline, pause = time.monotonic() + seconds, SHORTEST_PAUSE
        while not is_ready():
            if not self.is_running() or time.monotonic() > deadline:
                self.stop()
                message = f"{self._process.args!r} exited with {self._process.returncode}:\n{self.log_tail()}"
                raise ServerDidNotStartError(message)
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def stop(self) -> None:
        """Ends the server and whatever it has started; safe to call again.

        Once somebody has waited for the process, its number and so its group may be another's: thousands are born in a
        run, and each session of PostgreSQL is a group of its own. So the group is ended before that, or not at all.
        """
        atexit.unregister(self.stop)
        if self._process.returncode is not None:
            return
        os.kill(self.pid, self._stop_signal)
        deadline = time.monotonic() + 15
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(SHORTEST_PAUSE)
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process id of the server's first process."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended by itself. Nobody waits for it by this, so its number stays its own."""
        if self._process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def descendants(self) -> list[int]:
        """The ids of all processes that it has started, and they in turn, as long as they run."""
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                # The name, in parentheses, may hold anything; the parent's id is the second field after it.
                pid, parent = int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(pid)
        found, todo = [], [self.pid]
        while todo:
            todo += (born := children.get(todo.pop(), []))
            found += born
        return found

    def kill(self) -> None:
        """Ends the server and whatever it has started at once, without a chance to put anything in order."""
        atexit.unregister(self.stop)
        if self._process.returncode is not None:
            return
        os.kill(self.pid, signal.SIGSTOP)  # so that it starts nothing more
        pids = [self.pid, *self.descendants()]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        while any(map(is_alive, pids)):
            time.sleep(0.02)

    def _end_with_parent(self) -> None:
        """Has the kernel end the server when this process is killed, as xdist does with slow workers."""
        if sys.platform == "linux":
            _libc.prctl(PR_SET_PDEATHSIG, self._stop_signal)


def is_alive(pid: int) -> bool:
    """Whether a process still holds anything; one that nobody has asked after its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def ask(
    server: str, method: str, path: str, body: str | bytes | None, headers: Mapping[str, str]
) -> tuple[int, HTTPMessage, bytes]:
    """Status, headers and body of what a server at host:port answers."""
    with closing(HTTPConnection(server, timeout=30)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port
    message = f"No free port found in {PORTS}."
    raise OSError(message)
