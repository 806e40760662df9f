"""The production server, with the options that every way of running the service shares."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from django.conf import settings

#: Where the processes share what they count, each in files of its own; prometheus-client looks for it when imported.
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
COUNTS_OF = "controlplane-counts-"
#: Threads of a process that run requests; what they wait for is the database.
THREADS = 4


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
    """A new directory, named for this process, which the server takes over; those of servers that ended go."""
    for path in Path(tempfile.gettempdir()).glob(f"{COUNTS_OF}*-*"):
        pid = path.name.removeprefix(COUNTS_OF).partition("-")[0]
        if path.stat().st_uid == os.getuid() and not _is_another_running(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{COUNTS_OF}{os.getpid()}-")


def _is_another_running(pid: int) -> bool:
    """Whether a process other than this one has the id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return pid != os.getpid()
