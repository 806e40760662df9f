"""Keeps what this service writes from the machine's other accounts, whatever the umask that it was started with.

SQLite gives its `-wal`, `-shm` and `-journal` the mode of the database's own file.
"""

import os
import stat
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

OTHERS = stat.S_IRWXG | stat.S_IRWXO
#: Beside a database file of SQLite; one that was made when the database's own was open to others stays so.
BESIDE = ("", "-wal", "-shm", "-journal")


def use_private_umask() -> None:
    """Makes files from now on for this account alone: databases, exports, dumps; servers that follow inherit it."""
    os.umask(OTHERS)


def is_open_to_others(path: Path) -> bool:
    """Whether group or others may do anything with it."""
    return bool(path.stat().st_mode & OTHERS)


def make_folder(folder: Path) -> None:
    """The folder, and above it what is missing, each for this account alone."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)


def create(path: Path) -> None:
    """An empty file for this account alone, unless there is one; what cannot be made is told by who opens it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR))
    except OSError:
        return


def close_database(path: Path) -> None:
    """Takes an existing SQLite database from everybody else; refuses the boot where that is not possible."""
    real = path.resolve()  # what lies beside it does so where it really is
    for suffix in BESIDE:
        beside = real.with_name(real.name + suffix)
        if not beside.is_symlink():  # SQLite does not follow one either, and it may lead anywhere
            close(beside)


def close(path: Path) -> None:
    """Takes a file or folder, if it exists, from everybody but its owner."""
    try:
        if is_open_to_others(path):
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~OTHERS)
            is_closed = not is_open_to_others(path)
        else:
            is_closed = True
    except FileNotFoundError:
        return
    except OSError:
        is_closed = False
    if not is_closed:
        msg = f"{path} holds secrets and others may read it, which this account cannot change: run chmod go= {path}"
        raise ImproperlyConfigured(msg)
