"""Prints workers with their liveness, all or those that are wanted."""

import json
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Q
from django.utils import timezone

from environments.management.command import PRINTED_PARTLY, ControlPlaneCommand
from environments.management.printing import printable
from environments.roles import EVERYWHERE
from workers.api_keys.tokens import UUID_TEXT
from workers.lifecycle.refusals import REFUSED_FOR
from workers.management.arguments import organization_id
from workers.models import Liveness, Work, Worker, WorkerQueue
from workers.models.paths import queues_at
from workers.models.work import work_of
from workers.models.workers import WorkerQuerySet
from workers.reports.attention import outdated, refused_starts
from workers.reports.listing import ListedWorker, listed

CHOICES = {liveness.lower().replace(" ", "-"): liveness for liveness in Liveness}
WORKS = {work.lower().replace(" ", "-"): work for work in Work if work}
#: Distinct from the 1 of --fail-if-any, so that a script can tell "there are some" from "I could not look".
FAILED = 2


class Command(ControlPlaneCommand):
    """By the same rules as the console. With --format json each line is a document of its own.

    Exit code: 0; with --fail-if-any 1 when any worker is listed; 2 when it could not look.
    """

    format_help = "json is one document a line"
    when_refused = PRINTED_PARTLY
    refused_code = FAILED

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--liveness", choices=CHOICES, action="append", help="may be repeated: any of these")
        parser.add_argument("--organization", type=organization_id, metavar="ID")
        parser.add_argument("--queue", metavar="QUEUE", help="its id, or organization/environment/queue")
        parser.add_argument("--work", choices=WORKS, action="append", help="what Temporal sees; may be repeated")
        parser.add_argument("--outdated", action="store_true", help="only live ones that a restart would change")
        parser.add_argument("--refused", action="store_true", help="only those whose latest start was refused")
        parser.add_argument("--fail-if-any", action="store_true", help="exit code 1 when any is listed, for cron")

    def handle(self, **options: Any) -> None:
        count, now = 0, timezone.now()
        for worker in listed(_wanted(options, now), now):
            count += 1
            self.stdout.write(json.dumps(worker.as_json()) if options["format"] == "json" else _line(worker))
        if count and options["fail_if_any"]:
            msg = f"Workers listed: {count}."
            raise CommandError(msg)


def _wanted(options: dict[str, Any], now: datetime) -> WorkerQuerySet:
    workers = Worker.objects.with_liveness(now)
    if options["organization"]:
        workers = workers.filter(organization=options["organization"])
    if options["queue"]:
        workers = workers.filter(queue=_queue(options["queue"]))
    if options["liveness"]:
        workers = workers.filter(Q(liveness__in=[CHOICES[name] for name in options["liveness"]]))
    if options["work"]:
        works = Q(work__in=[WORKS[name] for name in options["work"]])
        workers = workers.annotate(work=work_of("current__", now)).filter(works)
    if options["refused"]:
        refused = refused_starts(now - REFUSED_FOR).filter(worker_id__isnull=False)
        workers = workers.filter(pk__in=refused.values("worker_id"))
    return outdated(workers, EVERYWHERE, now) if options["outdated"] else workers  # type: ignore[return-value]  # the same class


def _queue(text: str) -> WorkerQueue:
    queues = WorkerQueue.objects.filter(pk=text) if UUID_TEXT.fullmatch(text) else queues_at(text)
    queue = queues.first()
    if queue is None:
        msg = "There is no such queue: --queue takes its id, or organization/environment/queue."
        raise CommandError(msg, returncode=FAILED)
    return queue


def _line(worker: ListedWorker) -> str:
    at = worker.last_heartbeat_at
    states = [name for name in ("outdated", "disabled", "draining") if getattr(worker, f"is_{name}")]
    if worker.state_ends_at:
        states[-1] += f" until {worker.state_ends_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if worker.state_reason:
        states[-1] += f": {worker.state_reason}"
    states += ["ephemeral"] * worker.is_ephemeral
    if worker.work and worker.work != Work.WORKING:
        states.insert(0, worker.work.lower())
    if worker.refusal:
        since = worker.refused_since and worker.refused_since.astimezone(UTC)
        states.append(f"refused at least {worker.refusals} times since {since:%Y-%m-%dT%H:%M:%SZ}: {worker.refusal}")
    elif worker.missing:
        states.append(f"cannot start: {worker.missing}")
    parts = (
        f"{worker.liveness:<13}",
        f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if at else f"{'-':<20}",
        f"{worker.path} ({worker.id})",
        worker.hostname or "-",
        *states,
    )
    return printable("  ".join(parts))
