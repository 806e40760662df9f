#!/usr/bin/env python
"""The command line of the control plane: python manage.py help."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import IntegrityError, OperationalError, ProgrammingError

from controlplane import releases
from controlplane.startup import private_files, secrets_file

#: What a shell reports of a program that SIGPIPE ended.
ENDED_BY_PIPE = 141


def main() -> None:
    """Runs a command; quickstart makes its secrets first, and some commands need none."""
    private_files.use_private_umask()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    os.environ.setdefault("DATABASE_STATEMENT_TIMEOUT", "0")  # a command may take longer than a request
    if sys.stdout is None or sys.stderr is None:  # what is opened next would take its place
        sys.exit("Standard output and standard error have to be open: send what nobody wants to /dev/null.")
    try:
        _run(sys.argv[1] if len(sys.argv) > 1 else "help")
        sys.stdout.flush()  # here, where it is known what to do when nobody reads
    except BrokenPipeError:  # `manage.py audit | head` has seen enough
        _discard_output()
        sys.exit(ENDED_BY_PIPE)
    except OSError as error:  # such as a full disk
        if "--traceback" in sys.argv:
            raise
        sys.stderr.write(f"Stopped: {error.strerror or error}{f': {error.filename}' if error.filename else ''}.\n")
        _discard_output()
        sys.exit(1)
    except ImproperlyConfigured as error:
        sys.exit(f"Configuration: {error}")
    except (IntegrityError, OperationalError, ProgrammingError) as error:
        if "--traceback" in sys.argv:
            raise
        reason = str(error).partition("\n")[0]
        sys.exit(f"Database: {reason}. {_advice_for(error)}")


def _advice_for(error: Exception) -> str:
    from controlplane.engines.troubles import Trouble, trouble_of  # noqa: PLC0415  # the settings are loaded by now

    if trouble_of(error) is Trouble.LOCKED:
        return "Somebody else holds what this needs: try again."
    if isinstance(error, IntegrityError):
        return "What this would store does not fit with what is there, such as a name that is taken."
    return "Is it there, and are its migrations applied (python manage.py migrate)?"


def _run(command: str) -> None:
    if command in {"version", "--version"}:  # Django would tell its own
        sys.stdout.write(f"{releases.CURRENT}\n")
        return
    if command == "quickstart":
        secrets_file.ensure()
    if command in {"generate_key", "help", "--help"}:
        secrets_file.use_throwaway_secrets()
    execute_from_command_line(sys.argv)


def _discard_output() -> None:
    """Lets Python end quietly: what it has still to write goes nowhere, and so do complaints of what was broken off."""
    sys.unraisablehook = lambda _broken_off: None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


if __name__ == "__main__":
    main()
