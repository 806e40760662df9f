#!/usr/bin/env python
"""The command line of the control plane: python manage.py help."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError, ProgrammingError

from controlplane import releases
from controlplane.startup import private_files, secrets_file

#: What a shell reports of a program that SIGPIPE ended.
ENDED_BY_PIPE = 141


def main() -> None:
    """Runs a command; quickstart makes its secrets first, and some commands need none."""
    private_files.use_private_umask()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    os.environ.setdefault("DATABASE_STATEMENT_TIMEOUT", "0")  # a command may take longer than a request
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    if command in {"version", "--version"}:  # Django would tell its own
        sys.stdout.write(f"{releases.CURRENT}\n")
        return
    try:
        if command == "quickstart":
            secrets_file.ensure()
        if command in {"generate_key", "help", "--help"}:
            secrets_file.use_throwaway_secrets()
        execute_from_command_line(sys.argv)
        sys.stdout.flush()  # here, where it is known what to do when nobody reads
    except BrokenPipeError:  # `manage.py audit | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still has to write
        sys.exit(ENDED_BY_PIPE)
    except ImproperlyConfigured as error:
        sys.exit(f"Configuration: {error}")
    except (OperationalError, ProgrammingError) as error:
        if "--traceback" in sys.argv:
            raise
        reason = str(error).partition("\n")[0]
        sys.exit(f"Database: {reason}. Is it there, and are its migrations applied (python manage.py migrate)?")


if __name__ == "__main__":
    main()
