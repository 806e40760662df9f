"""What differs between two reports of a machine: nested JSON as paths, what matters apart from what always moves."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

#: Lines of one difference, and characters of a path or a value, that are shown at most.
MOST_LINES = 200
LONGEST_TEXT = 200
#: Of a long value, what is kept of the part that both have before they differ.
LEAD = 20
#: Words of a key that name a measurement, where its value is a number: it moves without anybody changing the machine.
MEASURED = frozenset({"percent", "used", "free", "available", "uptime", "load", "usage", "temperature", "pid", "ppid"})
PLAIN_KEY = re.compile(r"[\w-]+")

type Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Line:
    """One path whose value differs, as JSON text; None where there was no such path."""

    path: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> str:
        """In a word what happened."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"


@dataclass(frozen=True)
class Difference:
    """The lines that differ, facts of the machine before its measurements, and how many more there are."""

    facts: tuple[Line, ...] = ()
    measurements: tuple[Line, ...] = ()
    left_out: int = 0

    def __bool__(self) -> bool:
        return bool(self.facts or self.measurements)


def difference(before: Mapping[str, Any], after: Mapping[str, Any], *, limit: int = MOST_LINES) -> Difference:
    """What is added, removed and changed from one report to the next, by path; at most `limit` lines.

    A measurement is a number, on each side that has one, under a key with one of the words MEASURED.
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    changed = {path for path in old.keys() | new.keys() if _text(old, path) != _text(new, path)}
    measured = {path for path in changed if _is_measurement(path, old, new)}
    facts, measurements = _lines(changed - measured, old, new), _lines(measured, old, new)
    shown = facts[:limit]
    moved = measurements[: limit - len(shown)]
    return Difference(tuple(shown), tuple(moved), len(changed) - len(shown) - len(moved))


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every scalar and empty container with the keys and positions that lead to it."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    for key, item in inner:
        yield from _leaves(item, (*path, key))
    if path and not inner:
        yield path, value


def _text(leaves: Mapping[Path, Any], path: Path) -> str | None:
    """A value as JSON, which tells 1 from 1.0, true and "1" as Python's equality does not."""
    return json.dumps(leaves[path], ensure_ascii=False) if path in leaves else None


def _is_measurement(path: Path, *sides: Mapping[Path, Any]) -> bool:
    name = next((key for key in reversed(path) if isinstance(key, str)), "")
    values = [side[path] for side in sides if path in side]
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return is_number and not MEASURED.isdisjoint(name.lower().split("_"))


def _lines(paths: set[Path], old: Mapping[Path, Any], new: Mapping[Path, Any]) -> list[Line]:
    return [
        Line(_cut(_name(path)), *_cut_alike(_text(old, path), _text(new, path))) for path in sorted(paths, key=_name)
    ]


def _name(path: Path) -> str:
    """The path as people write it: `runtimes[0].name`, a key with other characters in quotes."""
    parts = (f"[{key}]" if isinstance(key, int) else f".{_key(key)}" for key in path)
    return "".join(parts).removeprefix(".")


def _key(key: str) -> str:
    return key if PLAIN_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _cut_alike(before: str | None, after: str | None) -> tuple[str | None, str | None]:
    """Two values cut to what is shown, from where they differ if that is further on."""
    if before is None or after is None:
        return before and _cut(before), after and _cut(after)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    start = same - LEAD if same > LONGEST_TEXT // 2 else 0
    return _cut(before, start), _cut(after, start)


def _cut(text: str, start: int = 0) -> str:
    end = start + LONGEST_TEXT
    return f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}"
