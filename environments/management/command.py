"""What our commands share: their help, `--format`, how far they are, and a sentence when the database refuses."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from environments.management.progress import ProgressDisplay

#: What is so of a command that prints while it reads.
PRINTED_PARTLY = "The database failed partway. What is printed is correct but incomplete"
#: The same of one that has not printed anything yet.
NOTHING_PRINTED = "The database failed before there was anything to print"


class _Watched:
    """A stream of which one knows whether anything was printed to it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.has_printed = False

    def write(self, text: str) -> Any:
        self.has_printed = self.has_printed or bool(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


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
        watched = options["stdout"] = _Watched(options.get("stdout") or self.stdout._out)
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            if not self.when_refused:
                raise
            raise self._refused(error, has_printed=watched.has_printed) from None

    def _refused(self, error: DatabaseError, *, has_printed: bool) -> CommandError:
        reason = str(error).partition("\n")[0]
        is_silent = self.when_refused == PRINTED_PARTLY and not has_printed
        told = NOTHING_PRINTED if is_silent else self.when_refused
        return CommandError(f"{told} ({reason}).", returncode=self.refused_code)

    def progress(self, *, seconds_between_lines: float = 0) -> ProgressDisplay:
        """Tells how far it is, on stderr."""
        return ProgressDisplay(self.stderr, seconds_between_lines=seconds_between_lines)
