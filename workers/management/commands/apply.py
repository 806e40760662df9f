"""Applies a fleet's document: creates and updates organizations and all that lies in them."""

import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from environments.audit import Actor
from environments.database.for_many import MANY_ROWS, analyze
from environments.management.command import ControlPlaneCommand
from environments.models import Environment
from environments.regular_files import UnreadableFileError, read_regular
from workers.fleet.apply import apply
from workers.fleet.changes import Action, Change
from workers.fleet.document import MAX_BYTES, read_document
from workers.fleet.errors import FleetError
from workers.models import Worker, WorkerQueue

#: Told only where pruning comes across some.
RARE = (Action.DISABLED, Action.KEPT)

#: What the caller has opened and passes on, so that somebody writes to it, as in `apply <(decrypt fleet.yaml)`.
PASSED = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


class Command(ControlPlaneCommand):
    """Changes what differs, in one transaction, so that running it again changes nothing.

    The document may name any variable and file that this process can read: trust whoever writes it.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file", metavar="FILE", help="a YAML file such as examples/fleet.yaml; - reads standard input"
        )
        parser.add_argument("--dry-run", action="store_true", help="tell what would change, and change nothing")
        parser.add_argument(
            "--prune",
            action="store_true",
            help="delete what the file does not name in its organizations; what has a history is disabled or kept",
        )

    def handle(self, *, file: str, dry_run: bool, prune: bool, **options: Any) -> None:
        source, directory = (file, Path(file).parent) if file != "-" else ("<stdin>", Path.cwd())
        try:
            document = read_document(_read(file), source=source, directory=directory, environ=os.environ)
            applied = apply(document, actor=Actor("command:apply"), now=timezone.now(), is_dry_run=dry_run, prune=prune)
        except FleetError as error:
            msg = f"Nothing was changed.\n{error}"
            raise CommandError(msg) from None
        if len(applied.changes) >= MANY_ROWS and not dry_run:
            analyze(Environment, WorkerQueue, Worker)
        counts = _counts(applied.changes, named=sum(1 for _ in document))
        if options["format"] == "json":
            told = {name: [each.as_json() for each in found] for name, found in vars(applied).items()}
            self.stdout.write(json.dumps({"is_dry_run": dry_run, **counts, **told}))
        else:
            self._print(applied.changes, counts, is_dry_run=dry_run)
            for found in (*applied.cannot_start, *applied.impact, *applied.cut_off, *applied.ending):
                self.stdout.write(str(found))

    def _print(self, changes: list[Change], counts: dict[str, int], *, is_dry_run: bool) -> None:
        for change in changes:
            self.stdout.write(f"would be {change}" if is_dry_run else str(change))
        told = [f"{count} {action}" for action, count in counts.items() if count or action not in RARE]
        summary = ", ".join(told)
        self.stdout.write(f"{summary} (dry run: would be, nothing was changed)" if is_dry_run else summary)


def _counts(changes: list[Change], *, named: int) -> dict[str, int]:
    counts = {str(action): sum(change.action is action for change in changes) for action in Action}
    return counts | {"unchanged": named - counts[Action.CREATED] - counts[Action.UPDATED]}


def _read(file: str) -> str:
    """The file's text; what is not UTF-8 becomes surrogates, which the document refuses."""
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        elif file.startswith(PASSED):
            with Path(file).open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
        else:
            content = read_regular(file, most=MAX_BYTES)
    except (OSError, UnreadableFileError) as error:
        msg = f"{file} cannot be read: {getattr(error, 'strerror', error)}."
        raise CommandError(msg) from None
    return content.decode("utf-8-sig", errors="surrogateescape")
