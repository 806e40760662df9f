"""What commands print: for a terminal that nobody else may steer, and for a pipe that may be closed early."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management.base import OutputWrapper


def printable(text: str) -> str:
    """The text with everything that is no visible character written as its number."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


@contextmanager
def until_nobody_reads(stdout: OutputWrapper) -> Iterator[None]:
    """Ends quietly what is printed within when the reader has seen enough, as `head` has."""
    try:
        yield
        stdout.flush()
    except BrokenPipeError:
        # Nothing is left to be flushed into the closed pipe when Python ends.
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), stdout.fileno())
