"""What is wrong with a fleet's document, and where."""

from collections.abc import Sequence
from dataclasses import dataclass

#: A file that is wrong throughout tells so without filling the screen.
MOST_SHOWN = 50


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `path` is such as `organizations[0].environments[1].name`."""

    message: str
    line: int | None = None
    path: str = ""

    def at(self, source: str) -> str:
        """`source:line: path: message`, without the parts that are not known."""
        position = source if self.line is None else f"{source}:{self.line}"
        return ": ".join(part for part in (position, self.path, self.message) if part)


class FleetError(Exception):
    """A document cannot be applied; its text has one line for each problem and never a secret."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        lines = [problem.at(source) for problem in self.problems[:MOST_SHOWN]]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"{source}: and {len(self.problems) - MOST_SHOWN} more problems")
        super().__init__("\n".join(lines))
