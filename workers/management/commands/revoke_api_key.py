"""Revokes API keys for good: by id, by their age, or the keys themselves on stdin, as a leak report has them."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError
from django.utils import timezone

from environments.audit import Actor
from environments.management.command import ControlPlaneCommand
from environments.models import Organization
from workers.api_keys.issuing import ApiKeyError, find_by_token, revoke_api_key, revoke_api_keys
from workers.management.arguments import moment, organization_id, row_id
from workers.models import ApiKey

ACTOR = Actor("command:revoke_api_key")


class Command(ControlPlaneCommand):
    """Revoking a revoked key again changes nothing; an unknown key makes the command fail after the others are done."""

    when_refused = "Stopped, only what is printed was done: the database refused"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("key_id", type=row_id, nargs="*")
        parser.add_argument("--stdin", action="store_true", help="read keys, one a line, from stdin")
        parser.add_argument("--all", action="store_true", help="every key that is not revoked, expired ones included")
        parser.add_argument(
            "--issued-before", type=moment, metavar="TIME", help="such as 24h, 7d, 2026-03-31 (UTC): those keys"
        )
        parser.add_argument("--organization", type=organization_id, metavar="ID", help="of this organization alone")
        parser.add_argument("--reason", required=True)
        parser.add_argument("--dry-run", action="store_true", help="only tell which")

    def handle(self, *, key_id: list[UUID], **options: Any) -> None:
        is_wave = options["all"] or options["issued_before"] is not None
        if bool(key_id) + options["stdin"] + options["all"] + (options["issued_before"] is not None) != 1:
            msg = "Give one of: key ids, --stdin, --issued-before, --all."
            raise CommandError(msg)
        if not options["reason"].strip():
            msg = "Say why: --reason."
            raise CommandError(msg)
        result: dict[str, list[str]] = {}
        try:
            if is_wave:
                self._revoke_chosen(result, **options)
            else:
                self._revoke_named(result, key_id, **options)
        finally:
            if result:
                self._print(result, options["format"])
        if unknown := result.get("unknown"):
            msg = f"Not known here: {', '.join(unknown)}."
            raise CommandError(msg)

    def _revoke_chosen(self, result: dict[str, list[str]], **options: Any) -> None:
        keys = ApiKey.objects.filter(revoked_at=None)
        if organization := options["organization"]:
            if not Organization.objects.filter(pk=organization).exists():
                msg = f"There is no organization {organization!r}."
                raise CommandError(msg)
            keys = keys.filter(organization=organization)
        if before := options["issued_before"]:
            keys = keys.filter(created_at__lt=before)
        if options["dry_run"]:
            result["would_be_revoked"] = [str(pk) for pk in keys.order_by("pk").values_list("pk", flat=True)]
            return
        result |= {"revoked": [], "revoked_before": [], "unknown": []}
        for batch in revoke_api_keys(keys, reason=options["reason"], actor=ACTOR, now=timezone.now()):
            result["revoked"] += map(str, batch)

    def _revoke_named(self, result: dict[str, list[str]], ids: list[UUID], **options: Any) -> None:
        if options["organization"] or options["dry_run"]:
            msg = "--organization and --dry-run go with --issued-before or --all."
            raise CommandError(msg)
        result |= {"revoked": [], "revoked_before": [], "unknown": []}
        for label, found in self._reported() if options["stdin"] else ((str(one), one) for one in ids):
            name, shown = _revoke(label, found, options["reason"])
            result[name].append(shown)

    def _reported(self) -> Iterator[tuple[str, UUID | None]]:
        """A label that does not repeat the key, and the key's id."""
        for number, line in enumerate(sys.stdin.buffer, 1):
            if text := line.decode(errors="replace").strip():
                row = find_by_token(text)
                yield f"line {number}", row.pk if row else None

    def _print(self, result: dict[str, list[str]], output_format: str) -> None:
        is_dry_run = "would_be_revoked" in result
        if output_format == "json":
            self.stdout.write(json.dumps({**({"is_dry_run": True} if is_dry_run else {}), **result}))
            return
        for name in ("revoked", "revoked_before", "would_be_revoked"):
            for label in result.get(name, ()):
                self.stdout.write(f"{name.replace('_', ' ')}: {label}")


def _revoke(label: str, found: UUID | None, reason: str) -> tuple[str, str]:
    """What came of one key, and how it is called."""
    if found is None:
        return "unknown", label
    try:
        is_revoked = revoke_api_key(found, reason=reason, actor=ACTOR, now=timezone.now())
    except ApiKeyError:
        return "unknown", label
    return "revoked" if is_revoked else "revoked_before", str(found)
