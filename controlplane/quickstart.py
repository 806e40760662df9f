"""A working control plane from nothing: an administrator, the demo fleet of `examples/fleet.yaml`, and a key."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction

from controlplane.startup import env
from environments import audit
from environments.audit import Actor
from environments.models import Organization
from workers.api_keys.issuing import DEFAULT_LIFETIME, IssuedApiKey, issue_api_key
from workers.fleet import apply_document
from workers.models import Worker

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
    issued: IssuedApiKey
    admin_username: str
    admin_password: str | None

    @property
    def url(self) -> str:
        return str(settings.CONTROL_PLANE_URL)


@transaction.atomic
def prepare(*, now: datetime) -> Quickstart:
    """Makes what is missing, keeps everything that is there, and issues a key for the demo's worker."""
    username, password = _admin(now)
    is_first = not Organization.objects.filter(pk=ORGANIZATION).exists()
    if is_first:
        _create_fleet(now)
    workers = Worker.objects.filter(organization=ORGANIZATION, is_disabled=False, queue__is_disabled=False)
    worker = workers.select_related("queue__environment").order_by("created_at").first()
    if worker is None:
        msg = "The demo organization has no enabled worker: make one in the console, or with manage.py create_worker."
        raise DemoMissingError(msg)
    lifetime = DEFAULT_LIFETIME if is_first else LATER_KEY_LIFETIME
    issued = issue_api_key(worker, name="quickstart", actor=ACTOR, now=now, lifetime=lifetime)
    return Quickstart(worker, issued, username, password)


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
    environ = {
        "DEMO_TEMPORAL_API_KEY": f"demo-temporal-{secrets.token_urlsafe(24)}",
        "DEMO_LITELLM_API_KEY": f"sk-demo-{secrets.token_urlsafe(24)}",
    }
    text = FLEET.read_text()
    apply_document(text, source=str(FLEET), directory=FLEET.parent, actor=ACTOR, now=now, environ=environ)
