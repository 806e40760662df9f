"""Isolation: what is another organization's is answered as what does not exist, byte for byte and in the same time.

That every endpoint and every page is refused to whom it should be is proven by tests/workers/api/endpoints and
tests/workers/admin/roles, whose cells the full drill counts. Here the running service on PostgreSQL is asked, over raw sockets:
every call of the served document that takes an id, with a key of each scope, for another organization's objects of each
kind and for ids that nobody has. Then how long both take is measured, interleaved, so that what the machine does
meanwhile meets both alike; two halves of the same kind tell how much of a difference is noise, and a call that is
answered tells that the clock does see a difference.
"""

import json
import os
import random
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree as ET

from tests.drills.drill import Figure, Scale, say
from tests.drills.load import load, start_call
from tests.drills.service import Fleet, Service, prepared_server
from tests.support.databases import THROWAWAY
from tests.support.processes import ROOT

#: How far apart the medians may be.
TOLERANCE = 0.05
#: Times that a difference beyond the tolerance is measured again, with all that was measured before: noise then fades.
ATTEMPTS = 10
#: The path's part that names an object of ours; a lock's holder is any text.
ID = re.compile(
    r"\{(?:queue_id|environment_id|key_id|connection_id)\}|(?:(?<=/v1/workers/)|(?<=/registered-workers/))\{worker_id\}"
)
#: What only our own tools call, whose bodies have no other members than the document's.
CLOSED = ("registered-workers", "api-keys", "temporal-connections", "litellm-connections", "telemetry-settings")
#: What is measured for every change; all calls are in the full drill.
MEASURED = (
    "POST /api/v1/workers/{worker_id}/start",
    "POST /api/v1/workers/{worker_id}/heartbeat",
    "POST /api/v1/workers/{worker_id}/disconnect",
    "POST /api/v1/worker-queues/{queue_id}/start",
    "GET /api/v1/worker-queues/{queue_id}",
    "GET /api/v1/environments/{environment_id}",
)
#: Served when asked for an own object, so that it takes longer than a refusal.
ANSWERED = "GET /api/v1/worker-queues/{queue_id}/workers"
MATRICES = ("tests/workers/api/endpoints", "tests/workers/admin/roles")


def run(scale: Scale, directory: Path) -> Figure:
    server = prepared_server(directory, THROWAWAY)
    service = Service(directory, server.url, processes=1)
    service.prepare()
    own, foreign = (service.create_fleet(scale.of(10, 500), name) for name in ("own", "foreign"))
    service.start()
    try:
        found = _ask(scale, service, own, foreign)
    finally:
        service.stop()
        server.stop()
    return _figure(found, Cells.run() if not scale.is_quick else None)


@dataclass(frozen=True)
class Call:
    """A call of the document that takes an id, in its path or in its body."""

    name: str
    #: The name of the member of the body that holds the id; "" when the path does.
    member: str = ""

    def with_id(self, identifier: str, api_key: str) -> bytes:
        """The request as it is sent."""
        method, path = self.name.split()
        path = ID.sub(identifier, path).replace("{worker_id}", "build-7")
        told = {self.member: identifier} if self.member else {"worker_id": "build-7"}
        sent = {"environment_name": "production", "name": "made", **told}
        if self.name.split("/")[3] in CLOSED:
            action = path.rpartition("/")[2]
            sent = {"name": "made", **({self.member: identifier} if self.member else {})}
            sent = {"revoke": {"reason": "drill"}, "rotate": {}, "verify": {}}.get(action, sent)
        body = json.dumps(sent) if method in {"POST", "PATCH"} else ""
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {api_key}"]
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
        return "\r\n".join([*lines, "", body]).encode()

    @property
    def kind(self) -> str:
        """Which kind of object it is about."""
        kinds = {"{queue_id}": "queue", "{environment_id}": "environment", "{key_id}": "key"}
        found = ID.search(self.name)
        if "{connection_id}" in self.name:
            return self.name.split("/")[3]
        if self.member == "queue_id":
            return "queue"
        return kinds.get(found[0] if found else "", "name" if self.member == "environment_name" else "worker")


def calls_of(document: dict[str, Any]) -> list[Call]:
    """All calls that take an id; every other one is there to be looked at, so a new one that takes ids is noticed."""
    names = [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]
    in_body = {
        "POST /api/v1/workers/heartbeat": "worker_id",
        "POST /api/v1/workers/register": "environment_name",
        "POST /api/v1/registered-workers": "queue_id",
        "POST /api/v1/api-keys": "queue_id",
    }
    # Of the calls without, one takes a name within the key's organization, and one makes what is new there.
    lists = {f"GET /api/v1/{name}" for name in ("worker-queues", "environments", "workers", "workers/{runner_name}")}
    open_to_all = {f"GET /api/{name}" for name in ("health", "health/detailed", "ready")}
    lists |= {f"GET /api/v1/{name}" for name in (*CLOSED, "organization", "members")}
    new = {f"POST /api/v1/{name}" for name in ("environments", *CLOSED[2:])}
    without = {*lists, *open_to_all, *new, "PATCH /api/v1/organization"}
    if strangers := {name for name in names if not ID.search(name)} - without - set(in_body):
        message = f"Do these take ids? {', '.join(sorted(strangers))}"
        raise AssertionError(message)
    return [Call(name, in_body.get(name, "")) for name in names if name not in without]


class Wire:
    """A connection that is kept until an answer ends it; answers come as they were sent, but for their date and id."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_ended = True

    def connect(self) -> None:
        """Makes another connection if the last answer ended this one."""
        if self._is_ended:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=30)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._is_ended = False

    def ask(self, request: bytes) -> bytes:
        self.connect()
        self._socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._receive()
        head, _, body = answer.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        while len(body) < int(found[1] if found else 0):
            body += self._receive()
        if re.search(rb"(?i)\r\nconnection: close", head):
            self._socket.close()
            self._is_ended = True
        return re.sub(rb"(?i)\r\n(?:date|x-request-id): [^\r]+", b"", head) + b"\r\n\r\n" + body

    def _receive(self) -> bytes:
        received = self._socket.recv(65_536)
        if not received:
            message = "The service closed the connection."
            raise ConnectionError(message)
        return received


@dataclass
class Found:
    """What the service was asked and how it answered."""

    answers: int = 0
    calls: int = 0
    different: list[str] = field(default_factory=list)
    times: dict[str, "Times"] = field(default_factory=dict)
    control: float = 0.0


@dataclass
class Times:
    """Seconds that answers took, of foreign and of unknown ids, each in two halves."""

    seconds: dict[str, list[float]] = field(
        default_factory=lambda: {"foreign 1": [], "unknown 1": [], "foreign 2": [], "unknown 2": []}
    )

    def of(self, *names: str) -> float:
        """The median of these together."""
        return median([value for name in names for value in self.seconds[name]])

    @property
    def difference(self) -> float:
        """By which share a foreign id's median is beyond, or below, an unknown one's."""
        return self.of("foreign 1", "foreign 2") / self.of("unknown 1", "unknown 2") - 1

    @property
    def noise(self) -> float:
        """How far the halves of the same kind are apart."""
        return max(abs(self.of(f"{kind} 1") / self.of(f"{kind} 2") - 1) for kind in ("foreign", "unknown"))


def _ask(scale: Scale, service: Service, own: Fleet, foreign: Fleet) -> Found:
    wire = Wire(service.port)
    ids, own_ids = _ids_of(wire, service, foreign), _ids_of(wire, service, own)
    calls = calls_of(_json(wire, service, "/api/openapi.json"))
    scopes = () if scale.is_quick else ("environment", "queue", "worker")
    inquiry = Inquiry(wire, ids, own.api_key, rounds=scale.of(25, 500), found=Found(calls=len(calls)))
    manager = ("issue_api_key", "--organization", own.organization_id, "--name", "manager", "--role", "manager")
    managing = json.loads(service.set_up(*manager, "--format", "json"))["api_key"]
    keys = {"organization": own.api_key, "manager": managing, **_keys(service, scopes, own_ids)}
    for call in calls:
        for scope, key in keys.items():
            inquiry.compare(call, scope, key)
    say(f"{inquiry.found.answers:,} answers of {len(calls)} calls with keys of {len(keys)} scopes compared")
    for call in calls:
        if call.name in MEASURED or not scale.is_quick:
            inquiry.measure(call)
    inquiry.found.control = Inquiry(wire, own_ids, own.api_key, inquiry.rounds).once(Call(ANSWERED), Times()).difference
    return inquiry.found


def _ids_of(wire: Wire, service: Service, fleet: Fleet) -> dict[str, list[str]]:
    """The organization's ids by kind; its workers run, so there is something to be told of."""
    if not load(service.port, [start_call], fleet, 10, callers=2).of(200):
        message = "No worker could be started."
        raise AssertionError(message)
    told = {kind: _json(wire, service, f"/api/v1/{kind}s", fleet.api_key) for kind in ("worker-queue", "environment")}
    return {
        "worker": fleet.worker_ids,
        "queue": [row["id"] for row in told["worker-queue"]],
        "environment": [row["id"] for row in told["environment"]],
        "name": [f"{fleet.organization_id}.production"],
        **service.managed_ids(fleet.organization_id),
    }


def _json(wire: Wire, service: Service, path: str, api_key: str = "") -> Any:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nAuthorization: Bearer {api_key}\r\n\r\n"
    return json.loads(wire.ask(request.encode()).partition(b"\r\n\r\n")[2])


def _keys(service: Service, scopes: Sequence[str], ids: dict[str, list[str]]) -> dict[str, str]:
    """A key of each scope."""
    keys = {}
    for scope in scopes:
        command = ("issue_api_key", f"--{scope}", ids[scope][0], "--name", scope, "--format", "json")
        keys[scope] = json.loads(service.set_up(*command))["api_key"]
    return keys


def _unknown(call: Call) -> str:
    return f"nobody-{secrets.token_hex(4)}.production" if call.kind == "name" else str(uuid4())


@dataclass
class Inquiry:
    """Asks for these ids, which are not the key's, and for others that nobody has."""

    wire: Wire
    ids: dict[str, list[str]]
    api_key: str
    rounds: int
    found: Found = field(default_factory=Found)

    def compare(self, call: Call, scope: str, api_key: str) -> None:
        """Asks for objects of every kind, also of others than the call is about."""
        expected = self.wire.ask(call.with_id(_unknown(call), api_key))
        if not expected.startswith(b"HTTP/1.1 404 "):
            self.found.different.append(f"{call.name} with an unknown id: {expected[:60]!r}")
        is_closed = call.name.split("/")[3] in CLOSED  # there a name is no id, and is not looked for
        for kind, identifiers in self.ids.items():
            if is_closed and kind == "name":
                continue
            self.found.answers += 1
            if (answer := self.wire.ask(call.with_id(identifiers[0], api_key))) != expected:
                self.found.different.append(f"{call.name} with a foreign {kind} by a key of one {scope}: {answer!r}")

    def measure(self, call: Call) -> None:
        """Takes the times of a call, and takes more as long as they differ."""
        times = self.found.times[call.name] = Times()
        for _ in range(ATTEMPTS):
            self.once(call, times)
            if abs(times.difference) <= TOLERANCE:
                break
        milliseconds = 1000 * times.of("unknown 1", "unknown 2")
        say(f"{call.name}: {milliseconds:.2f} ms, {times.difference:+.1%} (noise {times.noise:.1%})")

    def once(self, call: Call, times: Times) -> Times:
        """Asks for foreign and unknown ids in turn, in another order each time."""
        for _ in range(self.rounds):
            for name in random.sample(sorted(times.seconds), 4):
                is_foreign = name.startswith("foreign")
                identifier = random.choice(self.ids[call.kind]) if is_foreign else _unknown(call)  # noqa: S311
                request = call.with_id(identifier, self.api_key)
                self.wire.connect()
                began = time.perf_counter()
                self.wire.ask(request)
                times.seconds[name].append(time.perf_counter() - began)
        return times


@dataclass
class Cells:
    """How many cells the matrices of the tests have, and whether all are as they should be."""

    count: int
    is_met: bool

    @classmethod
    def run(cls) -> "Cells":
        """Runs the tests of the matrices, on PostgreSQL; each tells how many answers it judged."""
        say("running the matrices of the tests")
        report = ROOT / "var" / "cache" / f"matrices-{os.getpid()}.xml"
        command = [sys.executable, "-m", "pytest", *MATRICES, "-q", "-ojunit_family=xunit1", f"--junit-xml={report}"]
        environ = {**os.environ, "TEST_DATABASE": "postgresql"}
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            say(done.stdout[-4000:])
        root = ET.parse(report).getroot()  # noqa: S314  # our own file
        report.unlink()
        judged = sum(int(found.attrib["value"]) for found in root.iter("property") if found.get("name") == "answers")
        table = sum("answers_as_the_table_says" in case.attrib["name"] for case in root.iter("testcase"))
        return cls(judged + table, done.returncode == 0)


def _figure(found: Found, cells: Cells | None) -> Figure:
    for line in found.different[:20]:
        say(line)
    worst = max(found.times.values(), key=lambda times: abs(times.difference))
    noise = max(times.noise for times in found.times.values())
    samples = sum(len(values) for times in found.times.values() for values in times.seconds.values())
    text = (
        f"{len(found.different)} of {found.answers:,} answers about foreign objects differ from those about unknown ones"
        f" ({found.calls} calls); medians of {len(found.times)} calls within {abs(worst.difference):.1%}"
        f" ({samples:,} samples, noise up to {noise:.1%}; an answered call is {found.control:+.0%} off)"
    )
    is_met = not found.different and abs(worst.difference) <= TOLERANCE and abs(found.control) > TOLERANCE
    if cells:
        text += f"; {cells.count:,} answers of the tests' matrices, {'all' if cells.is_met else 'NOT all'} as they say"
        is_met = is_met and cells.is_met
    return Figure(text, is_met)
