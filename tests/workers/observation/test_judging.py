"""Which poller is which process, and of whom nothing can be told."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from environments.connections.verification.looks import Place, QueueLook, SeenPoller, place_in
from workers.observation.judging import KnownProcess, Verdict, judge

pytestmark = pytest.mark.once

NOW = datetime(2026, 3, 14, tzinfo=UTC)
QUEUE = UUID(int=7)


def process(number: int, **fields: Any) -> KnownProcess:
    told = {"organization_id": "acme", "queue_id": QUEUE, "hostname": "host", "pid": number, "is_live": True}
    return KnownProcess(id=UUID(int=number), **told | fields)


def look(*identities: str, full: frozenset[Place] = frozenset()) -> QueueLook:
    pollers = [SeenPoller(name, NOW, frozenset(filter(None, [place_in(name)]))) for name in identities]
    return QueueLook(NOW, pollers=tuple(pollers), full=full)


def told(verdict: Verdict) -> dict[int, bool]:
    return {judged.process.id.int: judged.is_polling for judged in verdict.judged}


def strangers(verdict: Verdict) -> list[str]:
    return [poller.identity for poller in verdict.strangers]


@pytest.mark.parametrize(
    ("identity", "place"),
    [
        ("12@host", Place("host", 12)),
        ("12@a@b", Place("a@b", 12)),
        ("host", None),
        ("@host", None),
        ("12@", None),
        ("-1@host", None),
        ("٣@host", None),
        ("9" * 30 + "@host", None),
        ("12@ho\0st", None),
    ],
)
def test_an_identity_tells_its_place_or_nothing(identity: str, place: Place | None) -> None:
    assert place_in(identity) == place


def test_each_process_is_found_by_host_and_process_id() -> None:
    verdict = judge(look("1@host", "1@other"), [process(1), process(2)])
    assert (told(verdict), strangers(verdict)) == ({1: True, 2: False}, ["1@other"])
    assert [judged.is_conspicuous for judged in verdict.judged] == [False, True]


def test_one_that_is_silent_and_polls_stands_out_and_one_that_is_silent_alone_does_not() -> None:
    verdict = judge(look("1@host"), [process(1, is_live=False), process(2, is_live=False)])
    assert told(verdict) == {1: True}
    assert verdict.judged[0].is_conspicuous


def test_a_nameless_poller_may_be_any_process_that_is_not_seen() -> None:
    verdict = judge(look("1@host", "nameless"), [process(1), process(2)])
    assert (told(verdict), strangers(verdict)) == ({1: True}, [])
    verdict = judge(look("1@host", "nameless"), [process(1)])
    assert (told(verdict), strangers(verdict)) == ({1: True}, ["nameless"])


def test_a_process_that_told_no_place_may_be_any_stranger() -> None:
    for unknown in (process(2, pid=None), process(2, hostname="")):
        assert told(judge(look("1@host", "9@other"), [process(1), unknown])) == {1: True}
        assert told(judge(look("1@host"), [process(1), unknown])) == {1: True, 2: False}


def test_one_that_said_goodbye_polls_on_for_a_minute() -> None:
    ended = process(1, is_live=False, stopped_at=NOW - timedelta(seconds=50))
    verdict = judge(look("1@host"), [ended])
    assert (told(verdict), strangers(verdict)) == ({}, [])
    ended = process(1, is_live=False, stopped_at=NOW - timedelta(seconds=70))
    assert told(judge(look("1@host"), [ended])) == {1: True}


def test_a_process_of_another_queue_is_known_and_not_judged() -> None:
    other = process(3, is_judged=False, queue_id=UUID(int=8))
    verdict = judge(look("3@host"), [other, process(1)])
    assert (told(verdict), strangers(verdict)) == ({1: False}, [])


def test_of_an_older_process_it_is_said_that_it_polls_and_never_that_it_does_not() -> None:
    older = process(3, is_judged=False, is_older=True)
    assert told(judge(look("1@host", "3@host"), [older, process(1)])) == {1: True, 3: True}
    assert told(judge(look("1@host"), [older, process(1)])) == {1: True}
    elsewhere = older.seen_from(UUID(int=8))
    assert told(judge(look("1@host", "3@host"), [elsewhere, process(1)])) == {1: True}


def test_of_one_that_is_told_twice_the_latter_counts() -> None:
    assert told(judge(look("1@host"), [process(1, is_judged=False), process(1)])) == {1: True}


def test_one_whose_slots_are_taken_is_marked() -> None:
    verdict = judge(look(full=frozenset({Place("host", 1)})), [process(1), process(2)])
    assert {judged.process.id.int: judged.is_full for judged in verdict.judged} == {1: True, 2: False}
