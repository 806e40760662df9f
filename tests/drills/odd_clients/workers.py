"""A worker as its machine knows it: what it told, what has to come of that, and which answers a reader may expect.

Everything is kept apart from the code of the service, in plain Python. What a reader cannot know, such as which of two
processes at one address says goodbye, is None here, and nothing is expected of it.
"""

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tests.drills.odd_clients.bodies import Told, kept, same
from tests.drills.odd_clients.wire import LOOPBACK

#: From docs and the contract: lines of a log, characters of a line, of a task's id, and of a reason.
LOG_LINES, LINE, TASK_ID, REASON = 500, 1_000, 255, 200
WORDS = ("active", "idle", "busy")
OK, TOLD, CONFLICT = {200}, {204}, {409}


@dataclass(frozen=True)
class Process:
    """One that runs: what it tells of its identity, where from, and where it started."""

    identity: dict[str, Any]
    address: str
    started_from: str = ""

    @property
    def host(self) -> str:
        """Its host as far as it can be understood."""
        told = self.identity.get("hostname")
        return kept(told, 255) if isinstance(told, str) else ""

    @property
    def pid(self) -> int | None:
        told = self.identity.get("pid")
        return told if type(told) is int and 0 <= told < 2**63 else None

    @property
    def is_named(self) -> bool:
        return bool(self.host) and self.pid is not None

    def is_surely(self, other: "Process") -> bool:
        """Whether both are one, and any reader can tell."""
        return self.is_named and self.identity == other.identity and self.address == other.started_from

    def is_surely_not(self, other: "Process") -> bool:
        """Whether they are on two hosts."""
        return bool(self.host) and bool(other.host) and self.host != other.host


@dataclass(frozen=True)
class Start:
    """One that was answered: what its row has to say."""

    told: Told
    address: str
    user_agent: str


@dataclass
class Expected:
    """What has to be shown of the worker's current process; None is what nobody can know."""

    is_running: bool | None = True
    status: str | None = "active"
    tasks: int | None = 0
    task_id: str | None = ""
    reason: str | None = ""
    info: Told | None = None
    metadata: Told | None = field(default_factory=lambda: Told({}, {}, is_all=True))
    logs: list[str] | None = field(default_factory=list)

    def forget(self) -> None:
        """Whatever comes now may be another process's."""
        self.is_running = self.status = self.tasks = self.task_id = self.reason = None
        self.info = self.metadata = self.logs = None


@dataclass
class Worker:
    """A known worker and what became of it."""

    id: str
    number: int
    policy: str
    environment: str = "production"
    process: Process | None = None
    #: One on another host that was running when the current one started, and still is.
    older: Process | None = None
    shown: Expected = field(default_factory=Expected)
    starts: dict[str, Start] = field(default_factory=dict)
    #: Whether processes of it may be live that it knows nothing of any more.
    has_strays: bool = False
    #: Whether another process has had the same name.
    has_twins: bool = False
    made: int = 0

    def next_process(self, chance: Random) -> Process:
        """On a machine of its own, with an address that no other process has."""
        self.made += 1
        host: Any = f"host-{self.number}-{self.made}"
        pid: Any = chance.randrange(1, 4_000_000)
        kind = chance.choices(["named", "untold", "odd host", "odd pid"], [7, 2, 1, 1])[0]
        if kind == "odd host":
            host = chance.choice([host + "x" * 400, f"{host} ä 東京", f"{host}\0", 17, None, ["h"], host.upper() + "."])
        if kind == "odd pid":
            pid = chance.choice([str(pid), -1, 2**70, 1.5, True, None, 0, 2**63 - 1])
        identity = {} if kind == "untold" else {"hostname": host, "pid": pid}
        return Process(identity, self.new_address(chance))

    def new_address(self, chance: Random) -> str:
        self.made += 1
        low = f"{self.number % 250}.{self.made % 250 + 1}"
        public = [f"100.64.{low}", f"2001:db8:{self.number >> 16:x}:{self.number & 0xFFFF:x}::{self.made:x}"]
        addresses = [*public, *public, f"127.1.{low}"] + [LOOPBACK] * (self.made <= 2)
        return chance.choice(addresses)

    # --- What may be answered, and what comes of it ---

    def statuses_of_start(self, process: Process) -> set[int]:
        """200, but where the queue rejects a second process and this is one, or may be."""
        if self.policy != "reject" or self.process is None or self.shown.is_running is False:
            return OK
        if process.is_surely(self.process) and self.shown.is_running:
            return OK
        is_refused = self.shown.is_running and process.is_surely_not(self.process)
        return CONFLICT if is_refused else OK | CONFLICT

    def started(self, process: Process, mark: str, start: Start | None) -> None:
        """A start was answered with 200; without a body it has no mark on record."""
        before, was_running = self.process, self.shown.is_running
        self.process = replace(process, started_from=process.address)
        if start:
            self.starts[mark] = start
        self.shown = Expected(info=start.told if start else None)
        self.older = None
        if before is None or was_running is False:
            return
        # One of which nobody knows whether it said goodbye, has no heartbeats that could be told from others.
        if was_running and process.is_surely_not(before) and process.address != before.started_from:
            self.older = replace(before, address=before.started_from)
        if not process.is_surely(before) or not was_running:
            self.has_strays = True
            self.has_twins = self.has_twins or not process.is_surely_not(before)

    def statuses_of_heartbeat(self) -> set[int]:
        """409 before the first start, which the worker is told to make."""
        return TOLD if self.process else CONFLICT

    def statuses_of_older(self) -> set[int]:
        """Of a heartbeat of the process before: it is told to end where the new one took over, if it can be told apart."""
        if self.policy != "take_over":
            return TOLD
        older, process = self.older, self.process
        if older is None or process is None:
            return CONFLICT
        is_clear = (older.is_named and process.is_named) or older.is_surely_not(process)
        return CONFLICT if is_clear else CONFLICT | TOLD

    def beaten(self, beat: "Beat") -> None:
        """A heartbeat of the current process was noted."""
        if self.shown.is_running is None:
            self.shown.forget()
        if not self.shown.is_running:
            return
        shown = self.shown
        shown.status, shown.tasks, shown.task_id = beat.status, beat.tasks, beat.task_id
        shown.info = beat.info or shown.info
        shown.metadata = beat.metadata or shown.metadata
        if beat.logs is None or shown.logs is None:
            shown.logs = None
        else:
            shown.logs = (shown.logs + beat.logs)[-LOG_LINES:]

    def said_goodbye(self, reason: str | None, *, is_named: bool) -> None:
        """A goodbye of the current process was answered."""
        if self.process is None or self.shown.is_running is False:
            return
        process = self.process
        is_at_home = process.address == process.started_from
        is_known = is_named and process.is_named and (is_at_home or not self.has_twins)
        if not is_known and (self.has_strays or not is_at_home):
            self.shown.forget()
        elif self.shown.is_running is None:
            self.shown.forget()
            self.shown.is_running = False
        else:
            self.shown.is_running, self.shown.reason = False, reason

    # --- What is found in the end ---

    def problems(self, row: dict[str, Any] | None, reason: str | None) -> list[str]:
        """What is shown of its current process otherwise than it told; the row is the reading API's."""
        if self.process is None:
            return ["is shown though it never started"] if row else []
        if row is None:
            return ["is not shown"]
        shown = self.shown
        if shown.is_running is None:
            return []
        status = ((shown.status or row["status"]) if shown.is_running else "disconnected",)[0]
        pairs = [("status", row["status"], status), ("tasks", row["tasks_processed"], shown.tasks)]
        pairs += [("task", row["current_task_id"] or "", shown.task_id), ("reason", reason, shown.reason)]
        pairs += [("logs", row["logs"] or [], shown.logs)]
        found = [
            f"{name} {str(was)[-300:]!r} for {str(told)[-300:]!r}" for name, was, told in pairs if differs(was, told)
        ]
        for name, kept_object in (("system_info", shown.info), ("worker_metadata", shown.metadata)):
            if kept_object and not kept_object.is_kept_in(row[name] or {}):
                found.append(f"{name} {str(row[name])[:300]} for {str(kept_object.expected)[:300]}")
        return found


def differs(was: Any, told: Any) -> bool:
    return told is not None and not same(was, told)


@dataclass(frozen=True)
class Beat:
    """A heartbeat: what has to be shown after it; None is what nobody can know, or what a light one leaves."""

    body: Any
    status: str | None
    tasks: int | None
    task_id: str | None
    info: Told | None
    metadata: Told | None
    logs: list[str] | None
