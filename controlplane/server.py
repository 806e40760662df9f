"""The production server, with the options that every way of running the service shares."""

import os
import sys
from pathlib import Path
from typing import NoReturn

#: Threads of a process that run requests; what they wait for is the database.
THREADS = 4


def serve(*, port: int, processes: int = 1, host: str = "127.0.0.1") -> NoReturn:
    """Replaces this process by the server; a process of it that ends unexpectedly is started again."""
    granian = str(Path(sys.executable).with_name("granian"))
    os.environ.pop("DATABASE_STATEMENT_TIMEOUT", None)  # the commands' own; the server keeps the default
    options = {
        "--interface": "wsgi",
        "--host": host,
        "--port": str(port),
        "--workers": str(processes),
        "--blocking-threads": str(THREADS),
        "--log-level": "warning",
    }
    arguments = [part for option in options.items() for part in option]
    flags = ["--no-ws", "--respawn-failed-workers"]
    os.execv(granian, [granian, *arguments, *flags, "controlplane.wsgi:application"])  # noqa: S606
