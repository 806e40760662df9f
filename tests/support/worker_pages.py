"""Reads a worker's page."""

import re
from html import unescape
from typing import Any

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from environments import audit
from environments.audit import Actor
from tests.support.calls import start
from tests.support.factories import Fleet
from workers.models import ApiKey, Refusal, Worker

ADA = Actor("user:ada", "203.0.113.9")


def html(client: Client, row: Any, **query: Any) -> str:
    name = row._meta.label_lower.replace(".", "_")
    response = client.get(reverse(f"admin:{name}_change", args=[row.pk], query=query))
    assert response.status_code == 200
    return response.content.decode()


def element(content: str, identifier: str) -> str:
    """The element with this id, up to the end tag of its first namesake; enough for tables, rows and paragraphs."""
    found = re.search(rf'<(\w+)[^>]* ?id="{identifier}".*?</\1>', content, re.DOTALL)
    return found[0] if found else ""


def words(content: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", content)).split())


def told(client: Client, fleet: Fleet, identifier: str) -> str:
    """The words of one element of the worker's page."""
    return words(element(html(client, fleet.worker), identifier))


def starts(fleet: Fleet, *reports: dict[str, Any]) -> None:
    for report in reports:
        assert start(fleet, {"system_info": report}).status_code == 200


def change(row: Any, **values: Any) -> None:
    """As the console changes a row: with an audit event."""
    before = audit.snapshot(row)
    for name, value in values.items():
        setattr(row, name, value)
    row.save()
    changes = audit.difference(before, audit.snapshot(row))
    audit.record(f"{audit.kind_of(row)}.updated", row, actor=ADA, now=timezone.now(), changes=changes)


def refuse(key: ApiKey, worker: Worker, reason: str) -> Refusal:
    return Refusal.objects.create(
        id=key.pk,
        api_key=key,
        organization_id=key.organization_id,
        worker_id=worker.pk,
        occurred_at=timezone.now(),
        status=409,
        reason=reason,
        client_address="203.0.113.77",
    )


def loaded(worker: Worker) -> Worker:
    return Worker.objects.with_chain().get(pk=worker.pk)
