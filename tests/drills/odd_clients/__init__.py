"""Whatever a known worker tells, in whatever spelling its clients and proxies have, costs it nothing, and is kept.

A generator makes calls that are odd and legal: bodies in any framing, headers in any spelling, what is free in any shape,
processes that start again, move, follow each other and run beside each other. An oracle in plain Python says for each
which answers a reader of the contract may expect; and in the end, that every start is on record with what it told, and
that every worker is shown as what it told last. Calls that have to be refused are among them, and change nothing.
"""

import itertools
import json
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg

from tests.drills.drill import Figure, Scale, say
from tests.drills.odd_clients.calls import Call, Maker, next_call
from tests.drills.odd_clients.wire import HAS_HTTP2, Answer, Wire
from tests.drills.odd_clients.workers import Worker
from tests.drills.service import Service
from tests.support.databases import THROWAWAY, PostgresqlServer

POLICIES = ("allow", "reject", "take_over")
#: Threads that call at once; a worker's calls are one thread's, one after the other.
CALLERS = 8
#: Of each policy, so many workers for each caller.
WORKERS = 2
#: How often a call is the start of a new worker in a queue.
NEW_WORKERS = 0.02
STARTS = "SELECT worker_id, client_address, user_agent, system_info FROM workers_workerstart"
GOODBYES = "SELECT worker_id, stop_reason FROM workers_workerinstance WHERE is_current"


@dataclass
class Campaign:
    """What was called, and what was not as expected."""

    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    starts: int = 0

    def judge(self, call: Call, answer: Answer) -> None:
        """Counts an answer, and keeps it if no reader would expect it."""
        status, body = answer.status, answer.body
        self.statuses[status] += 1
        self.kinds[call.kind] += 1
        text = f"{call.kind}: {status} for {sorted(call.expected)}: {body[:200]!r} to {call.request}"
        if status == 0 or status >= 500:
            self.failed.append(text)
        elif status not in call.expected:
            (self.passed if status < 300 else self.refused).append(text)


def run(scale: Scale, directory: Path) -> Figure:
    campaign = Campaign()
    count = scale.of(2_504, 25_000)
    if not HAS_HTTP2:
        say("curl with HTTP/2 is not installed: HTTP/1 alone is tried")
    for engine in ("postgresql", "sqlite"):
        database = PostgresqlServer(directory, THROWAWAY) if engine == "postgresql" else None
        url = database.url if database else f"sqlite:///{directory}/database.sqlite3"
        service = Service(directory, url)
        fleet = Fleet(service, scale.seed)
        fleet.call(count, campaign)
        fleet.compare(campaign)
        service.stop()
        log = service.process.log_text().splitlines()
        campaign.failed += [f"on {engine}: {line[-1_500:]}" for line in log if "Traceback" in line]
        if database:
            database.stop()
    return figure_of(campaign)


class Fleet:
    """Workers of each policy on a service, and what is on record of them."""

    def __init__(self, service: Service, seed: int) -> None:
        self.service = service
        self.seed = seed
        service.prepare()
        ids = {policy: [str(uuid4()) for _ in range(CALLERS * WORKERS)] for policy in POLICIES}
        path = service.directory / "odd.yaml"
        path.write_text(document(ids))
        service.manage("apply", str(path))
        issued = service.manage("issue_api_key", "--organization", "odd", "--name", "all", "--format", "json")
        self.api_key: str = json.loads(issued)["api_key"]
        service.start()
        self.queues = {queue["name"]: queue["id"] for queue in self._read("/api/v1/worker-queues")}
        #: Of each caller.
        self.workers_of = [self._workers(caller, ids) for caller in range(CALLERS)]

    def _workers(self, caller: int, ids: dict[str, list[str]]) -> list[Worker]:
        rows = [(policy, key) for policy in POLICIES for key in ids[policy][caller::CALLERS]]
        return [Worker(key, CALLERS * place + caller, policy) for place, (policy, key) in enumerate(rows)]

    def call(self, count: int, campaign: Campaign) -> None:
        """Makes so many calls, all callers at once; each makes the same ones whenever the seed is the same."""

        def call(number: int) -> None:
            chance = Random(f"{self.seed} {number}")  # noqa: S311  # nothing secret comes of it
            self._call(self.workers_of[number], chance, count // CALLERS, campaign)

        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(call, range(CALLERS)))  # so that an error of one ends the drill
        say(f"answers: {dict(campaign.statuses.most_common())}")

    def _call(self, workers: list[Worker], chance: Random, count: int, campaign: Campaign) -> None:
        wire = Wire(self.service.port)
        for _ in range(count):
            call = self._next(workers, chance)
            answer = wire.ask(call.request, chance)
            campaign.judge(call, answer)
            call.learn(answer)
        wire.close()

    def _next(self, workers: list[Worker], chance: Random) -> Call:
        """Of one of these workers, or of a new one, which then is one of them."""
        if chance.random() > NEW_WORKERS:
            return next_call(chance.choice(workers), chance, self.api_key)
        name, queue_id = chance.choice(sorted(self.queues.items()))
        newcomer = Worker("", workers[0].number + 1_000 * len(workers), name.replace("-", "_"))
        return Maker(newcomer, chance, self.api_key).start_in_queue(queue_id, workers.append)

    def compare(self, campaign: Campaign) -> None:
        """Compares what is on record and what is shown with what was told."""
        starts = {
            text["mark"]: (address, agent, text) for _, address, agent, text in self._rows(STARTS) if "mark" in text
        }
        reasons = {str(UUID(str(worker))): reason for worker, reason in self._rows(GOODBYES)}
        shown = self._shown()
        told = 0
        for worker in itertools.chain(*self.workers_of):
            who = f"worker {worker.number} ({worker.policy})"
            campaign.lost += [f"{who} {text}" for text in worker.problems(shown.get(worker.id), reasons.get(worker.id))]
            told += len(worker.starts)
            for mark, start in worker.starts.items():
                address, agent, text = starts.get(mark, ("", "", None))
                if not start.told.is_kept_in(text) or (str(address), agent) != (start.address, start.user_agent):
                    campaign.lost.append(
                        f"{who}: start {mark} has {address} {agent} {str(text)[:300]} for {str(start)[:600]}"
                    )
        campaign.starts += told
        if len(starts) != told:
            campaign.lost.append(f"{len(starts)} starts on record for {told} that were answered")

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database has, its JSON read."""
        url = self.service.environ["DATABASE_URL"]
        if not url.startswith("sqlite:"):
            with psycopg.connect(url) as server:
                return [tuple(row) for row in server.execute(query)]
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        rows = connection.execute(query).fetchall()
        connection.close()
        return [tuple(json.loads(cell) if str(cell).startswith("{") else cell for cell in row) for row in rows]

    def _shown(self) -> dict[str, dict[str, Any]]:
        """The current process of each worker, as the reading API shows it."""
        found: dict[str, dict[str, Any]] = {}
        for queue in self._read("/api/v1/worker-queues"):
            for row in self._read(f"/api/v1/worker-queues/{queue['id']}/workers?status=all"):
                known = found.setdefault(row["worker_id"], row)
                if row["registered_at"] > known["registered_at"]:
                    found[row["worker_id"]] = row
        return found

    def _read(self, path: str) -> list[dict[str, Any]]:
        connection = HTTPConnection("127.0.0.1", self.service.port, timeout=30)
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.api_key}"})
        rows: list[dict[str, Any]] = json.load(connection.getresponse())
        connection.close()
        return rows


def document(ids: dict[str, list[str]]) -> str:
    """The fleet as `apply` takes it; nobody is offline within an hour."""
    queues = "".join(
        f"          - name: {policy.replace('_', '-')}\n            duplicate_policy: {policy}\n"
        "            heartbeat_interval: 3600\n            workers:\n"
        + "".join(f"              - {{name: {policy[0]}-{number}, id: {key}}}\n" for number, key in enumerate(keys))
        for policy, keys in ids.items()
    )
    return FLEET.format(queues=queues)


def figure_of(campaign: Campaign) -> Figure:
    """The figure; all that was not as expected is told before."""
    found = [*campaign.failed, *campaign.refused, *campaign.passed, *campaign.lost]
    for text in found[:30]:
        say(text)
    say(f"calls: {dict(campaign.kinds.most_common())}")
    made, served = campaign.statuses.total(), campaign.statuses[200] + campaign.statuses[204]
    text = (
        f"{len(campaign.refused)} refused that should pass, {len(campaign.passed)} passed that should not, "
        f"{len(campaign.failed)} answered with 5xx or nothing of {made:,} odd calls, {served:,} served; "
        f"{len(campaign.lost)} differences between what was told and what is kept ({campaign.starts:,} starts)"
    )
    return Figure(text, not found and served > made / 2)


FLEET = """
organizations:
  - id: odd
    name: odd
    temporal_connection: cloud
    litellm_connection: gateway
    temporal_connections:
      - {{name: cloud, host: "temporal.example.com:7233", namespace: odd, requires_api_key: false}}
    litellm_connections:
      - {{name: gateway, api_url: "https://llm.example.com", requires_api_key: false}}
    environments:
      - name: production
        worker_queues:
{queues}"""
