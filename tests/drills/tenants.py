"""Organizations whose every worker has connections of its own, so that starts tell each secret that is stored."""

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

import psycopg

from tests.drills.load import SYSTEM_INFO, Answer, Call
from tests.drills.service import Service

#: What a start's answer calls the secret of each kind of connection.
FIELDS = {"temporal": "temporal_api_key", "litellm": "litellm_api_key"}


@dataclass
class Credential:
    """A connection's API key with all that it has been, and when it may have been which."""

    connection_id: str
    kind: str
    organization_id: str
    name: str
    #: When each was sent, when that was acknowledged (None: never), and what it is.
    history: list[tuple[float, float | None, str]]

    def current(self) -> str:
        """The one that was acknowledged last."""
        return next(secret for _, acknowledged_at, secret in reversed(self.history) if acknowledged_at is not None)

    def may_be(self, secret: str, began_at: float, ended_at: float) -> bool:
        """Whether a start within these times may have been given this."""
        latest = [at for _, at, _ in self.history if at is not None and at < began_at][-1]
        return any(
            secret == known and sent_at <= ended_at and (at is None or at >= latest)
            for sent_at, at, known in self.history
        )


@dataclass
class Tenants:
    """The workers of all organizations, with their credentials and the API keys that start them."""

    credentials: dict[str, dict[str, Credential]] = field(default_factory=dict)  # by worker, then by kind
    api_keys: dict[str, str] = field(default_factory=dict)  # by organization

    def all_credentials(self) -> list[Credential]:
        return [credential for pair in self.credentials.values() for credential in pair.values()]

    def start_calls(self, rounds: int | None = None) -> Iterator[Call]:
        """A start of each worker in turn, so many times over; without a number, without an end."""
        body = json.dumps({"system_info": SYSTEM_INFO}).encode()
        done = 0
        while rounds is None or done < rounds:
            for worker_id, pair in self.credentials.items():
                api_key = self.api_keys[pair["temporal"].organization_id]
                yield Call(f"/api/v1/workers/{worker_id}/start", body, api_key, worker_id)
            done += 1

    def is_right(self, answer: Answer) -> bool:
        """Whether a start was answered with secrets that its worker had at that time."""
        if answer.status != 200:
            return False
        told, pair = json.loads(answer.body), self.credentials[answer.call.mark]
        times = answer.began_at, answer.began_at + answer.seconds
        return all(pair[kind].may_be(told[name], *times) for kind, name in FIELDS.items())


def create_tenants(service: Service, *, organizations: int, workers: int) -> Tenants:
    """So many organizations with so many workers each, all through `manage.py apply`."""
    tenants = Tenants()
    documents, environ = [], {}
    for number in range(organizations):
        ids = [str(uuid4()) for _ in range(workers)]
        documents.append(_document(f"tenant-{number}", ids))
        for name, worker_id in enumerate(ids):
            tenants.credentials[worker_id] = {
                kind: _credential(kind, f"tenant-{number}", f"own-{name}") for kind in FIELDS
            }
    for credential in tenants.all_credentials():
        environ[_variable(credential.organization_id, credential.name, credential.kind)] = credential.current()
    path = service.directory / "tenants.json"  # which is YAML too
    path.write_text(json.dumps({"organizations": documents}))
    service.set_up("apply", str(path), environ=environ)
    tenants.api_keys = json.loads(service.set_up("shell", "--no-imports", "--command", ISSUE_API_KEYS))
    _look_up_ids(service, tenants)
    return tenants


ISSUE_API_KEYS = """
import json
from django.utils import timezone
from environments.audit import Actor
from environments.models import Organization
from workers.api_keys.issuing import issue_api_key

options = {"name": "all", "actor": Actor("command:drill"), "now": timezone.now()}
print(json.dumps({row.pk: issue_api_key(row, **options).token.reveal() for row in Organization.objects.all()}))
"""


def _credential(kind: str, organization_id: str, name: str) -> Credential:
    now = time.monotonic()
    return Credential("", kind, organization_id, name, [(now, now, f"{kind}-{secrets.token_urlsafe(24)}")])


def _variable(organization_id: str, name: str, kind: str) -> str:
    return f"{organization_id}_{name}_{kind}".replace("-", "_").upper()


def _document(organization_id: str, worker_ids: list[str]) -> dict[str, object]:
    names = [f"own-{number}" for number in range(len(worker_ids))]
    keys = {
        kind: [{"name": name, "api_key": {"env": _variable(organization_id, name, kind)}} for name in names]
        for kind in FIELDS
    }
    host, url = {"host": "temporal.example.com:7233", "namespace": organization_id}, "https://llm.example.com"
    workers = [
        {"name": name, "id": worker_id, "temporal_connection": name, "litellm_connection": name}
        for name, worker_id in zip(names, worker_ids, strict=True)
    ]
    return {
        "id": organization_id,
        "name": organization_id,
        "temporal_connections": [each | host for each in keys["temporal"]],
        "litellm_connections": [each | {"api_url": url} for each in keys["litellm"]],
        "environments": [{"name": "production", "worker_queues": [{"name": "default", "workers": workers}]}],
    }


def _look_up_ids(service: Service, tenants: Tenants) -> None:
    known = {(each.kind, each.organization_id, each.name): each for each in tenants.all_credentials()}
    with psycopg.connect(service.environ["DATABASE_URL"]) as connection:
        for kind in FIELDS:
            rows = f"SELECT organization_id, name, id FROM environments_{kind}connection"  # noqa: S608  # our own names
            for organization_id, name, connection_id in connection.execute(rows):
                known[kind, organization_id, name].connection_id = str(connection_id)
