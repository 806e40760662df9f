"""Makes a worker in the console."""

import re
from html import unescape

from django.test import Client
from django.utils import timezone

from tests.support.console import url
from tests.support.factories import ACTOR, Fleet
from workers.api_keys.issuing import revoke_api_key
from workers.models import Worker

HOSTILE = "</pre><script>alert(1)</script>{{ 7 * 7 }}\u202egnp"


def steps(client: Client, fleet: Fleet) -> list[str]:
    """The states of the checklist's steps."""
    return list(told(client, fleet).values())


def told(client: Client, fleet: Fleet) -> dict[str, str]:
    text = page(client, "boot_steps", fleet)
    return dict(re.findall(r'data-step="(\w+)" data-state="([^"]+)"', text))


def page(client: Client, name: str, fleet: Fleet) -> str:
    response = client.get(url(Worker, name, fleet.worker.pk))
    assert response.status_code == 200
    return unescape(response.content.decode())


def revoked(fleet: Fleet) -> None:
    revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=timezone.now())
