"""What a worker does next: one call, with the statuses that a reader of the contract may expect, and what comes of each."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from uuid import uuid4

from tests.drills.odd_clients import bodies
from tests.drills.odd_clients.bodies import Members, Raw, Told, free_object, kept, tame, unknown_members
from tests.drills.odd_clients.wire import (
    AGENTS,
    LOOPBACK,
    Answer,
    Headers,
    Request,
    canonical,
    route,
    user_agent,
    usual_headers,
)
from tests.drills.odd_clients.workers import LINE, OK, REASON, TASK_ID, TOLD, WORDS, Beat, Process, Start, Worker

#: A start, and everything else; a heartbeat may have 1 MiB.
MOST_BYTES = 64 * 1024


STATUSES = (*WORDS, *WORDS, "Active", "BUSY", "healthy", "online", "", None, 5, ["x"], "s" * 5_000, "a\0")
TASKS: tuple[Any, ...] = (7, 0, 2**63 - 1, None, -1, 2**63, "x", Raw("1e400"), [], True, 1.5, "7")
#: What is shown for those; for the others nobody can know whether they are numbers.
TASKS_SHOWN = {
    "7": 7,
    "0": 0,
    str(2**63 - 1): 2**63 - 1,
    **dict.fromkeys(map(str, (None, -1, 2**63, "x", Raw("1e400"), [])), 0),
}
TASK_IDS = ("", None, "task-1", "t" * 300, "ü/東", "\0", *bodies.TEXTS)


def nothing(answer: Answer) -> None:  # as all that is learned
    """Nothing comes of it."""


@dataclass
class Call:
    """A request, what it may be answered, and what the worker then knows."""

    kind: str
    request: Request
    expected: set[int]
    learn: Callable[[Answer], None] = nothing


def next_call(worker: Worker, chance: Random, api_key: str) -> Call:
    """What this worker does now, which depends on what became of it so far."""
    maker = Maker(worker, chance, api_key)
    if worker.process is None:
        return chance.choices([maker.start_elsewhere, maker.heartbeat, maker.goodbye, maker.mistake], [8, 1, 1, 1])[0]()
    ways: list[tuple[Callable[[], Call], int]] = [
        (maker.heartbeat, 55),
        (maker.start_again, 8),
        (maker.restart, 6),
        (maker.start_elsewhere, 5),
        (maker.start_container, 4),
        (maker.goodbye, 6),
        (maker.mistake, 6),
    ]
    if worker.older:
        ways += [(maker.heartbeat_of_older, 12), (maker.goodbye_of_older, 2)]
    makers, weights = zip(*ways, strict=True)
    return chance.choices(makers, weights)[0]()  # type: ignore[no-any-return]


@dataclass
class Maker:
    """Makes a worker's calls."""

    worker: Worker
    chance: Random
    api_key: str

    # --- Starts ---

    def start_elsewhere(self) -> Call:
        """On another machine; the one before may run on."""
        return self._start("start elsewhere", self.worker.next_process(self.chance))

    def start_again(self) -> Call:
        """The same start once more, since its answer was lost, perhaps from where it is now."""
        process = self._current()
        if self.chance.random() < 0.8:
            process = replace(process, address=process.started_from)
        return self._start("start again", process)

    def restart(self) -> Call:
        """On the same machine as another process."""
        process = self._current()
        identity = dict(process.identity)
        if "pid" in identity:
            identity["pid"] = self.chance.randrange(1, 4_000_000)
        return self._start("restart", replace(process, identity=identity))

    def start_container(self) -> Call:
        """Of the same host name and process id, as each container has them that is made anew."""
        process = self._current()
        named = {"hostname": "worker", "pid": 1} if self.chance.random() < 0.5 else process.identity
        identity = {**named, "container_id": f"{self.chance.getrandbits(256):064x}"}
        address = self.worker.new_address(self.chance) if self.chance.random() < 0.5 else process.address
        return self._start("start of a container", Process(identity, address))

    def _start(self, kind: str, process: Process) -> Call:
        worker, chance = self.worker, self.chance
        mark, called = str(uuid4()), user_agent(chance)
        told = _machine(chance, process, mark=mark)
        body = bodies.body_of({"system_info": told.sent, **unknown_members(chance)}, chance)
        request = self._request(f"workers/{self._id()}/start", body, process.address, called)
        start = Start(told, canonical(process.address), AGENTS[called])

        def learn(answer: Answer) -> None:
            if answer.status in OK:
                worker.started(process, mark, start)

        return Call(kind, request, worker.statuses_of_start(process), learn)

    def start_in_queue(self, queue_id: str, join: Callable[[Worker], None]) -> Call:
        """Of a worker that knows its queue alone, with a body or without one."""
        worker, chance = self.worker, self.chance
        mark, process, called = str(uuid4()), worker.next_process(chance), user_agent(chance)
        told = _machine(chance, process, mark=mark)
        others = {
            name: chance.choice([*bodies.WRONG_KINDS, *bodies.TEXTS])
            for name in ("worker_sdk_version", "control_plane_url")
        }
        has_body = chance.random() < 0.8
        body = bodies.body_of({"system_info": told.sent, **others}, chance) if has_body else None
        request = self._request(f"worker-queues/{queue_id}/start", body, process.address, called)
        start = Start(told, canonical(process.address), AGENTS[called])

        def learn(answer: Answer) -> None:
            if answer.status in OK:
                worker.id = json.loads(answer.body)["worker_id"]
                unknown = Process({}, process.address)
                worker.started(process if has_body else unknown, mark, start if has_body else None)
                join(worker)

        return Call("start in a queue", request, OK, learn)

    # --- Heartbeats ---

    def heartbeat(self) -> Call:
        """Of the current process, from where it is now, which changes now and then."""
        worker, chance = self.worker, self.chance
        if worker.process and chance.random() < 0.1:
            worker.process = replace(worker.process, address=worker.new_address(chance))
        process = worker.process or worker.next_process(chance)
        kind = chance.choices(["light", "full", "in its environment"], [4, 4, 1])[0]
        beat = self._beat(process, is_full=kind == "full")
        body, path = {**beat.body, **unknown_members(chance)}, f"workers/{self._id()}/heartbeat"
        if kind == "in its environment":
            named = {"worker_id": self._id(), "environment_name": worker.environment}
            body, path = {**body, **named}, "workers/heartbeat"
        expected = worker.statuses_of_heartbeat()

        def learn(answer: Answer) -> None:
            if answer.status in TOLD:
                worker.beaten(beat)

        return Call(f"heartbeat, {kind}", self._from(process, path, self._repeated(body)), expected, learn)

    def heartbeat_of_older(self) -> Call:
        """The process before lives on, and says who it is or comes from where it was."""
        older = self._older()
        beat = self._beat(older, is_full=bool(self.chance.getrandbits(1)))
        request = self._from(older, f"workers/{self._id()}/heartbeat", beat.body)
        return Call("heartbeat of the one before", request, self.worker.statuses_of_older())

    def _beat(self, process: Process, *, is_full: bool) -> Beat:
        """Members in any order, of which those that are optional may be missing."""
        chance = self.chance
        status, tasks, task = chance.choice(STATUSES), chance.choice(TASKS), chance.choice(TASK_IDS)
        metadata, kept_metadata = self._metadata()
        optional = {"status": status, "tasks_processed": tasks, "current_task_id": task, "worker_metadata": metadata}
        told = {name: value for name, value in optional.items() if chance.random() < 0.7}
        info: Told | None = None
        lines: list[str] = []
        if is_full:
            told["logs"], lines = _log(chance)
            info = _machine(chance, process)
            told["system_info"] = info.sent
        word = str(told.get("status")).lower()
        return Beat(
            dict(chance.sample(list(told.items()), len(told))),
            status=word if word in WORDS else "active",
            tasks=TASKS_SHOWN.get(str(told.get("tasks_processed", 0))),
            task_id=kept(told.get("current_task_id") or "", TASK_ID),
            info=info,
            metadata=kept_metadata if "worker_metadata" in told else None,
            logs=lines,
        )

    def _metadata(self) -> tuple[Any, Told | None]:
        """What is told, and what has to be kept of it, which is nothing new where it says nothing."""
        if self.chance.random() < 0.5:
            told = free_object(self.chance, zone="eu")
            return told.sent, told
        wrong = self.chance.choice(bodies.WRONG_KINDS)
        if isinstance(wrong, dict):
            return wrong, Told(wrong, wrong, is_all=True) if wrong else None
        is_nothing = wrong is None or wrong in ("", []) or isinstance(wrong, Raw)
        return wrong, None if is_nothing else Told(wrong, {}, is_all=False, is_cut=True)

    def _repeated(self, body: dict[str, Any]) -> Any:
        """The same with a member that the contract does not know told twice, now and then."""
        if self.chance.random() < 0.9:
            return body
        return Members((*body.items(), ("sent_at", 1), ("sent_at", tame(self.chance))))

    # --- Goodbyes ---

    def goodbye(self) -> Call:
        """Of the current process."""
        worker, chance = self.worker, self.chance
        process = worker.process or worker.next_process(chance)
        is_named = bool(process.identity) and chance.random() < 0.6
        body, reason = self._farewell(process if is_named else None)

        def learn(answer: Answer) -> None:
            if answer.status in TOLD:
                worker.said_goodbye(reason, is_named=is_named)

        return Call("goodbye", self._from(process, f"workers/{self._id()}/disconnect", body), TOLD, learn)

    def goodbye_of_older(self) -> Call:
        """The process before ends, and says who it is."""
        older = self._older()
        body, _ = self._farewell(older)

        def learn(answer: Answer) -> None:
            if answer.status in TOLD:
                self.worker.older = None

        return Call(
            "goodbye of the one before", self._from(older, f"workers/{self._id()}/disconnect", body), TOLD, learn
        )

    def _farewell(self, process: Process | None) -> tuple[Any, str]:
        chance = self.chance
        reason = chance.choice(["shutdown", "error", "crash", "r" * 5_000, "SIGTERM\0", "停止", "", None])
        body: dict[str, Any] = {
            "reason": reason,
            "exit_code": chance.choice([0, 1, -9, 137, None, "1", 2**70, Raw("1e400"), 1.5, [], True]),
            "error_message": chance.choice([None, "", "Traceback\n" * 700, "\ud800", {"a": 1}, 5, "é" * 6_600]),
        }
        for name in chance.sample(sorted(body), chance.choice([0, 1, 3])):
            del body[name]
        if process:
            body["system_info"] = process.identity
        return {**body, **unknown_members(chance)}, kept(body.get("reason") or "shutdown", REASON)

    # --- Calls that have to be refused, and that change nothing ---

    def mistake(self) -> Call:
        """What no reader expects to pass; that it is seen shows that the drill would see the contrary."""
        chance, path = self.chance, f"workers/{self._id()}/start"
        good = b'{"system_info": {"mark": "%s"}}' % str(uuid4()).encode()
        zipped: Headers = [("Content-Encoding", "gzip")]
        kinds: dict[str, tuple[str, bytes | None, Headers, int]] = {
            "no JSON": (path, good[:-1], [], 422),
            "two values": (path, good + b"{}", [], 422),
            "no object": (path, chance.choice([b"[]", b"null", b'"x"', b"5", b" ", b""]), [], 422),
            "no body": (path, None, [], 422),
            "no system_info": (path, b'{"system_info": %s}' % chance.choice([b"null", b"5", b'"x"', b"[]"]), [], 422),
            "too large": (path, good + b" " * MOST_BYTES, [], 413),
            "text": (path, good, [("Content-Type", "text/plain")], 415),
            "compressed": (path, gzip.compress(good), zipped, 415),
            "no key": (path, good, [("Authorization", "")], 401),
            "another key": (path, good, [("Authorization", f"Bearer {self.api_key}x")], 401),
            "no id": (f"workers/{self.worker.id[:-1]}/start", good, [], 404),
            "nobody": (f"workers/{uuid4()}/heartbeat", b"{}", [], 404),
            "in another environment": ("workers/heartbeat", self._elsewhere(), [], 404),
            "plain HTTP": (path, good, [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "http")], 403),
            "breaks off": (path, good, [], 0),
        }
        name = chance.choice(list(kinds))
        where, body, headers, status = kinds[name]
        request = self._request(where, body, self._address(), None)
        request.headers = [(n, v) for n, v in request.headers if n not in dict(headers)] + headers
        request.breaks_off = name == "breaks off"
        if name == "plain HTTP":
            request.source = LOOPBACK
        return Call(f"mistake: {name}", request, {status} if status else {400, 422})

    def _elsewhere(self) -> bytes:
        return bodies.written({"worker_id": self.worker.id, "environment_name": "staging"}).encode()

    # --- What all calls have ---

    def _current(self) -> Process:
        if self.worker.process is None:
            raise AssertionError
        return self.worker.process

    def _older(self) -> Process:
        if self.worker.older is None:
            raise AssertionError
        return self.worker.older

    def _address(self) -> str:
        return (self.worker.process or self.worker.next_process(self.chance)).address

    def _id(self) -> str:
        return self.chance.choice([self.worker.id, self.worker.id, self.worker.id.upper(), self.worker.id.title()])

    def _from(self, process: Process, path: str, body: Any) -> Request:
        return self._request(path, bodies.body_of(body, self.chance), process.address, user_agent(self.chance))

    def _request(self, path: str, body: bytes | None, address: str, called: str | None) -> Request:
        chance = self.chance
        source, forwarded = route(chance, address)
        headers = [*usual_headers(chance, self.api_key), *forwarded]
        headers += [] if called is None else [("User-Agent", called)]
        query = chance.choice(["", "", "", "", "?", "?debug=1", "?a=%00&a=%ff"])
        if chance.random() < 0.05:
            path = path.replace("workers/", "w%6Frkers/")
        return Request(f"{chance.choice(['/api', '/api', '//api'])}/v1/{path}{query}", body, headers, source=source)


def _machine(chance: Random, process: Process, **members: Any) -> Told:
    """What a process tells of itself, never nothing."""
    told = free_object(chance, **(members or {"cpu_percent": 1.5}), **process.identity)
    expected = {name: kept(value, 4096) if isinstance(value, str) else value for name, value in told.expected.items()}
    return replace(told, expected=expected)


def _log(chance: Random) -> tuple[Any, list[str]]:
    """Lines as they are told, and as they are kept; the last of them, each cut."""
    line = f"line {chance.random()}"
    odd = ["x" * 4_097, "\x1b[0mred", "NUL \0", "\udc00", "東京 " * 600, "", line]
    kinds: list[tuple[Any, list[Any]]] = [
        ([], []),
        (None, []),
        ([line], [line]),
        (odd, odd),
        ([f"{line} {number}" for number in range(700)], [f"{line} {number}" for number in range(700)][-500:]),
        (["y" * 200 + line] * 400, ["y" * 200 + line] * 400),
        (f"{line}\nand another", [line, "and another"]),
        ([line, None, {"level": "info"}, 5, ["a"]], [line, '{"level": "info"}', "5", '["a"]']),
        (7, ["7"]),
    ]
    told, lines = chance.choice(kinds)
    return told, [kept(text, LINE) for text in lines]
