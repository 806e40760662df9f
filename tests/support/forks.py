"""The process that tests/support/commands.py starts: loads everything once, then forks for each command."""

import gc
import json
import os
import sys

import django
from django.core.management import get_commands
from django.urls import get_resolver

import manage

assert manage  # loaded here, for the forks


def serve() -> None:
    """Answers each request with its exit code, until there are no more; returns in the fork that is to run a command."""
    # As `manage.py` does before the settings load.
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    os.environ.setdefault("DATABASE_STATEMENT_TIMEOUT", "0")
    django.setup()
    get_commands()
    assert get_resolver().url_patterns
    gc.freeze()  # what is loaded stays: a fork that looks through it for garbage copies all of its memory
    with open(0, "rb", buffering=0, closefd=False) as requests:  # no byte of which may be left in a buffer
        while line := requests.readline():
            child = os.fork()
            if not child:
                _become(**json.loads(line))
                return
            _, status = os.waitpid(child, 0)
            os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    sys.exit()


def _become(arguments: list[str], environ: dict[str, str], streams: list[str]) -> None:
    """Gives a fork the arguments, environment, input and output of its command."""
    sys.argv = ["manage.py", *arguments]
    os.environ |= environ
    for number, path in enumerate(streams):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = os.open(path, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
