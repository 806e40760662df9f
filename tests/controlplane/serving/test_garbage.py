"""What a process keeps is looked through once, and what pages leave is collected when they are done."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.serving.bulkhead import Bulkhead, Kind
from controlplane.serving.garbage import SELDOM, Garbage


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
    Garbage().set_aside()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold() == (before[0], before[1], before[2] * SELDOM)


def test_a_process_that_does_not_serve_collects_as_python_does(knots: None) -> None:
    garbage, left = Garbage(), tie()
    garbage.collect()
    assert (left, Knot.left) == (1, 1)


def test_what_a_request_left_is_collected(knots: None) -> None:
    garbage = Garbage()
    garbage.set_aside()
    for _ in range(5):
        left = tie()
        garbage.collect()
        assert (left, Knot.left) == (1, 0)


def test_what_is_still_there_is_set_aside_ever_more_rarely(unchanged: None) -> None:
    garbage, kept, frozen = Garbage(), [], []
    garbage.set_aside()
    for _ in range(9):
        kept.append([object()])
        before = gc.get_freeze_count()
        garbage.collect()
        frozen.append(gc.get_freeze_count() > before)
    assert [number for number, is_frozen in enumerate(frozen, start=1) if is_frozen] == [1, 2, 4, 8]


@pytest.mark.parametrize("kind", [Kind.PEOPLE, Kind.READERS])
def test_who_leaves_a_place_has_what_is_left_collected_once(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[None] = []
    monkeypatch.setattr("controlplane.serving.bulkhead.garbage.collect", lambda: times.append(None))
    place: Any = Bulkhead(8).enter(kind)
    place.leave()
    place.leave()
    assert times == [None]
