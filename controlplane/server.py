"""The production server, with the options that every way of running the service shares."""

import os
import sys
from pathlib import Path
from typing import NoReturn

#: Threads of a process that run requests; what they wait for is the database.
THREADS = 4


def serve(*, port: int, processes: int = 1, host: str = "127.0.0.1") -> NoReturn:
    """Replaces this process by the server; a process of it that ends unexpectedly is started again."""
    os.environ.pop("DATABASE_STATEMENT_TIMEOUT", None)  # the commands' own; the server keeps the default
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
