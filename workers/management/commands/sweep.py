"""Asks Temporal once about every queue, as the service does each minute: who polls, and what waits."""

import json
import time
from typing import Any

from django.core.management.base import CommandError

from environments.management.command import PRINTED_PARTLY, ControlPlaneCommand
from environments.management.printing import printable
from workers.observation.lease import Lease
from workers.observation.sweeps import Asked, Backoff, Pass

#: Seconds for which a pass that is under way is waited for.
PATIENCE = 30.0


class Command(ControlPlaneCommand):
    """What it finds is stored as by the service, and shown by the console, the API and the other commands.

    Exit code: 0; 1 when a connection did not answer. With --format json each line is one connection.
    """

    format_help = "json is one document a line"
    when_refused = PRINTED_PARTLY

    def handle(self, **options: Any) -> None:
        lease = Lease()
        _wait_for(lease)
        progress, asked = self.progress(), []
        try:
            for each, total in Pass(lease, Backoff()).run():
                asked.append(each)
                progress.show("connections asked", len(asked), total)
                self.stdout.write(_json(each) if options["format"] == "json" else _line(each))
        finally:
            lease.give_back()
        if silent := sum(bool(each.problem) for each in asked):
            msg = f"Connections that did not answer: {silent} of {len(asked)}."
            raise CommandError(msg)


def _wait_for(lease: Lease) -> None:
    """CommandError where the service's own pass goes on for too long."""
    until = time.monotonic() + PATIENCE
    while not lease.take_once():
        if time.monotonic() > until:
            msg = "The service is asking at this moment: try again in a minute."
            raise CommandError(msg)
        time.sleep(1)


def _json(asked: Asked) -> str:
    connection = asked.connection
    return json.dumps(
        {
            "organization": connection.organization_id,
            "connection": connection.name,
            "queues": asked.queues,
            "answered": asked.answered,
            "problem": asked.problem or None,
        }
    )


def _line(asked: Asked) -> str:
    connection = asked.connection
    told = f"{connection.organization_id}/{connection.name}: {asked.answered} of {asked.queues} queues answered"
    return printable(f"{told}. {asked.problem}" if asked.problem else told)
