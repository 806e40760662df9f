"""Prints who did what: people and commands from the audit trail, and workers from their starts and goodbyes."""

import json
from argparse import ArgumentParser
from datetime import UTC
from functools import partial
from typing import Any

from django.core.management.base import CommandError

from environments.management.command import PRINTED_PARTLY, ControlPlaneCommand
from environments.management.printing import printable
from environments.models import Organization
from workers.management.arguments import moment, organization_id, whole_number
from workers.reports.history import Record, Wanted, latest_records, records

MOST_RECORDS = 100_000


class Command(ControlPlaneCommand):
    """The oldest comes first. With --format json each line is a document of its own, since there may be no end of them.

    Never a secret: of secrets the trail has fingerprints only.
    """

    format_help = "json is one document a line"
    when_refused = PRINTED_PARTLY

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--since", type=moment, metavar="TIME", help="such as 24h, 7d, 2026-03-31 (UTC)")
        parser.add_argument("--until", type=moment, metavar="TIME", help="not included")
        parser.add_argument("--actor", help="user:<name>, command:<name> or key:<id>")
        parser.add_argument("--action", help="such as worker.updated, api_key.revoked, worker.started, worker.stopped")
        parser.add_argument("--organization", type=organization_id, metavar="ID")
        parser.add_argument("--object", metavar="ID", help="what it was done to; of starts and goodbyes the worker")
        parser.add_argument("--people", action="store_true", help="without starts and goodbyes of workers")
        parser.add_argument("--limit", type=whole_number(1, MOST_RECORDS), metavar="N", help="only the newest N")

    def handle(self, **options: Any) -> None:
        wanted = _wanted(options)
        with_workers, limit = not options["people"], options["limit"]
        read = partial(latest_records, limit=limit) if limit else records
        for record in read(wanted, with_workers=with_workers):
            self.stdout.write(json.dumps(record.as_json()) if options["format"] == "json" else _line(record))


def _wanted(options: dict[str, Any]) -> Wanted:
    actor = options["actor"]
    if actor is not None and not actor.startswith(("user:", "command:", "key:")):
        msg = "An actor is user:<name>, command:<name> or key:<id>."
        raise CommandError(msg)
    organization = options["organization"]
    if organization is not None and not Organization.objects.filter(pk=organization).exists():
        msg = f"There is no organization {organization!r}."
        raise CommandError(msg)
    texts = {"actor": actor, "action": options["action"], "object_id": options["object"]}
    if any("\0" in (text or "") for text in texts.values()):
        msg = "No argument can have a NUL character."
        raise CommandError(msg)
    return Wanted(since=options["since"], until=options["until"], organization_id=organization, **texts)


def _line(record: Record) -> str:
    """One line for a person; what others wrote cannot steer the terminal."""
    changes = record.as_json()["fields"]
    told = {name: f"{_plain(values['before'])} -> {_plain(values['after'])}" for name, values in changes.items()}
    told |= {name: _plain(value) for name, value in record.details.items() if value not in (None, "")}
    head = (
        f"{record.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        record.actor,
        record.client_address or "-",
        record.action,
        record.object_name,
        f"({record.object_id})",
    )
    return printable("  ".join([*head, *(f"{name}: {text}" for name, text in told.items())]))


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
