"""A working control plane from nothing: an administrator, the demo fleet of `examples/fleet.yaml`, and a key.

The demo has two workers: one is for the example that stays, the other for a start by hand, so that neither is taken for
the other one's duplicate. The key is for their queue.
"""

import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction

from controlplane.startup import env
from environments import audit
from environments.audit import Actor
from environments.connections.verification import verify
from environments.encryption import CannotOpenError
from environments.models import Organization, TemporalConnection
from environments.sealing.data_keys import open_api_key
from workers.api_keys.issuing import DEFAULT_LIFETIME, IssuedApiKey, issue_api_key
from workers.configuration.effective import sections_of
from workers.fleet import apply_document
from workers.models import Worker
from workers.models.states import not_disabled

ACTOR = Actor("command:quickstart")
FLEET = env.ROOT / "examples" / "fleet.yaml"
ORGANIZATION = "demo"
ADMIN_USERNAME = "admin"
#: A later run cannot show the first key again, so it makes one that is gone the next day.
LATER_KEY_LIFETIME = timedelta(hours=24)


class DemoMissingError(Exception):
    """The demo organization is there, but without a worker that could start."""


@dataclass(frozen=True)
class Quickstart:
    """What a newcomer needs to try the service; `admin_password` only if the administrator was just made."""

    worker: Worker
    #: The worker for a start by hand: another one of the queue if there is any.
    other: Worker
    issued: IssuedApiKey
    admin_username: str
    admin_password: str | None

    @property
    def url(self) -> str:
        return str(settings.CONTROL_PLANE_URL)


@transaction.atomic
def prepare(*, now: datetime, temporal: str | None = None) -> Quickstart:
    """Makes what is missing, keeps everything that is there, and issues a key for the demo's workers.

    The demo's connection is pointed to `temporal`, as host:port, if that is given; FleetError if it cannot be.
    """
    username, password = _admin(now)
    is_first = not Organization.objects.filter(pk=ORGANIZATION).exists()
    if is_first:
        _create_fleet(now)
    if temporal:
        _point(temporal, now)
    worker, other = _workers(now)
    lifetime = DEFAULT_LIFETIME if is_first else LATER_KEY_LIFETIME
    issued = issue_api_key(worker.queue, name="quickstart", actor=ACTOR, now=now, lifetime=lifetime)
    return Quickstart(worker, other, issued, username, password)


def _workers(now: datetime) -> tuple[Worker, Worker]:
    """The first that could start, and the next one of its queue, or the same where there is no other."""
    found = Worker.objects.filter(not_disabled(now, "", "queue__"), organization=ORGANIZATION)
    found = found.with_chain().order_by("created_at", "name")
    worker = found.first()
    if worker is None:
        msg = "The demo organization has no enabled worker: make one in the console, or with manage.py create_worker."
        raise DemoMissingError(msg)
    return worker, found.filter(queue=worker.queue_id).exclude(pk=worker.pk).first() or worker


def temporal_of(found: Quickstart) -> tuple[TemporalConnection | None, str]:
    """The connection that the demo's worker is given, and why no Temporal answers there; "" where one does."""
    connection = sections_of(found.worker).temporal.row
    if connection is None:
        return None, "The demo's worker has no Temporal connection."
    try:
        return connection, verify(connection, open_api_key(connection)).problem
    except CannotOpenError as error:
        return connection, str(error)


def _admin(now: datetime) -> tuple[str, str | None]:
    """The first superuser's name, and the password if this had to make one."""
    users = get_user_model().objects
    if existing := users.filter(is_superuser=True, is_active=True).order_by("pk").first():
        return existing.get_username(), None
    password = secrets.token_urlsafe(15)
    user = users.create_superuser(ADMIN_USERNAME, password=password)
    audit.record("user.created", user, actor=ACTOR, now=now, changes={"is_superuser": [None, True]})
    return ADMIN_USERNAME, password


def _create_fleet(now: datetime) -> None:
    environ = {"DEMO_LITELLM_API_KEY": f"sk-demo-{secrets.token_urlsafe(24)}"}
    text = FLEET.read_text()
    apply_document(text, source=str(FLEET), directory=FLEET.parent, actor=ACTOR, now=now, environ=environ)


def _point(temporal: str, now: datetime) -> None:
    document = {"organizations": [{"id": ORGANIZATION, "temporal_connections": [{"name": "local", "host": temporal}]}]}
    text = json.dumps(document)  # which is YAML
    apply_document(text, source="--temporal", directory=FLEET.parent, actor=ACTOR, now=now, environ={})
