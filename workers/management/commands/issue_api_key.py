"""Issues an API key for a worker, worker queue, environment or organization, and prints it this once."""

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from environments.audit import Actor
from environments.management.command import ControlPlaneCommand
from environments.models import Environment, Organization
from workers.api_keys.issuing import DEFAULT_LIFETIME, ApiKeyError, KeyTarget, issue_api_key, issued_key
from workers.management.arguments import lifetime_in_days, organization_id, row_id
from workers.models import KeyRole, Worker, WorkerQueue


class Command(ControlPlaneCommand):
    """The key goes to stdout, everything else to stderr, so that it can be piped into a secret store."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        scope = parser.add_mutually_exclusive_group(required=True)
        scope.add_argument("--worker", type=row_id, metavar="ID")
        scope.add_argument("--queue", type=row_id, metavar="ID")
        scope.add_argument("--environment", type=row_id, metavar="ID")
        scope.add_argument(
            "--organization",
            type=organization_id,
            metavar="ID",
            help="the widest scope: every worker of the organization",
        )
        parser.add_argument("--name", required=True, help="what the key is for")
        parser.add_argument(
            "--role",
            choices=KeyRole.values,
            default=KeyRole.WORKER,
            help="worker (default), or manager: it also changes environments and queues in its scope",
        )
        lifetime = parser.add_mutually_exclusive_group()
        lifetime.add_argument(
            "--days", type=lifetime_in_days, default=DEFAULT_LIFETIME.days, help="lifetime, 1 to 730 (default 90)"
        )
        lifetime.add_argument("--never-expires", metavar="REASON", help="why this key must not expire")

    def handle(self, **options: Any) -> None:
        reason = options["never_expires"]
        try:
            issued = issue_api_key(
                _target(options),
                name=options["name"],
                actor=Actor("command:issue_api_key"),
                now=timezone.now(),
                lifetime=None if reason is not None else timedelta(days=options["days"]),
                no_expiry_reason=reason or "",
                role=KeyRole(options["role"]),
            )
        except ApiKeyError as error:
            raise CommandError(str(error)) from None
        shown = issued_key(issued)
        if options["format"] == "json":
            self.stdout.write(json.dumps(shown))
            return
        self.stderr.write(
            f"API key {shown['id']} for {shown['scope']} {shown['target']}, "
            f"role {shown['role']}, expires {shown['expires_at']}."
        )
        self.stdout.write(shown["api_key"])


def _target(options: dict[str, Any]) -> KeyTarget:
    models: dict[str, type[KeyTarget]] = {
        "worker": Worker,
        "queue": WorkerQueue,
        "environment": Environment,
        "organization": Organization,
    }
    name = next(name for name in models if options[name] is not None)
    target: KeyTarget | None = models[name]._default_manager.filter(pk=options[name]).first()
    if target is None:
        msg = f"There is no {name} {options[name]!s}."
        raise CommandError(msg)
    return target
