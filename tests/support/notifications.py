"""Targets, and looks at what stands at moments of the test's choice."""

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from environments.encryption import Secret
from environments.models import Organization
from environments.sealing.data_keys import seal_into
from tests.support.receivers import SECRET
from workers.models import Event, Incident, NotificationDelivery, NotificationTarget, TargetKind
from workers.notifications.looks import look
from workers.notifications.outbox import Outbox
from workers.notifications.passes import lookout_lease

NOWHERE = "http://127.0.0.1:1/hook"


def create_target(
    organization: Organization,
    name: str = "target",
    *,
    kind: str = TargetKind.WEBHOOK,
    url: str = NOWHERE,
    secret: str = SECRET,
    **fields: Any,
) -> NotificationTarget:
    target = NotificationTarget(organization=organization, name=name, kind=kind, **fields)
    if kind != TargetKind.EMAIL:
        target.url_fingerprint = seal_into(target, "sealed_url", Secret(url))
        target.url_host = "127.0.0.1"
    if kind == TargetKind.WEBHOOK:
        target.secret_fingerprint = seal_into(target, "sealed_secret", Secret(secret))
    target.save()
    return target


def tell(organization: Organization, name: str = "some", **target: Any) -> tuple[Any, Any, Any]:
    """A target, what stands, and a message about it that was given up; every text of theirs begins with the name."""
    now = timezone.now()
    row = create_target(organization, f"{name}-target", **target)
    incident = Incident(organization=organization, event=Event.CRASH_LOOP, subject_type="host", detail=f"{name} detail")
    incident.subject_id = incident.subject_name = f"{name}-host"
    incident.since_at = incident.opened_at = incident.due_at = now
    incident.save()
    delivery = NotificationDelivery(organization=organization, target=row, event=Event.CRASH_LOOP, given_up_at=now)
    delivery.payload, delivery.last_error = {"message": f"{name} message"}, f"{name} error"
    delivery.save()
    return row, incident, delivery


class Watch:
    """The process whose turn it is, at a time that the test moves."""

    def __init__(self, now: datetime | None = None) -> None:
        self.now = now or timezone.now()
        self.lease = lookout_lease(self.clock)
        assert self.lease.take()

    def clock(self) -> datetime:
        return self.now

    def go_on(self, **period: float) -> "Watch":
        self.now += timedelta(**period)
        return self

    def look(self) -> list[str]:
        """What the messages say that one look wrote, for each target."""
        known = set(NotificationDelivery.objects.values_list("pk", flat=True))
        look(self.lease, self.now, address_of)
        rows = NotificationDelivery.objects.exclude(pk__in=known).order_by("event", "payload__state")
        return [str(row) for row in rows]

    def look_after(self, **period: float) -> list[str]:
        return self.go_on(**period).look()

    def send(self, seconds: float = 10) -> None:
        """What is due now."""
        Outbox(self.lease, self.clock, seconds=seconds).run()


def address_of(subject_type: str, subject_id: str) -> str:
    return f"https://controlplane.example.com/{subject_type}/{subject_id}"


def standing_events() -> list[str]:
    return sorted(Incident.objects.filter(ended_at=None).values_list("event", flat=True))
