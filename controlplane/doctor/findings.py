"""What an examination finds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

#: How many rows a finding names; it counts the rest.
MOST_NAMED = 10


class Level(StrEnum):
    """How bad it is."""

    #: To be mended: the command fails.
    PROBLEM = "problem"
    #: To be known: nothing is wrong yet.
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that was found: by which check, what it is, and what to do."""

    level: Level
    check: str
    text: str
    advice: str


def problem(check: str, text: str, advice: str) -> Finding:
    """Something to be mended."""
    return Finding(Level.PROBLEM, check, text, advice)


def note(check: str, text: str, advice: str) -> Finding:
    """Something to be known."""
    return Finding(Level.NOTE, check, text, advice)


def many(level: Level, check: str, *, what: str, names: Iterable[str], advice: str) -> Iterator[Finding]:
    """One finding for any number of rows, the first of them by name; none without rows.

    `names` is read to its end, but only a few are kept.
    """
    rest = iter(names)
    named = list(islice(rest, MOST_NAMED))
    more = sum(1 for _ in rest)
    if named:
        others = f" and {more} more" if more else ""
        yield Finding(level, check, f"{what}: {len(named) + more} ({', '.join(named)}{others})", advice)
