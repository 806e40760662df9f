"""Creates what tests start from, through the same domain functions that the product uses."""

import itertools
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

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
from workers.api_keys.issuing import DEFAULT_LIFETIME, IssuedApiKey, KeyTarget, issue_api_key
from workers.api_keys.presented import PresentedKey
from workers.api_keys.tokens import Claims
from workers.models import ApiKey, Worker, WorkerQueue

ACTOR = Actor("command:tests")
_numbers = itertools.count(1)


@dataclass
class Fleet:
    """One organization with a complete chain down to one worker, and a key for that worker."""

    organization: Organization
    environment: Environment
    queue: WorkerQueue
    worker: Worker
    temporal: TemporalConnection
    litellm: LiteLLMConnection
    temporal_secret: str
    litellm_secret: str
    api_key: ApiKey
    token: str


@transaction.atomic(savepoint=False)  # one commit, where the test has no transaction
def create_fleet(organization_id: str = "") -> Fleet:
    """An organization whose worker can start: the connections are the organization's, the key is the worker's."""
    number = next(_numbers)
    organization = create_organization(organization_id or f"org-{number}")
    temporal_secret, litellm_secret = f"temporal-secret-{number}", f"litellm-secret-{number}"
    temporal = create_temporal(organization, secret=temporal_secret)
    litellm = create_litellm(organization, secret=litellm_secret)
    point(organization, temporal_connection=temporal, litellm_connection=litellm)
    environment = create_environment(organization)
    queue = create_queue(environment)
    worker = create_worker(queue)
    issued = issue_key(worker)
    return Fleet(
        organization=organization,
        environment=environment,
        queue=queue,
        worker=worker,
        temporal=temporal,
        litellm=litellm,
        temporal_secret=temporal_secret,
        litellm_secret=litellm_secret,
        api_key=issued.row,
        token=issued.token.reveal(),
    )


def create_organization(organization_id: str) -> Organization:
    return Organization.objects.create(id=organization_id, name=organization_id.title())


def create_environment(organization: Organization, name: str = "production", **fields: Any) -> Environment:
    return Environment.objects.create(organization=organization, name=name, **fields)


def create_queue(environment: Environment, name: str = "default", **fields: Any) -> WorkerQueue:
    return WorkerQueue.objects.create(
        organization_id=environment.organization_id, environment=environment, name=name, **fields
    )


def create_worker(queue: WorkerQueue, name: str = "worker-1", **fields: Any) -> Worker:
    return Worker.objects.create(organization_id=queue.organization_id, queue=queue, name=name, **fields)


def create_temporal(
    organization: Organization, name: str = "temporal", *, secret: str = "temporal-secret", **fields: Any
) -> TemporalConnection:
    values = {"host": f"{name}.example.com:7233", "namespace": f"{organization.id}-{name}", **fields}
    return _with_secret(TemporalConnection(organization=organization, name=name, **values), secret)


def create_litellm(
    organization: Organization, name: str = "litellm", *, secret: str = "litellm-secret", **fields: Any
) -> LiteLLMConnection:
    values = {"api_url": f"https://{name}.example.com", **fields}
    return _with_secret(LiteLLMConnection(organization=organization, name=name, **values), secret)


def create_telemetry(organization: Organization, name: str = "telemetry", **fields: Any) -> TelemetrySettings:
    return TelemetrySettings.objects.create(organization=organization, name=name, **fields)


def point[Holder: (Organization, Environment, WorkerQueue, Worker)](holder: Holder, **pointers: Any) -> Holder:
    """Lets a level point to connections, or to none of a kind with None."""
    for name, row in pointers.items():
        setattr(holder, name, row)
    holder.save()
    return holder


def issue_key(target: KeyTarget, *, name: str = "key", age: timedelta = timedelta(0), **kwargs: Any) -> IssuedApiKey:
    """A key issued `age` ago."""
    now = timezone.now() - age
    return issue_api_key(target, name=name, actor=ACTOR, now=now, **{"lifetime": DEFAULT_LIFETIME, **kwargs})


def issue_token(target: KeyTarget, **kwargs: Any) -> str:
    """The text of a new key."""
    return issue_key(target, **kwargs).token.reveal()


def _with_secret[Row: CredentialConnection](connection: Row, secret: str) -> Row:
    if connection.requires_api_key:
        seal_api_key(connection, Secret(secret), now=timezone.now())
    connection.save()
    return connection


def presented(row: ApiKey) -> PresentedKey:
    """The key of this row, as a request carries it."""
    return PresentedKey(Claims(row.pk, row.organization_id), row.token_hash)
