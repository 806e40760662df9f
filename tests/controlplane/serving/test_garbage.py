"""What a process keeps is looked through once, and what pages leave is collected when they are done."""

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.serving import garbage as module
from controlplane.serving.bulkhead import Bulkhead, Kind
from controlplane.serving.garbage import HOUR, MANY, SELDOM, Garbage


@pytest.fixture
def unchanged() -> Iterator[None]:
    """The collector of the tests' own process is as it was."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Knot:
    """Points to itself, so that only a collection finds it."""

    left = 0

    def __init__(self) -> None:
        self.itself = self
        Knot.left += 1

    def __del__(self) -> None:
        Knot.left -= 1


def tie() -> int:
    """Leaves garbage; returns how many knots are left."""
    gc.disable()
    Knot()
    return Knot.left


@pytest.fixture
def knots(unchanged: None) -> Iterator[None]:
    yield
    gc.enable()
    gc.collect()
    assert Knot.left == 0


def test_what_there_is_at_boot_is_set_aside_and_all_is_looked_through_rarely(unchanged: None) -> None:
    before = gc.get_threshold()
    Garbage().serve()
    assert gc.get_freeze_count() > MANY
    assert gc.get_threshold() == (before[0], before[1], before[2] * SELDOM)


def test_a_process_that_does_not_serve_collects_as_python_does(knots: None) -> None:
    garbage, left = Garbage(), tie()
    garbage.collect()
    assert (left, Knot.left) == (1, 1)


def test_what_a_request_left_is_collected(knots: None) -> None:
    garbage = Garbage()
    garbage.serve()
    for _ in range(5):
        left = tie()
        garbage.collect()
        assert (left, Knot.left) == (1, 0)


def test_what_pages_keep_is_set_aside_but_not_without_end(unchanged: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMES", 2)
    garbage, kept, frozen = Garbage(), [], 0
    garbage.serve()
    for _ in range(4):
        kept.append([[number] for number in range(MANY)])
        before = gc.get_freeze_count()
        garbage.collect()
        frozen += gc.get_freeze_count() > before + MANY / 2
    assert frozen == 2


def test_little_is_looked_through_each_time(unchanged: None) -> None:
    garbage = Garbage()
    garbage.serve()
    kept = [[number] for number in range(MANY // 2)]
    before = gc.get_freeze_count()
    garbage.collect()
    assert gc.get_freeze_count() <= before
    assert len(kept) == MANY // 2


def test_what_was_in_use_by_chance_is_found_within_the_hour(knots: None, monkeypatch: pytest.MonkeyPatch) -> None:
    garbage = Garbage()
    garbage.serve()
    tie()
    gc.freeze()
    garbage.collect()
    assert Knot.left == 1
    later = time.monotonic() + HOUR + 1
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    garbage.collect()
    assert Knot.left == 0


@pytest.mark.parametrize("kind", [Kind.PEOPLE, Kind.READERS])
def test_who_leaves_a_place_has_what_is_left_collected_once(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[None] = []
    monkeypatch.setattr("controlplane.serving.bulkhead.garbage.collect", lambda: times.append(None))
    place: Any = Bulkhead(8).enter(kind)
    place.leave()
    place.leave()
    assert times == [None]
