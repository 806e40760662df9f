"""Removes old starts from the ledger, with the processes that they began and that have ended."""

import json
from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.utils import timezone

from environments.audit import Actor
from environments.management.command import ControlPlaneCommand
from workers.lifecycle.old_starts import count_kept, old_starts, prune_starts
from workers.management.arguments import days

SECONDS_BETWEEN_LINES = 10
STOPPED = "Stopped after {} starts, which stay removed: the database refused"


class Counts(NamedTuple):
    """The starts that are old enough, and of these what became or would become of them."""

    old: int
    kept: int
    removed: int


class Command(ControlPlaneCommand):
    """The last start of each worker stays, however old; no start has to wait; safe to run again and to break off.

    What is removed is gone: `manage.py audit --until` prints it before.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--older-than", type=days, required=True, metavar="DAYS", help="such as 180d")
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def handle(self, *, older_than: timedelta, dry_run: bool, **options: Any) -> None:
        now = timezone.now()
        before = now - older_than
        counts = _count(before, now) if dry_run else self._prune(before, now)
        if options["format"] == "json":
            self.stdout.write(json.dumps({"is_dry_run": dry_run, "before": before.isoformat(), **counts._asdict()}))
        else:
            would_be = "would be " if dry_run else ""
            self.stdout.write(f"{counts.removed} starts {would_be}removed, {counts.kept} older ones kept")

    def _prune(self, before: datetime, now: datetime) -> Counts:
        total = old_starts(before).count()
        seen = removed = 0
        self.when_refused = STOPPED.format(removed)
        progress = self.progress(seconds_between_lines=SECONDS_BETWEEN_LINES)
        for batch in prune_starts(before=before, actor=Actor("command:prune_starts"), now=now):
            seen += batch.seen
            removed += batch.removed
            self.when_refused = STOPPED.format(removed)
            progress.show("starts looked at", seen, max(total, seen))
        return Counts(old=seen, kept=seen - removed, removed=removed)


def _count(before: datetime, now: datetime) -> Counts:
    old, kept = old_starts(before).count(), count_kept(before, now)
    return Counts(old=old, kept=kept, removed=max(0, old - kept))
