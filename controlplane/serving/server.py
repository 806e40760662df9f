"""The production server, with the options that every way of running the service shares."""

import os
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

#: Where the processes share what they count, each in files of its own; prometheus-client looks for it when imported.
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
COUNTS_OF = "controlplane-counts-"
NAME_OF_COUNTS = re.compile(rf"{COUNTS_OF}([1-9][0-9]{{0,8}})-.+", re.ASCII)
#: Threads of a process that run requests; what they wait for is the database. With fewer, one tenant's burst, each call
#: of which waits for the same full queue or for the disk, has its neighbours' calls wait for a thread.
THREADS = 8
#: Those that people and readers share: their pages and lists take processors, of which more threads make no more.
SHARED_THREADS = 4


def serve(*, port: int, processes: int = 1, host: str = "127.0.0.1") -> NoReturn:
    """Replaces this process by the server; a process of it that ends unexpectedly is started again."""
    os.environ.pop("DATABASE_STATEMENT_TIMEOUT", None)  # the commands' own; the server keeps the default
    if settings.METRICS_TOKEN:
        os.environ[DIRECTORY_VARIABLE] = _make_directory_of_counts()
    command = command_for("controlplane.wsgi:application", port=port, processes=processes, host=host)
    os.execv(command[0], command)  # noqa: S606


def command_for(application: str, *, port: int, processes: int, host: str = "127.0.0.1") -> list[str]:
    """The command that serves a WSGI application as this one is served."""
    options = {
        "--interface": "wsgi",
        "--host": host,
        "--port": str(port),
        "--workers": str(processes),
        "--blocking-threads": str(THREADS),
        "--log-level": "warning",
    }
    arguments = [part for option in options.items() for part in option]
    granian = str(Path(sys.executable).with_name("granian"))
    return [granian, *arguments, "--no-ws", "--respawn-failed-workers", application]


def _make_directory_of_counts() -> str:
    """A new directory, named for this process, which the server takes over; those of servers that ended go.

    The folder for temporary files is everybody's: whatever else has such a name is left alone and stops nothing.
    """
    try:
        folder = tempfile.gettempdir()
        for path in _left_over(folder):
            shutil.rmtree(path, ignore_errors=True)
        return tempfile.mkdtemp(prefix=f"{COUNTS_OF}{os.getpid()}-", dir=folder)
    except OSError as error:
        msg = f"METRICS_TOKEN needs a folder for temporary files: set TMPDIR to one ({error.strerror})."
        raise ImproperlyConfigured(msg) from None


def _left_over(folder: str) -> list[str]:
    """Directories of this account that are named for a process which is none of this account's other ones."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:  # not everybody may list what everybody may write to
        for entry in entries:
            name = NAME_OF_COUNTS.fullmatch(entry.name)
            if name and _is_own_directory(entry) and not _is_another_running(int(name[1])):
                found.append(entry.path)
    return found


def _is_own_directory(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory of this account, and no link to one."""
    try:
        return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
    except OSError:  # gone meanwhile
        return False


def _is_another_running(pid: int) -> bool:
    """Whether a process of this account, but for this one, has the id; if another account's has, ours has ended."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return pid != os.getpid()
