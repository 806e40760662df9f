"""Forged and mutated API keys are refused by the running service, one and all, and none upsets it.

Every classic attack (`tests/support/forgeries.py`) and random mutations of a valid key, the half of them signed anew with
the service's own signing key, as an attacker could who has it and nothing else. Every 25th call carries the valid key
itself, whose starts have to succeed and have to be all that is recorded. The seed repeats the same changes at the same
places; keys are new in each run.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg

from environments.encryption import KeyRing
from tests.drills.drill import Figure, Scale, say
from tests.drills.load import Answer, Answers, Call, Load
from tests.drills.service import Fleet, Service, prepared_server
from tests.support.databases import THROWAWAY, PostgresqlServer
from tests.support.forgeries import FORGERIES, Genuine
from tests.support.mutations import mutated, mutated_and_signed

GENUINE, FORGED = "genuine", "forged"
#: Every so many calls carry the valid key.
INTERVAL = 25
#: Two processes answer; few callers keep them busy, and this process shares their processors.
CALLERS = 8
REFUSAL = b'{"detail":"This API key is not valid."}'


def run(scale: Scale, directory: Path) -> Figure:
    database = prepared_server(directory, THROWAWAY)
    service = Service(directory, database.url)
    service.prepare()
    fleet, genuine = keys_of(service)
    service.start()
    mutations = scale.of(3_000, 100_000)
    answers = Load(service.port, calls(fleet, genuine, scale, mutations), callers=CALLERS).start().wait()
    say(f"answers: {answers.statuses()}")
    service.stop()
    figure = judge(answers, mutations, recorded(database), service.process.log_text())
    database.stop()
    return figure


def keys_of(service: Service) -> tuple[Fleet, Genuine]:
    """A fleet's key with another of its organization and one of another organization."""
    fleet, foreign = service.create_fleet(1), service.create_fleet(1, "foreign")
    scope = ("--organization", fleet.organization_id)
    issued = service.set_up("issue_api_key", *scope, "--name", "other", "--format", "json")
    genuine = Genuine(
        token=fleet.api_key,
        other_token=json.loads(issued)["api_key"],
        foreign_token=foreign.api_key,
        signing_key=KeyRing.parse(service.environ["API_KEY_SIGNING_KEYS"]).active,
        encryption_key=KeyRing.parse(service.environ["ENCRYPTION_KEYS"]).active,
        secret_key=service.environ["SECRET_KEY"],
    )
    return fleet, genuine


def calls(fleet: Fleet, genuine: Genuine, scale: Scale, mutations: int) -> Iterator[Call]:
    """Starts with each forged key, and now and then with the valid one."""
    path = f"/api/v1/workers/{fleet.worker_ids[0]}/start"
    for number, text in enumerate(forged_keys(genuine, scale, mutations)):
        if number % INTERVAL == 0:
            yield Call(path, b"{}", genuine.token, GENUINE)
        yield Call(path, b"{}", text, FORGED)


def forged_keys(genuine: Genuine, scale: Scale, mutations: int) -> Iterator[str]:
    """The classic attacks, then so many mutations, no two the same."""
    yield from filter(is_one_line, (forge(genuine) for forge in FORGERIES.values()))
    chance, seen = scale.random(), {genuine.token, genuine.other_token}
    known = len(seen)
    while len(seen) < known + mutations:
        is_signed = chance.random() < 0.5
        text = mutated_and_signed(genuine, chance) if is_signed else mutated(genuine.token, genuine.other_token, chance)
        # White space at the end is the header's, not the key's: it would be the valid key.
        if text not in seen and text.rstrip() not in seen and is_one_line(text):
            seen.add(text)
            yield text


def is_one_line(text: str) -> bool:
    """Whether a header can carry the text; what holds a line break is two lines, and tests/workers tries it."""
    return not {"\r", "\n"} & set(text)


def judge(answers: Answers, mutations: int, starts: int, log: str) -> Figure:
    """Forged: 401, or 400 or 431 of the HTTP server for what no header may hold; genuine: 200, and recorded."""
    forged = [answer for answer in answers.all if answer.call.mark == FORGED]
    genuine = [answer for answer in answers.all if answer.call.mark == GENUINE]
    errors = [answer for answer in forged if answer.status >= 500 or answer.status == 0]
    accepted = [answer for answer in forged if answer not in errors and not is_refused(answer)]
    for answer in [*errors, *accepted][:10]:
        say(f"{answer.status} {answer.body[:200]!r} for {answer.call.api_key[:300]!r}")
    served = sum(answer.status == 200 for answer in genuine)
    text = (
        f"{len(accepted)} accepted and {len(errors)} answered with 5xx or nothing of {len(forged):,} forged keys "
        f"({mutations:,} mutations, {len(forged) - mutations} classic attacks); "
        f"{served} of {len(genuine)} starts with the valid key served, {starts} recorded"
    )
    is_met = not accepted and not errors and served == len(genuine) == starts and "Traceback" not in log
    return Figure(text, is_met)


def is_refused(answer: Answer) -> bool:
    """The one answer for every key that is not valid, or the HTTP server's own."""
    return (answer.status == 401 and answer.body == REFUSAL) or answer.status in {400, 431}


def recorded(database: PostgresqlServer) -> int:
    """How many starts the ledger has."""
    with psycopg.connect(database.url) as connection:
        row = connection.execute("SELECT count(*) FROM workers_workerstart").fetchone()
    return int(row[0]) if row else 0
