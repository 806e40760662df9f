"""How far a long command is: a bar in place on a terminal, plain lines anywhere else."""

import time

from django.core.management.base import OutputWrapper

WIDTH = 30
#: Between two drawings of a bar, in seconds: more often nobody sees.
REDRAW_AFTER = 0.1


class ProgressDisplay:
    """Tells progress on a stream, which is stderr lest it mix with results.

    `seconds_between_lines` holds back plain lines, but for the last one, where there would be thousands of them.
    """

    def __init__(self, stream: OutputWrapper, *, seconds_between_lines: float = 0) -> None:
        self._stream = stream
        self._is_watched = stream.isatty()
        self._pause = REDRAW_AFTER if self._is_watched else seconds_between_lines
        self._told_at = float("-inf")

    def show(self, name: str, done: int, total: int) -> None:
        """So many of so many are done; when all are, the line stays."""
        is_last = done >= total
        if not is_last and time.monotonic() - self._told_at < self._pause:
            return
        self._told_at = time.monotonic()
        if self._is_watched:
            self._stream.write(f"{name} {_bar(done, total)} {done:,} of {total:,}", ending="\n" if is_last else "\r")
        else:
            self._stream.write(f"{name}: {done} of {total}")


def _bar(done: int, total: int) -> str:
    filled = WIDTH * min(done, total) // total if total else WIDTH
    return f"[{'#' * filled}{'.' * (WIDTH - filled)}]"
