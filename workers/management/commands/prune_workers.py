"""Removes workers that queue starts made and that have been gone for a day."""

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from environments.audit import Actor
from environments.management.progress import ProgressDisplay
from workers.lifecycle.gone_workers import gone_workers, prune_workers
from workers.management.arguments import whole_number

MOST_HOURS = 24 * 365


class Command(BaseCommand):
    """What a person created is never removed, and starts stay on record; safe to run again and to break off."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--hours", type=whole_number(1, MOST_HOURS), default=24, help="of silence before one goes (default: 24)"
        )
        parser.add_argument("--dry-run", action="store_true", help="only count")
        parser.add_argument("--format", choices=["text", "json"], default="text")

    def handle(self, *, hours: int, dry_run: bool, **options: Any) -> None:
        now, silent_for = timezone.now(), timedelta(hours=hours)
        removed = 0
        try:
            total = gone_workers(silent_for=silent_for, now=now).count()
            progress = ProgressDisplay(self.stderr)
            if not dry_run:
                for count in prune_workers(silent_for=silent_for, actor=Actor("command:prune_workers"), now=now):
                    removed += count
                    progress.show("workers removed", removed, total)
        except DatabaseError as error:
            reason = str(error).partition("\n")[0]
            msg = f"Stopped after {removed} workers, which stay removed: the database refused ({reason})."
            raise CommandError(msg) from None
        if options["format"] == "json":
            self.stdout.write(json.dumps({"is_dry_run": dry_run, "gone": total, "removed": removed}))
        elif dry_run:
            self.stdout.write(f"{total} workers would be removed")
        else:
            self.stdout.write(f"{removed} workers removed")
