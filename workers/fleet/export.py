"""Writes organizations as a fleet's document, without their secrets."""

from collections import defaultdict
from typing import Any

import yaml
from django.utils import timezone

from environments.models import Environment, Organization
from workers.fleet.kinds import CONNECTIONS, ENVIRONMENT, ORGANIZATION, WORKER, WORKER_QUEUE, Kind, Row
from workers.models import Worker, WorkerQueue
from workers.models.states import HasState

DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def export_document(organization_id: str | None = None) -> dict[str, Any]:
    """All organizations, or the one, in the form that `apply_document` reads; API keys are left out.

    Fields at their defaults are left out too. Workers keep their ids, so that a copy made elsewhere has the same ones.
    """
    organizations = Organization.objects.select_related(*ORGANIZATION.pointers)
    if organization_id is not None:
        organizations = organizations.filter(pk=organization_id)
    return {"organizations": [_organization(row) for row in organizations]}


def as_yaml(document: dict[str, Any]) -> str:
    """The document in block style, its fields in the order of the models."""
    text: str = yaml.dump(document, Dumper=DUMPER, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


def _organization(row: Organization) -> dict[str, Any]:
    document = _plain(ORGANIZATION, row)
    for name, kind in CONNECTIONS.items():
        connections = kind.model.objects.filter(organization=row)
        document |= _listed(name, [_plain(kind, connection) for connection in connections])
    return document | _listed("environments", _environments(row))


def _environments(organization: Organization) -> list[dict[str, Any]]:
    queues, workers = defaultdict(list), defaultdict(list)
    for worker in Worker.objects.filter(organization=organization, is_ephemeral=False).select_related(*WORKER.pointers):
        workers[worker.queue_id].append(_plain(WORKER, worker))
    for queue in WorkerQueue.objects.filter(organization=organization).select_related(*WORKER_QUEUE.pointers):
        queues[queue.environment_id].append(_plain(WORKER_QUEUE, queue) | _listed("workers", workers[queue.pk]))
    environments = Environment.objects.filter(organization=organization).select_related(*ENVIRONMENT.pointers)
    return [_plain(ENVIRONMENT, row) | _listed("worker_queues", queues[row.pk]) for row in environments]


def _listed(name: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: items} if items else {}


def _plain(kind: Kind, row: Row) -> dict[str, Any]:
    """The row's own fields as far as they differ from the defaults, and the names of its connections."""
    if isinstance(row, HasState):
        row.forget_ended(timezone.now())
    fields = {name: getattr(row, name) for name, field in kind.fields.items() if _is_worth_writing(kind, field, row)}
    identity = {"id": str(row.pk)} if kind.takes_id else {}
    pointers = {name: target.name for name in kind.pointers if (target := getattr(row, name)) is not None}
    return {kind.key: fields.pop(kind.key), **identity, **fields, **pointers}


def _is_worth_writing(kind: Kind, field: Any, row: Row) -> bool:
    return bool(field.name == kind.key or getattr(row, field.name) != field.get_default())
