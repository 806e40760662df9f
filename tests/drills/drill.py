"""What a drill is: a module with `run`, which takes its size and a directory of its own and returns its figure."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Figure:
    """What a drill found, in one line, and whether that is what is promised."""

    text: str
    is_met: bool
    #: False where this machine lacks something that the drill needs; the text says what.
    is_tried: bool = True

    def __str__(self) -> str:
        if not self.is_tried:
            return f"NOT TRIED: {self.text}"
        return f"{self.text}: {'as promised' if self.is_met else 'NOT AS PROMISED'}"


@dataclass(frozen=True)
class Scale:
    """How large a drill is to be, and the seed of all that is random in it."""

    is_quick: bool
    seed: int

    def of(self, quick: int, full: int) -> int:
        """The number for this scale."""
        return quick if self.is_quick else full

    def random(self) -> Random:
        """A generator that makes the same choices whenever the seed is the same."""
        return Random(self.seed)  # noqa: S311  # nothing secret comes of it


type Drill = Callable[[Scale, Path], Figure]


def say(text: str) -> None:
    """Tells how far a drill is."""
    print(f"  {text}", flush=True)
