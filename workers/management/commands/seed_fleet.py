"""Fills the database with a fleet of any size, for demos and measurements."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import CommandError
from django.utils import timezone

from environments.audit import Actor
from environments.database.for_many import analyze
from environments.management.command import ControlPlaneCommand
from workers.fleet.seed import Size, seed_fleet
from workers.management.arguments import whole_number
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue, WorkerStart

#: Seconds between two lines of progress where nobody watches a terminal.
SECONDS_BETWEEN_LINES = 5
MOST = 100_000_000


class Command(ControlPlaneCommand):
    """Makes organizations seed-1, seed-2, ... with connections, queues, workers and a month of starts.

    Running it again adds more organizations.
    """

    when_refused = "Stopped, what is made stays: the database refused"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--organizations", required=True, type=whole_number(1, MOST), metavar="N")
        for name, least in (("queues", 1), ("workers", 0), ("starts", 0)):
            number = whole_number(least, MOST)
            parser.add_argument(f"--{name}", required=True, type=number, metavar="N", help="in all, spread evenly")
        parser.add_argument("--output", required=True, metavar="FILE", help="gets the workers' ids, one a line")

    def handle(self, **options: Any) -> None:
        size = Size(**{name: options[name] for name in ("organizations", "queues", "workers", "starts")})
        if size.starts and not size.workers:
            msg = "Starts need workers: --workers must be at least 1."
            raise CommandError(msg)
        try:
            with Path(options["output"]).open("w") as output:
                counts = self._seed(size, output)
        except BrokenPipeError:  # of the progress
            raise
        except OSError as error:
            msg = f"{options['output']} cannot be written: {error.strerror}."
            raise CommandError(msg) from None
        if options["format"] == "json":
            self.stdout.write(json.dumps(counts))
        else:
            self.stdout.write(", ".join(f"{count} {name}" for name, count in counts.items()))

    def _seed(self, size: Size, output: TextIO) -> dict[str, int]:
        workers = starts = instances = 0
        progress = self.progress(seconds_between_lines=SECONDS_BETWEEN_LINES)
        for batch in seed_fleet(size, actor=Actor("command:seed_fleet"), now=timezone.now()):
            output.writelines(f"{worker_id}\n" for worker_id in batch.worker_ids)
            workers += len(batch.worker_ids)
            starts += batch.starts
            instances += batch.instances
            progress.show("workers and starts", workers + starts, size.workers + size.starts)
        analyze(ApiKey, WorkerQueue, Worker, WorkerStart, WorkerInstance)
        return {
            "organizations": size.organizations,
            "queues": size.queues,
            "workers": workers,
            "starts": starts,
            "instances": instances,
        }
