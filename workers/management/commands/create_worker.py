"""Creates one worker in an existing queue."""

import json
import re
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db import IntegrityError
from django.utils import timezone

from environments.audit import Actor
from environments.management.command import ControlPlaneCommand
from environments.models.fields import SLUG
from workers.fleet.changes import create_worker
from workers.models import Worker, WorkerQueue


class Command(ControlPlaneCommand):
    """Prints the new worker's id, which the worker is started with."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--organization", required=True, metavar="ID")
        parser.add_argument("--environment", required=True, metavar="NAME")
        parser.add_argument("--queue", required=True, metavar="NAME")
        parser.add_argument("--name", required=True)
        parser.add_argument("--id", type=UUID, metavar="UUID", help="a new one is made if this is left out")

    def handle(self, **options: Any) -> None:
        queue = _queue(options["organization"], options["environment"], options["queue"])
        try:
            worker = create_worker(
                queue,
                name=options["name"],
                worker_id=options["id"],
                actor=Actor("command:create_worker"),
                now=timezone.now(),
            )
        except ValidationError as error:
            raise CommandError("\n".join(_sentences(error))) from None
        except IntegrityError:
            msg = "Somebody else took this name or id just now."
            raise CommandError(msg) from None
        self.stdout.write(json.dumps(_shown(worker)) if options["format"] == "json" else str(worker.pk))


def _queue(organization_id: str, environment: str, name: str) -> WorkerQueue:
    queues = WorkerQueue.objects.select_related("environment")
    # The database is asked for slugs only: it refuses some other texts with an error of its own.
    is_possible = all(re.search(SLUG, text) for text in (organization_id, environment, name))
    wanted = queues.filter(organization=organization_id, environment__name=environment, name=name)
    found = wanted.first() if is_possible else None
    if found is None:
        msg = f"Organization {organization_id!r} has no queue {name!r} in an environment {environment!r}."
        raise CommandError(msg)
    return found


def _sentences(error: ValidationError) -> list[str]:
    return [
        message if field == "__all__" else f"{field}: {message}"
        for field, messages in error.message_dict.items()
        for message in messages
    ]


def _shown(worker: Worker) -> dict[str, str]:
    return {
        "id": str(worker.pk),
        "name": worker.name,
        "organization_id": worker.organization_id,
        "environment": worker.queue.environment.name,
        "queue": worker.queue.name,
        "queue_id": str(worker.queue_id),
        "task_queue_name": worker.queue.task_queue_name,
    }
