"""Makes a fleet of any size out of nothing, for demos and measurements."""

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import batched, islice
from typing import Any
from uuid import UUID

from django.db import transaction

from environments import audit
from environments.audit import Actor
from environments.encryption import Secret
from environments.models import (
    CredentialConnection,
    Environment,
    LiteLLMConnection,
    Organization,
    TelemetrySettings,
    TemporalConnection,
)
from environments.sealing.data_keys import seal_api_key
from workers.api_keys.issuing import issue_api_key
from workers.configuration.effective import revision_of, sections_of, show_configuration
from workers.models import ApiKey, Worker, WorkerInstance, WorkerQueue, WorkerStart

PREFIX = "seed-"
#: Rows written in one transaction: few enough that nobody waits long for the database.
BATCH = 2000
HISTORY = timedelta(days=30)

#: Silence of an instance in seconds, and how many of a hundred instances keep it, at a heartbeat interval of 60 s.
SILENCES: dict[str, tuple[int, tuple[float, float]]] = {
    "online": (80, (0, 60)),
    "late": (5, (100, 170)),
    "offline": (10, (200, 400_000)),
    "stopped": (5, (0, 400_000)),
}
#: Of the time since a worker's last start but one, how much is before the Temporal API key was replaced.
SHARE_OF_OUTDATED = 0.9
#: How long before now a worker in a crash loop started.
CRASH_LOOP = (timedelta(minutes=8), timedelta(minutes=5), timedelta(minutes=2))
#: In how long the credentials that expire soon do.
SOON = timedelta(days=12)
#: Every so-manieth queue has a limit.
LIMITED_QUEUES = 2
#: Of a hundred workers that started, how many have an instance; the others' is long forgotten.
WITH_INSTANCE = 0.95
PLATFORMS = (
    ("Linux", "6.8.0-45-generic", "x86_64"),
    ("Linux", "6.1.0-25-arm64", "aarch64"),
    ("Darwin", "24.1.0", "arm64"),
)
GIBIBYTE = 2**30


@dataclass(frozen=True)
class Size:
    """How much to make in all; each is spread evenly over the one before."""

    organizations: int
    queues: int
    workers: int
    starts: int


@dataclass(frozen=True)
class Seeded:
    """What one batch added."""

    worker_ids: list[UUID]
    starts: int = 0
    instances: int = 0


def seed_fleet(size: Size, *, actor: Actor, now: datetime) -> Iterator[Seeded]:
    """Creates the fleet batch by batch in organizations `seed-<n>` with the next free numbers.

    Each batch is committed by itself: breaking off leaves a smaller fleet.
    """
    workers_of_queues = _spread(size.workers, size.queues)
    starts_of_workers = _spread(size.starts, size.workers)
    number = _next_number()
    for index, queue_count in enumerate(_spread(size.queues, size.organizations)):
        tenant = _Tenant(f"{PREFIX}{number + index}", actor=actor, now=now)
        for name, worker_count in enumerate(islice(workers_of_queues, queue_count), 1):
            queue = tenant.create_queue(f"queue-{name}", max_workers=worker_count + 1)
            for numbers in batched(range(1, worker_count + 1), BATCH):
                workers = tenant.create_workers(queue, [f"worker-{number:06}" for number in numbers])
                yield Seeded([worker.pk for worker in workers])
                yield from tenant.record_starts(zip(workers, islice(starts_of_workers, len(workers)), strict=True))


def _spread(total: int, parts: int) -> Iterator[int]:
    """Whole numbers that add up to the total and differ by at most one."""
    return (total * (index + 1) // parts - total * index // parts for index in range(parts))


def _next_number() -> int:
    ids = Organization.objects.filter(id__startswith=PREFIX).values_list("id", flat=True)
    numbers = [int(text) for key in ids if (text := key.removeprefix(PREFIX)).isascii() and text.isdigit()]
    return max(numbers, default=0) + 1


class _Tenant:
    """One organization while it is filled, with the troubles that a real one has.

    Its Temporal API key was replaced a while ago, so some workers run with an outdated configuration; the new one and
    an API key expire soon; its LiteLLM gateway failed to verify; one worker is in a crash loop, one runs twice.
    """

    @transaction.atomic
    def __init__(self, organization_id: str, *, actor: Actor, now: datetime) -> None:
        self.now = now
        self.since = now - HISTORY
        self.random = random.Random(organization_id)  # noqa: S311  # the same fleet each time, not secrets
        self.organization = Organization(id=organization_id, name=f"Seed {organization_id}", created_at=self.since)
        self.organization.save(force_insert=True)
        self._connect()
        self.has_crash_loop = self.has_duplicate = False
        self.environment = Environment.objects.create(
            organization=self.organization, name="production", created_at=self.since
        )
        self.api_key = self._issue_api_key(actor)
        issue_api_key(self.environment, name="expires soon", actor=actor, now=self.since, lifetime=HISTORY + SOON)
        changes = audit.difference({}, audit.snapshot(self.organization))
        audit.record("organization.created", self.organization, actor=actor, now=now, changes=changes)

    def _connect(self) -> None:
        organization = self.organization
        host = f"{organization.id}.example"
        organization.temporal_connection = TemporalConnection(
            name="temporal", organization=organization, host=f"temporal.{host}:7233", namespace=organization.id
        )
        organization.litellm_connection = LiteLLMConnection(
            name="gateway", organization=organization, api_url=f"https://llm.{host}"
        )
        organization.temporal_connection.api_key_expires_on = (self.now + SOON).date()
        self._store(organization.temporal_connection)
        self.replaced_fingerprint = organization.temporal_connection.api_key_fingerprint
        self._store(organization.temporal_connection)
        self._store(organization.litellm_connection)
        self._fail_verification(organization.litellm_connection)
        organization.telemetry_settings = TelemetrySettings.objects.create(
            name="standard", organization=organization, otel_exporter_otlp_endpoint=f"https://otel.{host}:4318"
        )
        organization.save()

    def _store(self, connection: CredentialConnection) -> None:
        seal_api_key(connection, Secret(secrets.token_urlsafe(32)), now=self.since)
        connection.save()

    def _fail_verification(self, connection: LiteLLMConnection) -> None:
        connection.verified_at, connection.verified_revision = self.now, connection.endpoint_revision
        connection.verification_problem = f"The name llm.{self.organization.id}.example cannot be resolved."
        connection.save()

    def _issue_api_key(self, actor: Actor) -> ApiKey:
        """The ledger needs a key's row; the key itself is forgotten at once, so nobody can start with it."""
        return issue_api_key(self.organization, name="seed_fleet (discarded)", actor=actor, now=self.since).row

    def create_queue(self, name: str, *, max_workers: int) -> WorkerQueue:
        number = int(name.removeprefix("queue-"))
        return WorkerQueue.objects.create(
            organization=self.organization,
            environment=self.environment,
            name=name,
            created_at=self.since,
            max_workers=max_workers if number % LIMITED_QUEUES else None,
        )

    def create_workers(self, queue: WorkerQueue, names: list[str]) -> list[Worker]:
        return Worker.objects.bulk_create(
            Worker(organization=self.organization, queue=queue, name=name, created_at=self.since) for name in names
        )

    def record_starts(self, counts: Iterator[tuple[Worker, int]]) -> Iterator[Seeded]:
        """Starts of each worker, as many as is said, evenly over the history; the last one's process may still run."""
        for rows in batched(self._starts(counts), BATCH):
            starts = [start for start, _ in rows]
            instances = [instance for _, instance in rows if instance]
            with transaction.atomic():
                WorkerStart.objects.bulk_create(starts)
                WorkerInstance.objects.bulk_create(instances)
            yield Seeded([], len(starts), len(instances))

    def _starts(self, counts: Iterator[tuple[Worker, int]]) -> Iterator[tuple[WorkerStart, WorkerInstance | None]]:
        for worker, count in counts:
            facts, machine = self._facts(worker), self._machine(worker)
            times = self._times(count)
            is_duplicate = self._is_first_with("has_duplicate", count >= 2)  # noqa: PLR2004  # two processes
            for index, started_at in enumerate(times):
                is_outdated = started_at < self.now - HISTORY / count * SHARE_OF_OUTDATED
                given = self._outdated(worker) if is_outdated else {}
                start = WorkerStart(**facts | given, started_at=started_at, system_info=self._system_info(machine))
                is_last = index + 1 == count
                has_instance = is_last and (is_duplicate or self.random.random() < WITH_INSTANCE)
                if is_duplicate and index + 2 == count:
                    yield start, self._duplicate(start, worker)
                else:
                    yield start, self._instance(start, worker) if has_instance else None

    def _facts(self, worker: Worker) -> dict[str, Any]:
        """What all starts of a worker have in common."""
        sections = sections_of(worker)
        temporal, litellm, telemetry = sections.temporal.require(), sections.litellm.require(), sections.telemetry.row
        return {
            "organization_id": worker.organization_id,
            "worker_id": worker.pk,
            "api_key_id": self.api_key.pk,
            "worker_name": worker.name,
            "task_queue_name": worker.queue.task_queue_name,
            "client_address": f"10.{'.'.join(str(self.random.randrange(1, 255)) for _ in range(3))}",
            "user_agent": "python-httpx/0.28.1",
            "configuration_revision": revision_of(show_configuration(worker, sections), worker.queue),
            "temporal_connection_id": temporal.pk,
            "temporal_api_key_version": temporal.api_key_version,
            "litellm_connection_id": litellm.pk,
            "litellm_api_key_version": litellm.api_key_version,
            "telemetry_settings_id": telemetry and telemetry.pk,
        }

    def _times(self, count: int) -> list[datetime]:
        """When a worker started: evenly over the history; of one worker the last ones in a crash loop."""
        times = [self.since + HISTORY * ((index + self.random.random()) / count) for index in range(count)]
        if self._is_first_with("has_crash_loop", count >= len(CRASH_LOOP)):
            times[-len(CRASH_LOOP) :] = [self.now - ago for ago in CRASH_LOOP]
        return times

    def _is_first_with(self, trouble: str, is_possible: bool) -> bool:  # noqa: FBT001
        """Whether the trouble is possible here and did not happen to another worker before."""
        if not is_possible or getattr(self, trouble):
            return False
        setattr(self, trouble, True)
        return True

    def _outdated(self, worker: Worker) -> dict[str, Any]:
        """What a start was given before the Temporal API key was replaced."""
        given = show_configuration(worker, sections_of(worker))
        before = replace(given, temporal_api_key=self.replaced_fingerprint)
        return {"configuration_revision": revision_of(before, worker.queue), "temporal_api_key_version": 1}

    def _duplicate(self, start: WorkerStart, worker: Worker) -> WorkerInstance:
        """A process that goes on although the worker has started again."""
        instance = self._instance(start, worker)
        instance.is_current, instance.queue_id, instance.stopped_at, instance.stop_reason = False, None, None, ""
        instance.last_heartbeat_at = self.now
        return instance

    def _instance(self, start: WorkerStart, worker: Worker) -> WorkerInstance:
        weights = [weight for weight, _ in SILENCES.values()]
        (state,) = self.random.choices(list(SILENCES), weights)
        silence = timedelta(seconds=self.random.uniform(*SILENCES[state][1]))
        last_heartbeat_at = max(start.started_at, self.now - silence)
        is_stopped = state == "stopped"
        return WorkerInstance(
            id=start.pk,
            organization_id=start.organization_id,
            worker_id=start.worker_id,
            queue_id=worker.queue_id,
            hostname=start.system_info["hostname"],
            pid=start.system_info["pid"],
            client_address=start.client_address,
            api_key_id=start.api_key_id,
            configuration_revision=start.configuration_revision,
            started_at=start.started_at,
            last_heartbeat_at=last_heartbeat_at,
            stopped_at=last_heartbeat_at if is_stopped else None,
            stop_reason="shutdown" if is_stopped else "",
        )

    def _machine(self, worker: Worker) -> dict[str, Any]:
        """The part of `system_info` that stays the same from start to start."""
        system, release, machine = self.random.choice(PLATFORMS)
        has_docker = self.random.random() < 0.7  # noqa: PLR2004  # most machines
        return {
            "hostname": f"{worker.name}.{worker.organization_id}.example",
            "platform": f"{system}-{release}-{machine}",
            "os_name": system,
            "os_version": release,
            "python_version": "3.12.7",
            "cli_version": "1.0.2",
            "sdk_version": "1.0.2",
            "cwd": "/app",
            "supported_runtimes": ["default", "claude_code"],
            "docker_available": has_docker,
            "docker_version": "27.3.1" if has_docker else None,
            "cpu_count": self.random.choice((2, 4, 8, 16)),
            "memory_total": self.random.choice((4, 8, 16, 32)) * GIBIBYTE,
            "disk_total": self.random.choice((50, 100, 500)) * GIBIBYTE,
        }

    def _system_info(self, machine: dict[str, Any]) -> dict[str, Any]:
        """The 21 keys that workers in the field send."""
        memory, disk = self.random.uniform(5, 95), self.random.uniform(5, 95)
        return machine | {
            "pid": self.random.randrange(1, 60_000),
            "cpu_percent": round(self.random.uniform(0, 100), 1),
            "memory_used": int(machine["memory_total"] * memory / 100),
            "memory_percent": round(memory, 1),
            "disk_used": int(machine["disk_total"] * disk / 100),
            "disk_percent": round(disk, 1),
            "uptime_seconds": self.random.randrange(60, 5_000_000),
        }
