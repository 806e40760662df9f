"""API keys and how far they reach."""

import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import F, Q, Value

from environments.database.removal import ENDED_ALONG
from environments.database.tenancy import TenantOwned, same_organization
from environments.models import Environment
from workers.models.queues import WorkerQueue
from workers.models.workers import Worker

#: Days before an API key's expiry at which the console and the log begin to warn, each more urgent.
EXPIRY_WARNING_DAYS = (30, 20, 10, 3, 1)
#: An API key that lives no longer than this was issued for one occasion, so nobody has to be warned of its end.
SHORT_LIVED = timedelta(days=2)


class Scope(models.TextChoices):
    """How far an API key reaches."""

    WORKER = "worker"
    QUEUE = "queue", "worker queue"
    ENVIRONMENT = "environment"
    ORGANIZATION = "organization"


class KeyRole(models.TextChoices):
    """What an API key may do within its scope."""

    WORKER = "worker", "Worker: runs workers and reads"
    MANAGER = "manager", "Manager: also manages what is within its scope"


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    """API keys by what they are good for."""

    def usable(self, now: datetime | Value) -> Self:
        """Neither revoked nor expired; the same rule as `ApiKey.is_usable`."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)

    def in_state(self, state: str, now: datetime) -> Self:
        """Those that are `usable`, `expired` or `revoked`."""
        if state == "usable":
            return self.usable(now)
        return (
            self.filter(revoked_at__isnull=False)
            if state == "revoked"
            else self.filter(revoked_at=None, expires_at__lte=now)
        )

    def without_short_lived(self) -> Self:
        """Those whose end somebody has to be warned of, and those without end."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=F("created_at") + SHORT_LIVED))


def _scope_check() -> models.CheckConstraint:
    targets = ("worker", "queue", "environment")
    condition = Q(scope=Scope.ORGANIZATION, worker=None, queue=None, environment=None)
    for target in targets:
        others = {other: None for other in targets if other != target}
        condition |= Q(scope=target, **{f"{target}__isnull": False}, **others)
    return models.CheckConstraint(condition=condition, name="workers_apikey_one_scope")


class ApiKey(TenantOwned):
    """The row behind an API key; the key itself is shown once and only its SHA-256 is kept."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    scope = models.CharField(max_length=12, choices=Scope)
    role = models.CharField(max_length=7, choices=KeyRole, default=KeyRole.WORKER)
    worker = models.ForeignKey(Worker, on_delete=ENDED_ALONG, null=True, blank=True, related_name="api_keys")
    queue = models.ForeignKey(WorkerQueue, on_delete=ENDED_ALONG, null=True, blank=True, related_name="+")
    environment = models.ForeignKey(Environment, on_delete=ENDED_ALONG, null=True, blank=True, related_name="+")
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    signing_key_id = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)
    expires_at = models.DateTimeField(null=True)
    no_expiry_reason = models.CharField(max_length=300, blank=True, default="")
    revoked_at = models.DateTimeField(null=True)
    revoke_reason = models.CharField(max_length=300, blank=True, default="")
    replaced_by = models.OneToOneField(
        "self", on_delete=models.SET_NULL, null=True, related_name="replaces", verbose_name="replaced by"
    )

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        ordering: ClassVar[list[str]] = ["-created_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            _scope_check(),
            models.CheckConstraint(condition=Q(role__in=KeyRole.values), name="workers_apikey_role"),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=False) | ~Q(no_expiry_reason=""),
                name="workers_apikey_no_expiry_needs_a_reason",
            ),
            *same_organization("worker", "queue", "environment", "replaced_by"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-created_at"], name="workers_apikey_newest"),  # the console's list
            models.Index(  # those that expire soon
                fields=["expires_at"], condition=Q(revoked_at=None), name="workers_apikey_expiring"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def target(self) -> Any:
        """The organization, environment, queue or worker that the key is for."""
        return getattr(self, self.scope)

    def covers(self, row: Environment | WorkerQueue | Worker) -> bool:
        """Whether the row lies within the key's scope; a worker has to be loaded with its queue."""
        if row.organization_id != self.organization_id:
            return False
        match row:
            case Worker():
                chain = {Scope.WORKER: row.pk, Scope.QUEUE: row.queue_id, Scope.ENVIRONMENT: row.queue.environment_id}
            case WorkerQueue():
                chain = {Scope.QUEUE: row.pk, Scope.ENVIRONMENT: row.environment_id}
            case Environment():
                chain = {Scope.ENVIRONMENT: row.pk}
        if self.scope == Scope.ORGANIZATION:
            return True
        return bool(chain.get(Scope(self.scope)) == getattr(self, f"{self.scope}_id"))

    def is_usable(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    @property
    def is_short_lived(self) -> bool:
        """Whether it was issued for one occasion, so that its end is no surprise."""
        return self.expires_at is not None and self.expires_at - self.created_at <= SHORT_LIVED

    def expiry_warning(self, now: datetime) -> int | None:
        """The most urgent of EXPIRY_WARNING_DAYS that has been reached; None for none, and for a short-lived key."""
        if self.expires_at is None or not self.is_usable(now) or self.is_short_lived:
            return None
        reached = [days for days in EXPIRY_WARNING_DAYS if self.expires_at - now <= timedelta(days=days)]
        return min(reached, default=None)


class Refusal(TenantOwned):
    """The last start that was refused to an API key, so that whoever waits for a worker is told why it does not come.

    Its id is the key's: one row per key, so whoever has a key can make no more of them. `worker_id` is what was asked
    for, be it there or not. Or the last other call that was refused to a worker that is there, whose id it then has.
    """

    #: The call that is refused to a key; others are refused to a worker.
    START = "start"

    id = models.UUIDField("ID", primary_key=True, editable=False)
    api_key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="+")
    call = models.CharField(max_length=20, default=START, db_default=START)
    worker_id = models.UUIDField(null=True, db_index=True)
    occurred_at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(help_text="The HTTP status that was answered.")
    reason = models.CharField(max_length=300)
    client_address = models.GenericIPAddressField(null=True)

    class Meta:
        # Nothing points here, so there is no tenant's key. Beside the id it would have two first refusals of one key
        # wait for each other until PostgreSQL ends one.
        constraints: ClassVar[list[models.BaseConstraint]] = [*same_organization("api_key")]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization"], name="workers_refusal_of_tenant"),
        ]

    def __str__(self) -> str:
        return self.reason


class RefusedStart(TenantOwned):
    """That the latest start of a worker, or in a queue from a host, was refused; how often in a row, and since when.

    Its id is the worker's. Hosts have a few places for each key, which a later one may take: so whoever has a key makes
    no more rows than these, whatever names it tells.
    """

    id = models.UUIDField("ID", primary_key=True, editable=False)
    api_key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="+")
    worker_id = models.UUIDField(null=True, help_text="None for a start in a queue, which makes its worker.")
    hostname = models.CharField(max_length=255, blank=True, help_text="As whoever started told it.")
    client_address = models.GenericIPAddressField(null=True)
    first_at = models.DateTimeField(help_text="When the first of them was refused.")
    occurred_at = models.DateTimeField()
    times = models.PositiveIntegerField(help_text="At least so often.")
    status = models.PositiveSmallIntegerField(help_text="The HTTP status that was answered.")
    reason = models.CharField(max_length=300)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [*same_organization("api_key")]  # as above
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization"], name="workers_refused_of_tenant"),
            models.Index(fields=["-occurred_at"], name="workers_refused_newest"),  # the dashboard's list
        ]

    def __str__(self) -> str:
        return self.reason
