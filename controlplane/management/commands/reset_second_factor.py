"""Takes away everything that somebody lost: authenticator app, passkeys and recovery codes; the password stays."""

import json
from argparse import ArgumentParser
from typing import Any

from allauth.mfa.models import Authenticator
from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.db import transaction
from django.utils import timezone

from controlplane.accounts.factors import describe
from environments import audit
from environments.audit import Actor
from environments.management.command import ControlPlaneCommand


class Command(ControlPlaneCommand):
    """Make sure first that it is the person: from now on the password alone signs them in."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")

    @transaction.atomic
    def handle(self, *, username: str, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            msg = f"There is no user {username!r}."
            raise CommandError(msg)
        rows = Authenticator.objects.filter(user_id=user.pk).order_by("pk")
        removed = [describe(row) for row in rows]
        rows.delete()
        actor, now = Actor("command:reset_second_factor"), timezone.now()
        for name in removed:
            changes = {"second_factor": [name, None]}
            audit.record("user.second_factor_removed", user, actor=actor, now=now, changes=changes)
        if options["format"] == "json":
            self.stdout.write(json.dumps({"removed": removed}))
            return
        self.stdout.write(f"removed: {', '.join(removed) or 'nothing, there was none'}")
