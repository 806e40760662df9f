"""Lets a restored or copied database be served: revokes all API keys in it and ends all sessions first."""

import json
from argparse import ArgumentParser
from typing import Any

from django.contrib.sessions.models import Session
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from controlplane.restoration import forget, mark
from environments import audit
from environments.audit import Actor
from workers.api_keys import revoke_api_keys
from workers.models import ApiKey

ACTOR = Actor("command:accept_restore")
REASON = "the database was restored from a backup"


class Command(BaseCommand):
    """To be run after every restore, also one that nothing noticed; safe to run again when it was broken off.

    A key that was revoked after the backup was made cannot be told from the others, so that all of them go.
    """

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        kept = parser.add_mutually_exclusive_group()
        kept.add_argument("--revoke-keys", action="store_true", help="revoke all API keys, as is done unless told")
        kept.add_argument("--keep-keys", action="store_true", help="none was revoked since, say why you know: --reason")
        parser.add_argument("--reason", default="", help="such as: moved to another server, pg_upgrade")
        parser.add_argument("--dry-run", action="store_true", help="only count")
        parser.add_argument("--format", choices=["text", "json"], default="text")

    def handle(self, *, keep_keys: bool, reason: str, dry_run: bool, **options: Any) -> None:
        if keep_keys and not reason.strip():
            msg = "Say why no key has to be revoked: --reason."
            raise CommandError(msg)
        usable = ApiKey.objects.filter(revoked_at=None)
        counts = {"keys_revoked": 0 if keep_keys else usable.count(), "keys_kept": usable.count() if keep_keys else 0}
        counts["sessions_ended"] = Session.objects.count()
        if not dry_run:
            if not keep_keys:
                batches = revoke_api_keys(usable, reason=reason.strip() or REASON, actor=ACTOR, now=timezone.now())
                counts["keys_revoked"] = sum(map(len, batches))
            counts["sessions_ended"] = _accept(counts, reason.strip() or REASON)
        if options["format"] == "json":
            self.stdout.write(json.dumps({"is_dry_run": dry_run, **counts}))
            return
        for name, count in counts.items():
            self.stdout.write(f"{name.replace('_', ' ')}: {count}")
        self.stdout.write("nothing was changed" if dry_run else "accepted: this database may be served")


@transaction.atomic
def _accept(counts: dict[str, int], reason: str) -> int:
    """The last step, which opens the gate; the number of sessions that it ended."""
    now = timezone.now()
    ended = Session.objects.count()
    Session.objects.all().delete()
    changes = {
        name: [None, value] for name, value in {**counts, "sessions_ended": ended, "reason": reason[:300]}.items()
    }
    forget()
    audit.record("database.restore_accepted", mark(now), actor=ACTOR, now=now, changes=changes)
    return ended
