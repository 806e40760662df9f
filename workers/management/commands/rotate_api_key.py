"""Issues a successor of an API key and prints it this once; the old key stays valid for a grace period."""

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError
from django.utils import timezone

from environments.audit import Actor
from environments.management.command import ControlPlaneCommand
from workers.api_keys.issuing import DEFAULT_GRACE_PERIOD, ApiKeyError, issued_key, rotate_api_key
from workers.management.arguments import row_id


class Command(ControlPlaneCommand):
    """The new key goes to stdout, everything else to stderr."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("key_id", type=row_id)
        hours = int(DEFAULT_GRACE_PERIOD.total_seconds() // 3600)
        parser.add_argument("--grace-hours", type=int, default=hours, help="0 to 720 (default 24)")

    def handle(self, *, key_id: UUID, **options: Any) -> None:
        hours = options["grace_hours"]
        if not 0 <= hours <= 720:  # noqa: PLR2004  # 30 days, as the help says
            msg = "--grace-hours is 0 to 720."
            raise CommandError(msg)
        actor = Actor("command:rotate_api_key")
        try:
            issued = rotate_api_key(key_id, actor=actor, now=timezone.now(), grace_period=timedelta(hours=hours))
        except ApiKeyError as error:
            raise CommandError(str(error)) from None
        shown = issued_key(issued)
        if options["format"] == "json":
            self.stdout.write(json.dumps({**shown, "replaces": str(key_id)}))
            return
        self.stderr.write(f"API key {shown['id']} replaces {key_id}, which stays valid for at most {hours} hours.")
        self.stdout.write(shown["api_key"])
