"""Lets a restored or copied database be served: revokes all API keys in it and ends all sessions first."""

import json
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management.base import CommandError
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from controlplane.accounts import invitations
from controlplane.serving.restoration import forget, mark
from environments import audit
from environments.audit import Actor
from environments.management.command import ControlPlaneCommand
from workers.api_keys.issuing import REASON_LENGTH, revoke_api_keys
from workers.models import ApiKey, NotificationTarget

ACTOR = Actor("command:accept_restore")
REASON = "the database was restored from a backup"


class Command(ControlPlaneCommand):
    """To be run after every restore, also one that nothing noticed; safe to run again when it was broken off.

    A key that was revoked after the backup was made cannot be told from the others, so that all of them go.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        kept = parser.add_mutually_exclusive_group()
        kept.add_argument("--revoke-keys", action="store_true", help="revoke all API keys, as is done unless told")
        kept.add_argument("--keep-keys", action="store_true", help="none was revoked since, say why you know: --reason")
        parser.add_argument(
            "--sign-in", action="append", metavar="NAME", help="who alone may sign in; everybody else is made inactive"
        )
        parser.add_argument("--reason", default="", help="such as: moved to another server, pg_upgrade")
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def handle(self, *, keep_keys: bool, reason: str, dry_run: bool, **options: Any) -> None:
        if keep_keys and not reason.strip():
            msg = "Say why no key has to be revoked: --reason."
            raise CommandError(msg)
        reason = reason.strip()[:REASON_LENGTH] or REASON
        people = _others_than(options["sign_in"])
        keys = ApiKey.objects.filter(revoked_at=None)
        targets = NotificationTarget.objects.filter(is_enabled=True)  # a copy must not tell those of the original
        counts = dict.fromkeys(("keys_revoked", "keys_kept", "people_made_inactive", "sessions_ended"), 0)
        if keep_keys:
            counts["keys_kept"], targets = keys.count(), targets.none()
        elif dry_run:
            counts["keys_revoked"] = keys.count()
        else:
            batches = revoke_api_keys(keys, reason=reason, actor=ACTOR, now=timezone.now())
            counts["keys_revoked"] = sum(map(len, batches))
        counts |= {"people_made_inactive": people.count(), "sessions_ended": Session.objects.count()}
        counts["targets_disabled"] = targets.count()
        if not dry_run:
            _accept(people, targets, counts, reason)
        if options["format"] == "json":
            self.stdout.write(json.dumps({"is_dry_run": dry_run, **counts}))
            return
        for name, count in counts.items():
            self.stdout.write(f"{name.replace('_', ' ')}: {count}")
        self.stdout.write("nothing was changed" if dry_run else "accepted: this database may be served")


def _others_than(names: list[str] | None) -> QuerySet[User]:
    """Who may not sign in any more, when somebody was named who may."""
    active = User.objects.filter(is_active=True)
    if names is None:
        return active.none()
    if missing := set(names) - set(active.filter(username__in=names).values_list("username", flat=True)):
        msg = f"No active user has this name: {', '.join(sorted(missing))}."
        raise CommandError(msg)
    return active.exclude(username__in=names)


@transaction.atomic
def _accept(people: QuerySet[User], targets: QuerySet[NotificationTarget], counts: dict[str, int], reason: str) -> None:
    """The last step, which opens the gate."""
    now = timezone.now()
    rows = list(people)
    User.objects.filter(pk__in=[row.pk for row in rows]).update(is_active=False)
    inactive: dict[str, list[Any]] = {"is_active": [True, False]}
    audit.record_many("user.updated", [(row, inactive) for row in rows], actor=ACTOR, now=now)
    told = list(targets)
    NotificationTarget.objects.filter(pk__in=[row.pk for row in told]).update(is_enabled=False)
    disabled: dict[str, list[Any]] = {"is_enabled": [True, False]}
    audit.record_many("notification_target.updated", [(row, disabled) for row in told], actor=ACTOR, now=now)
    Session.objects.all().delete()
    invitations.withdraw_all()
    forget()
    changes: dict[str, list[Any]] = {name: [None, value] for name, value in {**counts, "reason": reason}.items()}
    audit.record("database.restore_accepted", mark(now), actor=ACTOR, now=now, changes=changes)
