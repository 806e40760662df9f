"""Revokes API keys for good: by id, or the keys themselves on stdin, one a line, as a leak report has them."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from environments.audit import Actor
from workers.api_keys import ApiKeyError, find_by_token, revoke_api_key
from workers.management.arguments import row_id


class Command(BaseCommand):
    """Revoking a revoked key again changes nothing; an unknown key makes the command fail after the others are done."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("key_id", type=row_id, nargs="*")
        parser.add_argument("--stdin", action="store_true", help="read keys, one a line, from stdin")
        parser.add_argument("--reason", required=True)
        parser.add_argument("--format", choices=["text", "json"], default="text")

    def handle(self, *, key_id: list[UUID], **options: Any) -> None:
        if bool(key_id) == options["stdin"]:
            msg = "Give key ids, or --stdin."
            raise CommandError(msg)
        if not options["reason"].strip():
            msg = "Say why: --reason."
            raise CommandError(msg)
        result: dict[str, list[str]] = {"revoked": [], "revoked_before": [], "unknown": []}
        try:
            for label, found in self._reported() if options["stdin"] else ((str(one), one) for one in key_id):
                name, shown = self._revoke(label, found, options["reason"])
                result[name].append(shown)
        except DatabaseError as error:
            self._print(result, options["format"])
            reason = str(error).partition("\n")[0]
            msg = f"Stopped, only what is printed was done: the database refused ({reason})."
            raise CommandError(msg) from None
        self._print(result, options["format"])
        if unknown := result["unknown"]:
            msg = f"Not known here: {', '.join(unknown)}."
            raise CommandError(msg)

    def _revoke(self, label: str, found: UUID | None, reason: str) -> tuple[str, str]:
        """What came of one key, and how it is called."""
        if found is None:
            return "unknown", label
        try:
            is_revoked = revoke_api_key(found, reason=reason, actor=Actor("command:revoke_api_key"), now=timezone.now())
        except ApiKeyError:
            return "unknown", label
        return "revoked" if is_revoked else "revoked_before", str(found)

    def _reported(self) -> Iterator[tuple[str, UUID | None]]:
        """A label that does not repeat the key, and the key's id."""
        for number, line in enumerate(sys.stdin.buffer, 1):
            if text := line.decode(errors="replace").strip():
                row = find_by_token(text)
                yield f"line {number}", row.pk if row else None

    def _print(self, result: dict[str, list[str]], output_format: str) -> None:
        if output_format == "json":
            self.stdout.write(json.dumps(result))
            return
        for name in ("revoked", "revoked_before"):
            for label in result[name]:
                self.stdout.write(f"{name.replace('_', ' ')}: {label}")
