"""What Temporal was seen to know of queues and processes when it was last asked, and whose turn it is to ask.

These rows stand beside what workers tell: a start and a heartbeat neither read nor write them.
"""

from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q

from environments.database.expressions import moment
from environments.database.tenancy import TenantOwned, same_organization
from environments.models import Organization
from workers.models.instances import WorkerInstance
from workers.models.queues import WorkerQueue

PROBLEM_LENGTH = 300
IDENTITY_LENGTH = 200
#: Of the pollers of a queue that are no worker's here, how many are named.
MOST_STRANGERS = 20
#: What is older says nothing any more: three looks were missed.
FRESH_FOR = timedelta(minutes=3)


class Turn(models.Model):
    """One row: which process of all does something now, until when it has the turn, and when it did so last."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    holder = models.UUIDField(null=True, help_text="A process of the service, by an id that it gave itself.")
    expires_at = models.DateTimeField(null=True, help_text="Then another one may take over.")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(id=1), name="%(app_label)s_%(class)s_one_row")
        ]

    def __str__(self) -> str:
        return f"{self.finished_at:%Y-%m-%d %H:%M:%S}" if self.finished_at else "none yet"


class Sweep(Turn):
    """Whose turn it is to ask Temporal, and how the latest pass went."""

    queues = models.PositiveIntegerField(default=0)
    unanswered = models.PositiveIntegerField(
        default=0, help_text="Connections that did not answer, now or when they were asked last."
    )


class QueueObservation(TenantOwned):
    """What Temporal said of a queue when it last answered, and why it did not the last time. Its id is the queue's."""

    id = models.UUIDField("ID", primary_key=True, editable=False)
    # Its indexes are the tenant's key and the queue's own; the tenant's constraint checks the pointer.
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    queue = models.OneToOneField(WorkerQueue, on_delete=models.CASCADE, related_name="observation", db_constraint=False)
    asked_at = models.DateTimeField(help_text="When Temporal was asked last, whether or not it answered.")
    observed_at = models.DateTimeField(null=True, help_text="When it answered last.")
    problem = models.CharField(max_length=PROBLEM_LENGTH, blank=True, default="", help_text="Why it did not answer.")
    workflow_pollers = models.PositiveIntegerField(default=0)
    activity_pollers = models.PositiveIntegerField(default=0)
    pollers = models.PositiveIntegerField(default=0, help_text="Of either kind, each counted once.")
    strangers = models.PositiveIntegerField(default=0, help_text="Pollers that are no worker's here.")
    stranger_identities = models.JSONField(default=list, help_text="What some of these call themselves.")
    backlog = models.PositiveBigIntegerField(
        null=True, help_text="Tasks that wait; empty where Temporal does not tell."
    )
    oldest_age = models.DurationField(null=True, help_text="How long the oldest of them had waited then.")

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            *same_organization("queue"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    def is_fresh(self, now: datetime) -> bool:
        """Whether it still says something."""
        return self.observed_at is not None and self.observed_at > now - FRESH_FOR

    @property
    def is_waiting_in_vain(self) -> bool:
        """Whether tasks waited and nobody polled."""
        return bool(self.backlog) and not self.pollers


class ProcessObservation(TenantOwned):
    """Whether a process polls, as of the latest look at its queue; written only when that changes.

    Its id is the instance's. There is a row for each process that polls, and for each that lives and does not; none
    where that cannot be told, so that the rows are no more than the processes that run.
    """

    id = models.UUIDField("ID", primary_key=True, editable=False)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    instance = models.OneToOneField(
        WorkerInstance, on_delete=models.CASCADE, related_name="observation", db_constraint=False
    )
    queue = models.ForeignKey(QueueObservation, on_delete=models.CASCADE, related_name="processes", db_constraint=False)
    is_polling = models.BooleanField()
    is_full = models.BooleanField(default=False, help_text="It does not poll since all of its slots are taken.")
    is_conspicuous = models.BooleanField(
        default=False, help_text="When Temporal was asked, polling and heartbeats did not go together."
    )
    changed_at = models.DateTimeField(help_text="Since when it polls, or does not.")
    observed_at = models.DateTimeField(
        null=True, help_text="When it was looked for, of a worker with a Temporal connection of its own."
    )

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            *same_organization("instance", "queue"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(  # the dashboard's
                fields=["organization"], condition=Q(is_conspicuous=True), name="workers_processobs_conspicuous"
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


def fresh_queues(now: datetime | models.Value) -> Q:
    """Of queue observations: those that still say something."""
    return Q(observed_at__isnull=False) & Q(observed_at__gt=_fresh_since(now))


def _fresh_since(now: datetime | models.Value) -> models.expressions.Combinable:
    duration = models.Value(FRESH_FOR, output_field=models.DurationField())
    return models.ExpressionWrapper(moment(now) - duration, models.DateTimeField())


#: Of queue observations: tasks wait and nobody polls; somebody polls who is no worker's here.
WAITING_IN_VAIN, HAS_STRANGERS = Q(backlog__gt=0, pollers=0), Q(strangers__gt=0)
