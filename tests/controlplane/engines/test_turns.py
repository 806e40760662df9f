"""Calls of workers compute one after the other, and whoever waits for something keeps nobody from it."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from django.db import connection, transaction

from controlplane.engines import turns as module
from controlplane.engines.turns import PATIENCE, Turns, turns

pytestmark = pytest.mark.sqlite


@contextmanager
def running(*actions: Callable[[], None]) -> Iterator[None]:
    """Each in a thread of its own, which has ended afterwards."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def wait_for(own: Turns, count: int) -> None:
    """Until so many calls wait."""
    until = time.monotonic() + 10
    while own.waiting() < count:
        assert time.monotonic() < until
        time.sleep(0.0001)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call goes ahead without its turn."""
    monkeypatch.setattr(module, "PATIENCE", 10.0)


def calls(own: Turns, told: list[tuple[str, bool]], *names: str) -> Iterator[Callable[[], None]]:
    """Of these organizations, each of which begins once the one before it waits."""
    for number, name in enumerate(names):

        def call(number: int = number, name: str = name) -> None:
            wait_for(own, number)
            with own.taken(name) as turn:
                told.append((name, turn.is_held))

        yield call


def test_a_turn_that_is_left_goes_to_the_call_that_waits(patient: None) -> None:
    own, told = Turns(), list[tuple[str, bool]]()
    with ExitStack() as before:
        assert before.enter_context(own.taken("globex")).is_held
        with running(*calls(own, told, "acme")):
            wait_for(own, 1)
            assert not told
            before.close()
    assert told == [("acme", True)]
    with own.taken("globex") as turn:
        assert turn.is_held


def test_organizations_have_their_turns_one_after_the_other(patient: None) -> None:
    own, told = Turns(), list[tuple[str, bool]]()
    names = ("acme", "acme", "acme", "globex", "acme", "initech", "globex")
    with ExitStack() as before:
        before.enter_context(own.taken("acme"))
        with running(*calls(own, told, *names)):
            wait_for(own, len(names))
            before.close()
    assert [name for name, _ in told] == ["acme", "globex", "initech", "acme", "globex", "acme", "acme"]
    assert all(is_held for _, is_held in told)


def test_a_call_that_has_waited_goes_on_before_others_of_its_organization_begin(patient: None) -> None:
    own, told = Turns(), list[tuple[str, bool]]()
    waits, goes_on = threading.Event(), threading.Event()

    def wait() -> None:
        with own.taken("acme") as turn:
            with own.left():
                waits.set()
                goes_on.wait()
            told.append(("the first", turn.is_held))

    with running(wait), ExitStack() as between:
        waits.wait()
        assert between.enter_context(own.taken("globex")).is_held
        with running(*calls(own, told, "acme", "acme")):
            wait_for(own, 2)
            goes_on.set()
            wait_for(own, 3)
            between.close()
    assert told == [("the first", True), ("acme", True), ("acme", True)]


def test_who_waits_for_its_turn_does_not_wait_for_long() -> None:
    own, told = Turns(), list[tuple[str, bool]]()
    with own.taken("acme"), running(*calls(own, told, "globex")):
        pass
    assert told == [("globex", False)]
    with own.taken("acme") as turn:
        assert turn.is_held


def test_a_slow_body_loses_its_turn_to_who_waits_and_the_next_one_leaves_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, is_sent = Turns(), threading.Event()
    reads = threading.Barrier(2)

    def send() -> None:
        with own.taken("slow") as turn:
            with own.reading():
                reads.wait()
                is_sent.wait()
            assert turn.is_held

    with running(send):
        reads.wait()
        time.sleep(PATIENCE)
        with own.taken("quick") as turn:
            assert turn.is_held
            is_sent.set()
    with own.taken("slow") as turn, own.reading():
        assert not turn.is_held
    with own.taken("quick") as turn, own.reading():
        assert turn.is_held
    monkeypatch.setattr(module, "LATELY", 0.0)
    with own.taken("slow") as turn, own.reading():
        assert turn.is_held


@pytest.mark.django_db(transaction=True)
def test_whoever_waits_for_the_database_has_left_its_turn() -> None:
    is_locked, is_over = threading.Event(), threading.Event()
    found: list[bool] = []

    def keep() -> None:
        with transaction.atomic():
            take_lock()
            is_locked.set()
            is_over.wait()
        connection.close()

    def call() -> None:
        is_locked.wait()
        with turns.taken("acme"), transaction.atomic():
            take_lock()
        connection.close()

    def take_lock() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(42)"
                if connection.vendor == "postgresql"
                else "DELETE FROM django_session"
            )

    with running(keep, call):
        is_locked.wait()
        time.sleep(0.1)  # by then the call waits
        for _ in range(20):
            with turns.taken("globex") as turn:
                found.append(turn.is_held)
            time.sleep(0.001)
        is_over.set()
    assert all(found)


def test_a_thread_without_a_call_leaves_nothing() -> None:
    own = Turns()
    with own.left(), own.reading():
        assert own.waiting() == 0


def test_never_do_two_have_the_turn_and_nobody_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, seeded_random: random.Random
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0005)
    own, have, most, done = Turns(), set[int](), [0], []
    seeds = [seeded_random.random() for _ in range(8)]

    def compute(number: int) -> None:
        have.add(number)
        most[0] = max(most[0], len(have))
        time.sleep(0)
        have.discard(number)

    def call(number: int, chance: random.Random) -> None:
        for _ in range(150):
            with own.taken(f"org-{number % 3}") as turn:
                for wait in chance.choices((own.left, own.reading), k=3):
                    if turn.is_held:
                        compute(number)
                    with wait():
                        time.sleep(chance.choice((0, 0, 0.001)))
        done.append(number)

    with running(*(lambda at=at, seed=seed: call(at, random.Random(seed)) for at, seed in enumerate(seeds))):  # noqa: S311
        pass
    assert len(done) == len(seeds)
    assert own.waiting() == 0
    assert own._held is None
    assert most == [1]
