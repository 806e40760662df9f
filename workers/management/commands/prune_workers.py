"""Removes workers that queue starts made and that have been gone for a day."""

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.utils import timezone

from environments.audit import Actor
from environments.management.command import ControlPlaneCommand
from workers.lifecycle.gone_workers import gone_workers, prune_workers
from workers.management.arguments import whole_number

MOST_HOURS = 24 * 365
STOPPED = "Stopped after {} workers, which stay removed: the database refused"


class Command(ControlPlaneCommand):
    """What a person created is never removed, and starts stay on record; safe to run again and to break off."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--hours", type=whole_number(1, MOST_HOURS), default=24, help="of silence before one goes (default: 24)"
        )
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def handle(self, *, hours: int, dry_run: bool, **options: Any) -> None:
        now, silent_for = timezone.now(), timedelta(hours=hours)
        removed = 0
        self.when_refused = STOPPED.format(removed)
        total = gone_workers(silent_for=silent_for, now=now).count()
        progress = self.progress()
        if not dry_run:
            for count in prune_workers(silent_for=silent_for, actor=Actor("command:prune_workers"), now=now):
                removed += count
                self.when_refused = STOPPED.format(removed)
                progress.show("workers removed", removed, total)
        if options["format"] == "json":
            self.stdout.write(json.dumps({"is_dry_run": dry_run, "gone": total, "removed": removed}))
        elif dry_run:
            self.stdout.write(f"{total} workers would be removed")
        else:
            self.stdout.write(f"{removed} workers removed")
