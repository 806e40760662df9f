"""What happens to a fleet that somebody wants to be told, whom to tell, and the messages that wait to be sent."""

import uuid
from datetime import UTC, datetime, tzinfo
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from environments.database.tenancy import TenantOwned, same_organization
from environments.encryption import VERSION
from environments.fields import SealedField
from environments.models import Organization
from environments.models.fields import SlugField, slug_check
from workers.models.observations import Turn
from workers.models.states import check_one_line

SUBJECT_LENGTH, DETAIL_LENGTH = 300, 300
LONGEST_LOCAL_PART = 64
#: Files beside the time zones that are what a machine is set to.
OF_THE_MACHINE = frozenset({"localtime", "posixrules"})
#: How many addresses a target names at most.
MOST_ADDRESSES = 20


class Event(models.TextChoices):
    """What may happen that somebody is told."""

    OFFLINE = "worker_offline", "Worker offline"
    FAILED = "worker_failed", "Worker stopped with an error"
    CRASH_LOOP = "crash_loop", "Crash loop"
    DUPLICATE = "duplicate_process", "Duplicate process"
    WAITING = "queue_unserved", "Tasks wait and nobody polls"
    FULL = "queue_full", "Worker queue full"
    FAILING = "connection_failing", "Connection does not work"
    EXPIRING = "secret_expiring", "API key or credential expires"
    REFUSED = "start_refused", "Start refused"
    OUTDATED = "configuration_outdated", "Configuration outdated"
    AWAY = "control_plane_away", "Control plane was away"


class TargetKind(models.TextChoices):
    """How a target is told."""

    WEBHOOK = "webhook", "Webhook, signed"
    SLACK = "slack", "Slack, or what takes its webhooks"
    EMAIL = "email", "Email"


def is_time_zone(name: str) -> None:
    """ValidationError for what is no time zone of the IANA database."""
    try:
        is_known = ZoneInfo(name).key not in OF_THE_MACHINE
    except (OSError, ValueError, LookupError):
        is_known = False
    if not is_known:
        msg = "This is no time zone: write UTC or a name such as Europe/Berlin."
        raise ValidationError(msg)


def are_events(value: Any) -> None:
    """ValidationError for anything but a list of names of events."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value) or set(value) - set(Event):
        msg = f"Write a list of events: {', '.join(Event)}."
        raise ValidationError(msg)


def split_addresses(text: str) -> list[str]:
    """Those of a text that parts them by commas."""
    return [address.strip() for address in text.split(",")] if text.strip() else []


def are_addresses(text: str) -> None:
    """ValidationError for anything but mail addresses parted by commas."""
    addresses = [address.strip() for address in text.split(",")]
    if len(addresses) > MOST_ADDRESSES:
        msg = f"Write at most {MOST_ADDRESSES} addresses: a list of your mail server's takes any number."
        raise ValidationError(msg)
    for address in addresses:
        _is_address(address)
    if len({address.lower() for address in addresses}) < len(addresses):
        msg = "Write each address once."
        raise ValidationError(msg)


def _is_address(address: str) -> None:
    """ValidationError for what a mail server may read as another address, or cannot deliver to."""
    local, _, domain = address.rpartition("@")
    try:
        validate_email(address)
        is_plain = address.isprintable() and not set(address) & set('"[]') and "." in domain
    except ValidationError:
        is_plain = False
    if not address.isascii():
        msg = "Write addresses in ASCII: not every mail server takes others. A domain has its xn-- form."
    elif len(local) > LONGEST_LOCAL_PART:
        msg = f"What stands before @ has at most {LONGEST_LOCAL_PART} characters."
    elif not is_plain:
        msg = "Write mail addresses parted by commas, such as ada@example.com, bob@example.com."
    else:
        return
    raise ValidationError(msg)


class NotificationTarget(TenantOwned):
    """Whom an organization has told what happens, and when not."""

    #: What is loaded from a file is held against the model's rules, as `loaddata` does not do by itself.
    IS_CHECKED_WHEN_LOADED = True

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    name = SlugField()
    kind = models.CharField(max_length=7, choices=TargetKind)
    sealed_url = SealedField(blank=True, default="")
    url_host = models.CharField(
        "host", max_length=260, blank=True, default="", editable=False, help_text="Of its URL, which is sealed."
    )
    url_fingerprint = models.CharField("URL fingerprint", max_length=12, blank=True, default="", editable=False)
    sealed_secret = SealedField(blank=True, default="")
    secret_fingerprint = models.CharField("secret fingerprint", max_length=12, blank=True, default="", editable=False)
    addresses = models.CharField(
        max_length=2_000, blank=True, default="", validators=[are_addresses], help_text="Parted by commas."
    )
    events = models.JSONField(
        default=list, blank=True, validators=[are_events], help_text="None chosen: it is told all of them."
    )
    events_chosen_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When its events were changed last: the end of what began before is not told.",
    )
    is_enabled = models.BooleanField("enabled", default=True)
    quiet_from = models.TimeField(
        "quiet from", null=True, blank=True, help_text="Nothing is told from then on, each day."
    )
    quiet_until = models.TimeField(
        "quiet until", null=True, blank=True, help_text="What stands then is told then; it may be on the next day."
    )
    time_zone = models.CharField(
        max_length=64, default="UTC", validators=[is_time_zone], help_text="Of the quiet hours, such as Europe/Berlin."
    )
    mute_ends_at = models.DateTimeField("muted until", null=True, blank=True, help_text="Nothing is told before.")
    mute_reason = models.CharField(
        "why it is muted", max_length=300, blank=True, default="", validators=[check_one_line]
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    told_at = models.DateTimeField(
        default=timezone.now, editable=False, help_text="What began before has been told, or is over."
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["organization", "name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            slug_check("name"),
            models.UniqueConstraint(fields=["organization", "name"], name="workers_notificationtarget_name_once"),
            models.CheckConstraint(
                condition=Q(kind=TargetKind.EMAIL, sealed_url="", sealed_secret="") & ~Q(addresses="")
                | Q(kind=TargetKind.SLACK, sealed_url__startswith=f"{VERSION}.", sealed_secret="", addresses="")
                | Q(
                    kind=TargetKind.WEBHOOK,
                    sealed_url__startswith=f"{VERSION}.",
                    sealed_secret__startswith=f"{VERSION}.",
                    addresses="",
                ),
                name="workers_notificationtarget_can_be_told",
                violation_error_message=(
                    "A webhook has a URL and a secret, a Slack target a URL, an email target addresses, and no more."
                ),
            ),
            models.CheckConstraint(
                condition=Q(quiet_from=None, quiet_until=None)
                | Q(quiet_from__isnull=False, quiet_until__isnull=False) & ~Q(quiet_from=F("quiet_until")),
                name="workers_notificationtarget_quiet_hours",
                violation_error_message="Quiet hours have a begin and an end, which differ.",
            ),
            models.CheckConstraint(
                condition=Q(mute_ends_at=None, mute_reason="") | Q(mute_ends_at__isnull=False) & ~Q(mute_reason=""),
                name="workers_notificationtarget_mute_needs_a_reason",
                violation_error_message="A mute has an end and a reason, or neither of them.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.name}"

    def is_told(self, event: str) -> bool:
        """Whether it wants to know of this event."""
        return not self.events or event in self.events

    def forget_ended_mute(self, now: datetime) -> None:
        """Takes out of the row, which is not saved, a mute that holds no more."""
        if self.mute_ends_at and self.mute_ends_at <= now:
            self.mute_ends_at, self.mute_reason = None, ""

    def is_held_back(self, now: datetime) -> bool:
        """Whether nothing is told now: it is muted, or these are its quiet hours."""
        if self.mute_ends_at and now < self.mute_ends_at:
            return True
        if self.quiet_from is None or self.quiet_until is None:
            return False
        at = now.astimezone(self._zone()).time()
        if self.quiet_from < self.quiet_until:
            return self.quiet_from <= at < self.quiet_until
        return at >= self.quiet_from or at < self.quiet_until

    def _zone(self) -> tzinfo:
        """UTC where this machine does not know the zone any more."""
        try:
            return ZoneInfo(self.time_zone)
        except (OSError, ValueError, LookupError):
            return UTC


class Incident(TenantOwned):
    """Something that stands or stood: an event with its subject, from when it was seen until it was over.

    Who is told of it follows from its times and from when a target was told last, so that no row says so for each.
    """

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+", db_index=False)
    event = models.CharField(max_length=22, choices=Event)
    subject_type = models.CharField(max_length=22)
    subject_id = models.CharField(max_length=SUBJECT_LENGTH)
    subject_name = models.CharField("subject", max_length=SUBJECT_LENGTH)
    detail = models.CharField(max_length=DETAIL_LENGTH, blank=True, default="")
    mark = models.CharField(
        max_length=32, blank=True, default="", help_text="What has changed of it is told anew, such as the days left."
    )
    since_at = models.DateTimeField("since", help_text="As far as is known.")
    opened_at = models.DateTimeField("seen", help_text="When it was seen first.")
    due_at = models.DateTimeField(help_text="When it is told, if it still stands.")
    renewed_at = models.DateTimeField(null=True, help_text="When its mark changed last.")
    gone_at = models.DateTimeField(null=True, help_text="Since when it was not seen any more.")
    ended_at = models.DateTimeField("over", null=True, help_text="It was gone for long enough to be over.")
    is_silent = models.BooleanField(
        default=False, help_text="Its end is not told: its subject was deleted, or only time has passed."
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["-opened_at", "id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["organization", "event", "subject_type", "subject_id"],
                condition=Q(ended_at=None),
                name="workers_incident_one_open",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-opened_at", "id"], name="workers_incident_newest"),  # the console's list
            models.Index(fields=["organization", "ended_at"], name="workers_incident_of_tenant"),  # what is to be told
        ]

    def __str__(self) -> str:
        return f"{self.get_event_display()}: {self.subject_name}"


class NotificationDelivery(TenantOwned):
    """One message to one target, which is sent again until it is taken or given up."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+", db_index=False)
    target = models.ForeignKey(NotificationTarget, on_delete=models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=22, choices=Event)
    payload = models.JSONField(default=dict, help_text="What is sent, as a webhook is sent it.")
    created_at = models.DateTimeField("made", default=timezone.now)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField("next attempt", null=True, help_text="Empty once it is taken or given up.")
    delivered_at = models.DateTimeField("delivered", null=True)
    given_up_at = models.DateTimeField("given up", null=True)
    taken_by = models.TextField(
        blank=True, default="", help_text="Of a mail that some were refused, the addresses that have it."
    )
    last_error = models.CharField(max_length=300, blank=True, default="", help_text="Why the last attempt failed.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at", "id"]
        verbose_name_plural = "notification deliveries"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            *same_organization("target"),
            models.CheckConstraint(
                condition=Q(next_attempt_at__isnull=False, delivered_at=None, given_up_at=None)
                | Q(next_attempt_at=None, delivered_at__isnull=False, given_up_at=None)
                | Q(next_attempt_at=None, delivered_at=None, given_up_at__isnull=False),
                name="workers_notificationdelivery_one_state",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-created_at", "id"], name="workers_delivery_newest"),  # the console's list
            models.Index(  # what is to be sent
                fields=["next_attempt_at"], condition=Q(next_attempt_at__isnull=False), name="workers_delivery_due"
            ),
            models.Index(  # the dashboard's
                fields=["organization"], condition=Q(given_up_at__isnull=False), name="workers_delivery_given_up"
            ),
        ]

    def __str__(self) -> str:
        return str(self.payload.get("message", self.pk))[:SUBJECT_LENGTH]


class Lookout(Turn):
    """Whose turn it is to look what has happened and to send what waits."""
