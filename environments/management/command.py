"""What our commands share: their help, `--format`, how far they are, and a sentence when the database refuses."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from environments.management.progress import ProgressDisplay

#: What is so of a command that prints while it reads.
PRINTED_PARTLY = "The database failed partway. What is printed is correct but incomplete"


class ControlPlaneCommand(BaseCommand):
    """A command that prints text or JSON; the docstrings of its module and its class are its help.

    What its output meets, such as a reader who leaves early, `manage.py` knows of every command.
    """

    #: What the help says of the formats beside their names.
    format_help: str | None = None
    #: What is so when the database refuses partway; "" leaves that to `manage.py`, which asks whether it is there.
    when_refused = ""
    #: The exit code then.
    refused_code = 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.help = " ".join(filter(None, (sys.modules[cls.__module__].__doc__, cls.__doc__)))

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.add_argument("--format", choices=["text", "json"], default="text", help=self.format_help)
        return parser

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Runs it; CommandError when the database refuses."""
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            if not self.when_refused:
                raise
            reason = str(error).partition("\n")[0]
            msg = f"{self.when_refused} ({reason})."
            raise CommandError(msg, returncode=self.refused_code) from None

    def progress(self, *, seconds_between_lines: float = 0) -> ProgressDisplay:
        """Tells how far it is, on stderr."""
        return ProgressDisplay(self.stderr, seconds_between_lines=seconds_between_lines)
