"""Workers: registered identities."""

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.db import models
from django.db.models import Exists, FilteredRelation, OuterRef, Q
from django.utils import timezone

from environments.database.tenancy import TenantOwned, same_organization
from environments.models import HasConnections
from environments.models.connections import CONNECTION_POINTERS
from environments.models.fields import LabelsField, SlugField, slug_check
from workers.models.liveness import is_held, liveness_of
from workers.models.queues import WorkerQueue
from workers.models.states import HasState, state_check, state_ends_at, state_reason

if TYPE_CHECKING:
    from workers.models.api_keys import ApiKeyQuerySet

INTERVAL = "queue__heartbeat_interval"


class WorkerQuerySet(models.QuerySet["Worker"]):
    """Workers with what a reader needs of their chain."""

    def with_chain(self) -> Self:
        """With every level's connections and the organization's data key, in one statement."""
        levels = ("", "queue__", "queue__environment__", "organization__")
        pointers = [f"{level}{pointer}" for level in levels for pointer in CONNECTION_POINTERS]
        return self.select_related("queue__environment", "organization__active_data_key", *pointers)

    def with_liveness(self, now: datetime, *, may_be_held: bool = True) -> Self:
        """With `liveness`, and the current instance as `current` for lookups."""
        current = FilteredRelation("instances", condition=Q(instances__is_current=True))
        liveness = liveness_of("current__", INTERVAL, now, may_be_held=may_be_held)
        return self.annotate(current=current).annotate(liveness=liveness)

    def with_held(self, now: datetime) -> Self:
        """Those `with_liveness` with `is_held` too: not heard of since our latest outage, but not Offline before it."""
        return self.annotate(is_held=is_held("current__", INTERVAL, now))

    def covered_by(self, keys: "ApiKeyQuerySet") -> Self:
        """The workers within the scope of one of the keys; the same rule as `ApiKey.covers`."""
        chain = {"environment": OuterRef("queue__environment"), "queue": OuterRef("queue"), "worker": OuterRef("pk")}
        return self.filter(Exists(that_cover(keys, OuterRef("organization"), **chain)))


def that_cover(keys: "ApiKeyQuerySet", organization: Any, **chain: Any) -> "ApiKeyQuerySet":
    """Of the keys those whose scope has a worker, of which this is the organization and the chain; expressions."""
    return keys.filter(
        *(Q(**{level: None}) | Q(**{level: each}) for level, each in chain.items()), organization=organization
    )


class Worker(HasConnections, HasState, TenantOwned):
    """A registered identity, created once; its process is a `WorkerInstance`."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    # Names are once in a queue, which is its index; the tenant's constraint checks the pointer.
    queue = models.ForeignKey(
        WorkerQueue, on_delete=models.PROTECT, related_name="workers", db_index=False, db_constraint=False
    )
    name = SlugField()
    description = models.CharField(max_length=300, blank=True)
    labels = LabelsField(db_default="")
    is_ephemeral = models.BooleanField(
        "ephemeral", default=False, editable=False, help_text="Made by a queue start; removed when offline for a day."
    )
    is_draining = models.BooleanField(
        "draining", default=False, help_text="Goes on and finishes; does not start again."
    )
    is_disabled = models.BooleanField(
        "disabled", default=False, help_text="Cannot start; when running, its next heartbeat tells it to end."
    )
    state_reason = state_reason()
    state_ends_at = state_ends_at()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = WorkerQuerySet.as_manager()

    #: Of workers loaded with `with_liveness` and `with_held`.
    liveness: str
    is_held: bool | None

    class Meta:
        ordering: ClassVar[list[str]] = ["organization", "name", "id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            slug_check("name"),
            models.UniqueConstraint(fields=["queue", "name"], name="workers_worker_name_once"),
            models.UniqueConstraint(  # which its processes' queue refers to
                fields=["organization", "id", "queue"], name="workers_worker_queue_key"
            ),
            state_check(),
            *same_organization("queue", *CONNECTION_POINTERS),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization", "name", "id"], name="workers_worker_by_name"),  # the console's list
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.name}"
