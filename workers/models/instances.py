"""Worker instances: the processes of workers, and what they report of themselves."""

from datetime import datetime
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Case, Count, F, OuterRef, Q, Subquery, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

from environments.database.tenancy import SameAs, TenantOwned, same_organization
from environments.fields import ComputedField
from environments.models import Organization
from workers.models.liveness import LIVE, intervals_before, is_held, live_since, liveness_of
from workers.models.queues import WorkerQueue
from workers.models.workers import Worker

STOP_REASON_LENGTH = 200
ERROR_MESSAGE_LENGTH = 2_000
HOSTNAME_LENGTH = 255
TASK_ID_LENGTH = 255
ACTIVITY_LENGTH = 50
DIGEST_LENGTH = 12
#: Two processes that beat as one are seen each interval; a heartbeat or two may be late.
DOUBLED_FOR_INTERVALS = 3
#: How many of the last reported log lines are kept.
LOG_LINES = 500
#: The member of what a process tells of itself in which we say what of it was cut; a worker's own is dropped.
CUT = "_cut"
INTERVAL = "worker__queue__heartbeat_interval"

#: The stop reason of an instance that another one took over from. That it did, `is_superseded` says: a worker may say
#: anything of itself.
SUPERSEDED = "superseded"
#: The stop reason of one that says no more than that it ended by an error.
ERROR = "error"


class Activity(models.TextChoices):
    """What a process says of itself; any other word is kept, and taken for active."""

    ACTIVE = "active"
    IDLE = "idle"
    BUSY = "busy"


class InstanceQuerySet(models.QuerySet["WorkerInstance"]):
    """Instances with their liveness."""

    def with_liveness(self, now: datetime | Value, *, may_be_held: bool = True) -> Self:
        """With `liveness`."""
        return self.annotate(liveness=liveness_of("", INTERVAL, now, may_be_held=may_be_held))

    def current(self, now: datetime | Value, *, may_be_held: bool = True) -> Self:
        """Each worker's current one with `liveness`, found by the queue that it has itself."""
        liveness = liveness_of("", "queue__heartbeat_interval", now, may_be_held=may_be_held)
        return self.filter(is_current=True).annotate(liveness=liveness)

    def with_held(self, now: datetime) -> Self:
        """With `is_held`: not heard of since our latest outage, but not Offline before it."""
        return self.annotate(is_held=is_held("", INTERVAL, now))

    def live(self, now: datetime | Value) -> Self:
        """The processes that run as far as is known, duplicates included.

        They are looked for among each worker's current one and those older ones that were heard of lately, which
        indexes find: what is read grows with the number of workers, and not with that of their starts.
        """
        return self.current_or_lately(now).that_live(now)

    def current_or_lately(self, now: datetime | Value) -> Self:
        """Each worker's current process, and those older ones that were heard of so lately that they may live."""
        lately = Q(is_current=False, stopped_at=None, older_heartbeat_at__gte=live_since(now))
        return self.filter(Q(is_current=True) | lately)

    def current_or_live(self, now: datetime | Value, **within: Any) -> Self:
        """Each worker's current one, whatever became of it, and older ones that live; with `liveness`.

        `within` are lookups that choose among them: each of the two is then found by an index, which one condition for
        both would have PostgreSQL look for among all processes that ever were.
        """
        current = self.filter(is_current=True, **within).order_by().values("pk")
        older = self.filter(**within).duplicates(now).order_by().values("pk")
        return self.filter(pk__in=current.union(older, all=True)).with_liveness(now)

    def duplicates(self, now: datetime | Value, *, may_be_held: bool = True) -> Self:
        """Live processes of workers of which a newer one has started since."""
        since = live_since(now, may_be_held=may_be_held)
        return self.filter(is_current=False, older_heartbeat_at__gte=since).that_live(now, may_be_held=may_be_held)

    def doubled(self, now: datetime | Value, *, may_be_held: bool = True) -> Self:
        """Live ones whose heartbeats have come from two addresses in turn, so that two processes send them."""
        lately = intervals_before(F("last_heartbeat_at"), F("queue__heartbeat_interval"), DOUBLED_FOR_INTERVALS)
        found = self.filter(is_current=True, doubled_at__isnull=False, doubled_at__gte=lately)
        return found.that_live(now, may_be_held=may_be_held)

    def that_live(self, now: datetime | Value, *, may_be_held: bool = True) -> Self:
        """Those of these that are live: each of them is looked at."""
        return self.with_liveness(now, may_be_held=may_be_held).filter(stopped_at=None, liveness__in=LIVE)

    def ended_badly(self) -> Self:
        """Those that said goodbye by themselves, and of an error; the same rule as `has_ended_badly`."""
        is_error = (Q(exit_code__isnull=False) & ~Q(exit_code=0)) | ~Q(error_message="") | Q(stop_reason=ERROR)
        return self.filter(is_error, stopped_at__isnull=False, is_superseded=False, is_replaced=False)

    def held(self, now: datetime) -> Self:
        """Those of the live ones that were not heard of since our latest outage."""
        return self.live(now).with_held(now).filter(Q(is_held=True))


def _digest(subject: str) -> "models.CharField[str, str]":
    """A field for a short digest of what a process tells of itself once and for all."""
    help_text = f"Of what the process told of {subject}."
    return models.CharField(max_length=DIGEST_LENGTH, blank=True, default="", db_default="", help_text=help_text)


class WorkerInstance(TenantOwned):
    """One process of a worker: narrow, and all that a heartbeat writes. Its id is that of the start it began with.

    The current one has its worker's queue, which the database sees to, so that what runs is counted without joining the
    workers. Older ones have none: a worker that moves takes one row along, and not all that ever ran.

    The host, process id and address with which it started, and digests of what else tells processes apart, are the
    evidence that tells its heartbeats from those of another process, since those carry the worker's id alone.
    """

    id = models.UUIDField("ID", primary_key=True, editable=False)
    # Their indexes are the tenant's key and the one by age below; the tenant's constraint on the worker checks both.
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    worker = models.ForeignKey(
        Worker, on_delete=models.CASCADE, related_name="instances", db_index=False, db_constraint=False
    )
    queue = models.ForeignKey(
        WorkerQueue, on_delete=models.DO_NOTHING, related_name="+", null=True, db_index=False, db_constraint=False
    )
    is_current = models.BooleanField(default=True)
    is_contested = models.BooleanField(
        default=False, help_text="It started while another process of the worker was online."
    )
    hostname = models.CharField("host", max_length=HOSTNAME_LENGTH, blank=True, default="")
    pid = models.BigIntegerField("process ID", null=True)
    client_address = models.GenericIPAddressField(null=True)
    container_digest = _digest("its container")
    boot_digest = _digest("its machine's boot")
    birth_digest = _digest("its own beginning")
    api_key_id = models.UUIDField("API key", null=True, db_index=True, help_text="The one that it used last.")
    configuration_revision = models.CharField(
        max_length=12, blank=True, default="", db_default="", help_text="Of what it was given at its start."
    )
    started_at = models.DateTimeField()
    last_heartbeat_at = models.DateTimeField(help_text="The start counts as the first.")
    # No index has what each heartbeat changes: PostgreSQL then writes the row alone, and not an entry in every index.
    older_heartbeat_at = ComputedField(
        expression=Case(When(is_current=False, then=F("last_heartbeat_at"))),
        output_field=models.DateTimeField(null=True),
        help_text="The last heartbeat, once a newer process has started.",
    )
    heartbeat_address = models.GenericIPAddressField(null=True, help_text="Where the last heartbeat came from.")
    address_before = models.GenericIPAddressField(
        null=True, help_text="Where those before came from, if from elsewhere."
    )
    # Few rows have one, so its index leaves the others' heartbeats as cheap as they are.
    doubled_at = models.DateTimeField(
        null=True, help_text="When heartbeats came from two addresses in turn, sooner than one process sends them."
    )
    activity = models.CharField(max_length=ACTIVITY_LENGTH, choices=Activity, default=Activity.ACTIVE)
    tasks_processed = models.BigIntegerField(default=0)
    current_task_id = models.CharField("current task", max_length=TASK_ID_LENGTH, blank=True, default="")
    stopped_at = models.DateTimeField(null=True)
    is_superseded = models.BooleanField(
        default=False, db_default=False, help_text="Another process of the worker took over from it."
    )
    is_replaced = models.BooleanField(
        default=False, db_default=False, help_text="It was taken for dead when a process started in its place."
    )
    stop_reason = models.CharField(max_length=STOP_REASON_LENGTH, blank=True, default="")
    exit_code = models.BigIntegerField(null=True)
    error_message = models.CharField(max_length=ERROR_MESSAGE_LENGTH, blank=True, default="")

    objects = InstanceQuerySet.as_manager()

    #: Of instances loaded with `with_liveness` and `with_held`.
    liveness: str
    is_held: bool | None

    class Meta:
        ordering: ClassVar[list[str]] = ["-started_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["worker"], condition=Q(is_current=True), name="workers_workerinstance_one_current"
            ),
            *same_organization("worker"),  # of those without a queue, too
            SameAs(pointer="worker", column="queue", name="workers_workerinstance_worker_queue"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(  # which process of a worker speaks
                fields=["worker", "-is_current", "-started_at"], name="workers_instance_of_worker"
            ),
            models.Index(  # the dashboard's duplicates
                fields=["older_heartbeat_at"],
                condition=Q(is_current=False, stopped_at=None),
                name="workers_instance_older",
            ),
            models.Index(  # the same of a queue, at a start where there is a limit
                fields=["worker", "older_heartbeat_at"],
                condition=Q(is_current=False, stopped_at=None),
                name="workers_instance_older_of",
            ),
            models.Index(fields=["-started_at"], name="workers_instance_by_time"),  # the console's list
            models.Index(  # what runs at the place where a process starts in a queue
                fields=["hostname", "queue"],
                condition=Q(is_current=True, stopped_at=None) & ~Q(hostname=""),
                name="workers_instance_by_host",
            ),
            models.Index(  # the dashboard's doubles
                fields=["doubled_at"], condition=Q(doubled_at__isnull=False), name="workers_instance_doubled"
            ),
            models.Index(  # goodbyes in the order of time, for `manage.py audit`
                fields=["stopped_at", "id"], condition=Q(stopped_at__isnull=False), name="workers_instance_goodbyes"
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def has_ended_well(self) -> bool:
        """Whether it said goodbye by itself, and of no error."""
        is_by_itself = self.stopped_at is not None and not (self.is_superseded or self.is_replaced)
        return is_by_itself and not self.has_ended_badly

    @property
    def has_ended_badly(self) -> bool:
        """Whether it said goodbye by itself, and of an error."""
        is_error = bool(self.exit_code) or bool(self.error_message) or self.stop_reason == ERROR
        return self.stopped_at is not None and is_error and not (self.is_superseded or self.is_replaced)


def live_in_queue(now: datetime | Value, *, may_be_held: bool = True) -> Combinable:
    """How many live processes a queue has, to annotate queues with; the current and the older ones by their indexes."""
    here = WorkerInstance.objects.filter(worker__queue=OuterRef("pk")).order_by()
    current = here.filter(is_current=True).that_live(now, may_be_held=may_be_held)
    return _count(current) + _count(here.duplicates(now, may_be_held=may_be_held))


def _count(rows: InstanceQuerySet) -> Coalesce:
    return Coalesce(Subquery(rows.values("worker__queue").annotate(count=Count("pk")).values("count")), 0)


class InstanceReport(TenantOwned):
    """What a process told of itself in full heartbeats; written only when it differs. Its id is the instance's."""

    id = models.UUIDField("ID", primary_key=True, editable=False)
    instance = models.OneToOneField(WorkerInstance, on_delete=models.CASCADE, related_name="report")
    reported_at = models.DateTimeField()
    system_info = models.JSONField(default=dict)
    worker_metadata = models.JSONField(default=dict)
    logs = models.JSONField(default=list, help_text="The last lines, the newest at the end.")

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            *same_organization("instance"),
        ]

    def __str__(self) -> str:
        return str(self.id)
