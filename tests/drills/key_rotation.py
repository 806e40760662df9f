"""Signing keys and API keys are rotated under load: every holder of a valid key is served, and none of an ended one.

The steps of docs/operate/operations.md: a new signing key is known everywhere, then the first everywhere; every API
key is rotated, some with a grace period and revoked when their holders have switched, some without; then the old signing key is
removed. Each change of the ring is a rolling restart. Ended keys are tried on, and refused from the next request on.
"""

import base64
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import psycopg

from tests.drills.drill import Figure, Scale, say
from tests.drills.load import SYSTEM_INFO, Answer, Answers, Call
from tests.drills.proxy import ProxiedLoad
from tests.drills.rings import Pair, RingFile
from tests.drills.service import Fleet, Service, prepared_server


@dataclass
class Key:
    """An API key as its holder has it, and from when to when its end was asked for, if it was."""

    id: str
    token: str
    end: tuple[float, float] | None = None

    def is_right(self, answer: Answer) -> bool:
        """Whether a start with this key was answered as the key was at that time; at its very end both are right."""
        if self.end is None or answer.began_at + answer.seconds < self.end[0]:
            return answer.status == HTTPStatus.OK
        if self.has_ended_before(answer):
            return answer.status == HTTPStatus.UNAUTHORIZED
        return answer.status in {HTTPStatus.OK, HTTPStatus.UNAUTHORIZED}

    def has_ended_before(self, answer: Answer) -> bool:
        """Whether the end was acknowledged before the start was sent."""
        return self.end is not None and answer.began_at > self.end[1]


@dataclass
class Holders:
    """The workers of a fleet, with all keys that they hold or held; they start with each in turn."""

    service: Service
    fleet: Fleet
    keys: dict[str, list[Key]] = field(default_factory=dict)  # by worker

    def issue(self) -> None:
        """Gives each worker a key of its own, but for the first, which holds the organization's."""
        first, *others = self.fleet.worker_ids
        self.keys[first] = [Key(id_of(self.fleet.api_key), self.fleet.api_key)]
        for worker_id in others:
            self.keys[worker_id] = [self._made("issue_api_key", "--worker", worker_id, "--name", "own")]

    def rotate(self, worker_id: str, *, grace_hours: int) -> None:
        """A successor of a worker's newest key; from then on it starts with either."""
        old, asked_at = self.keys[worker_id][-1], time.monotonic()
        successor = self._made("rotate_api_key", old.id, "--grace-hours", str(grace_hours))
        if not grace_hours:
            old.end = asked_at, time.monotonic()
        self.keys[worker_id].append(successor)

    def revoke(self, worker_id: str) -> None:
        """Ends a worker's key but for the newest."""
        old, asked_at = self.keys[worker_id][-2], time.monotonic()
        self.service.manage("revoke_api_key", old.id, "--reason", "its holder has the next one")
        old.end = asked_at, time.monotonic()

    def start_calls(self) -> Iterator[Call]:
        """Starts with every key, the ended ones too, without an end."""
        body = json.dumps({"system_info": SYSTEM_INFO}).encode()
        for worker_id in itertools.cycle(self.fleet.worker_ids):
            for key in tuple(self.keys[worker_id]):
                yield Call(f"/api/v1/workers/{worker_id}/start", body, key.token)

    def by_token(self) -> dict[str, Key]:
        return {key.token: key for keys in self.keys.values() for key in keys}

    def _made(self, *command: str) -> Key:
        made = json.loads(self.service.manage(*command, "--format", "json"))
        return Key(made["id"], made["api_key"])


def id_of(token: str) -> str:
    """The id that an API key tells of itself."""
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])


def run(scale: Scale, directory: Path) -> Figure:
    server = prepared_server(directory, {})
    service = Service(directory, server.url, processes=scale.of(1, 2))
    ring = RingFile(service, "API_KEY_SIGNING_KEYS", "acp")
    service.prepare()
    holders = Holders(service, service.create_fleet(scale.of(2, 8)))
    holders.issue()
    calls = holders.start_calls()
    if scale.is_quick:  # begins where the first rolling restart has ended
        ring.append()
    pair = Pair(service)
    load = ProxiedLoad(pair.proxy, calls, callers=scale.of(4, 32), pause=scale.of(160, 0) / 1000).start()
    if not scale.is_quick:
        ring.append()
        pair.restart("every process knows the new signing key")
    still_old = rotate(holders, ring, pair, server.url)
    answers = load.stop()
    pair.stop()
    server.stop()
    return figure(answers, holders.by_token(), still_old)


def rotate(holders: Holders, ring: RingFile, pair: Pair, database_url: str) -> int:
    """From a new signing key that is known everywhere to an old one that nobody knows; how many keys that signed."""
    old = ring.active
    ring.activate_last()
    *early, late = holders.fleet.worker_ids
    for worker_id in early:  # signed with the new key, before any process has it as its first
        holders.rotate(worker_id, grace_hours=1)
    pair.restart("the new signing key is the first")
    holders.rotate(late, grace_hours=0)
    for worker_id in early:
        holders.revoke(worker_id)
    still_old = usable_keys_signed_with(old, database_url)
    ring.keep_active()
    pair.restart("the old signing key is removed")
    return still_old


def usable_keys_signed_with(signing_key_id: str, database_url: str) -> int:
    """What the console shows, and operators look at before they remove a signing key."""
    query = (
        "SELECT count(*) FROM workers_apikey WHERE signing_key_id = %s AND revoked_at IS NULL AND expires_at > now()"
    )
    with psycopg.connect(database_url) as connection:
        (count,) = connection.execute(query, [signing_key_id]).fetchone() or (0,)
    return int(count)


def figure(answers: Answers, keys: dict[str, Key], still_old: int) -> Figure:
    wrong = Answers([answer for answer in answers.all if not keys[answer.call.api_key].is_right(answer)])
    ended = [answer for answer in answers.all if keys[answer.call.api_key].has_ended_before(answer)]
    failed, served = wrong.other_than(HTTPStatus.OK), wrong.of(HTTPStatus.OK)
    say(f"answers {answers.statuses()}, the wrong ones among them {wrong.statuses()}")
    return Figure(
        f"{len(failed)} of {len(answers.all) - len(ended):,} starts with valid API keys failed, {len(served)} of"
        f" {len(ended):,} with ended ones were served, while {len(keys) // 2} keys and their signing key were rotated;"
        f" {still_old} usable keys left on the old one",
        is_met=not wrong.all and bool(ended) and not still_old,
    )
