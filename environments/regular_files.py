"""Reads a file that somebody names, such as one with a secret: a regular one, of bounded size, or not at all.

A pipe, a socket or a device would be waited for without end, or never end.
"""

import os
import stat
from pathlib import Path

#: More than any secret has.
MAX_SECRET_BYTES = 65_536

#: What else a name may lead to.
KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnreadableFileError(Exception):
    """The file cannot be read; the message says why in a few words, never with what is in it."""


def read_regular(path: str | Path, *, most: int = MAX_SECRET_BYTES) -> bytes:
    """The first bytes of a file, one more than `most`, by which a larger one is known; symbolic links are followed.

    UnreadableFileError for one that cannot be read, or is no regular one.
    """
    try:
        _require_regular(os.stat(path))  # noqa: PTH116  # before it is opened: that alone may wake a device
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _require_regular(os.fstat(file.fileno()))  # it may have been replaced meanwhile
            return file.read(most + 1)
    except OSError as error:
        raise UnreadableFileError(error.strerror or "unknown reason") from None
    except ValueError:
        msg = "No file can have this name"
        raise UnreadableFileError(msg) from None


def _require_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for is_kind, words in KINDS if is_kind(found.st_mode)), "something else")
        msg = f"Is {kind}, not a regular file"
        raise UnreadableFileError(msg)
