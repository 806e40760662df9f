"""Organizations, their environments and their members."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from environments.database.removal import ENDED_ALONG
from environments.database.tenancy import TenantOwned, same_organization
from environments.models.connections import CONNECTION_POINTERS
from environments.models.execution import check_execution_environment
from environments.models.fields import SlugField, slug_check
from environments.models.json_fields import ObjectField, TagsField, digest_of

#: Of the description of an environment or a queue.
LONGEST_DESCRIPTION = 2_000
SETTINGS_HELP = "An object in JSON for the tools that read it; no secrets, since whoever reads the row reads it."
EXECUTION_HELP = "The same with the members env_vars, secrets (their names), integration_ids and mcp_servers."


class HasConnections(models.Model):
    """A level that may point to one connection of each kind; the narrowest level that does wins the whole section."""

    temporal_connection = models.ForeignKey(
        "environments.TemporalConnection",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name="Temporal connection",
    )
    litellm_connection = models.ForeignKey(
        "environments.LiteLLMConnection",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name="LiteLLM connection",
    )
    telemetry_settings = models.ForeignKey(
        "environments.TelemetrySettings", on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        abstract = True


class HasSettings(models.Model):
    """A level with free settings, of which a start reads no more than `settings_hash`.

    It is set wherever a row is checked or saved, so that it never tells of other settings than those beside it.
    """

    #: The fields that it stands for.
    HASHED: ClassVar[tuple[str, ...]] = ("settings",)

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        self._hash_settings()
        super().save(*args, **kwargs)

    def clean(self) -> None:
        super().clean()
        self._hash_settings()

    def _hash_settings(self) -> None:
        self.settings_hash = digest_of(*(getattr(self, name) for name in self.HASHED))


def settings_hash() -> models.CharField:  # type: ignore[type-arg]  # Django's fields are not generic when run
    """The column of a level that has settings."""
    return models.CharField(max_length=12, blank=True, default="", editable=False)


class Organization(HasConnections):
    """A tenant; its id is a slug chosen once, and is `organization_id` on the wire."""

    id = SlugField(primary_key=True, help_text="Chosen once; part of every Temporal task queue name.")
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            slug_check("id"),
            *same_organization(*CONNECTION_POINTERS, organization="id"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def organization_id(self) -> str:
        """Itself: an organization is owned by itself."""
        return str(self.id)


class Role(models.TextChoices):
    """What a person may do in an organization; each may do what the ones before it may."""

    VIEWER = "viewer", "Viewer: reads, never secrets"
    OPERATOR = "operator", "Operator: worker queues, workers and API keys"
    ADMINISTRATOR = "administrator", "Administrator: environments, connections and members"

    def includes(self, other: "Role") -> bool:
        """Whether it may do all that the other may."""
        roles = list(Role)
        return roles.index(self) >= roles.index(other)


class Membership(TenantOwned):
    """A person's role in an organization; superusers need none."""

    id = models.UUIDField("ID", primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=ENDED_ALONG, related_name="memberships", verbose_name="person"
    )
    role = models.CharField(max_length=13, choices=Role, default=Role.VIEWER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "member"
        ordering: ClassVar[list[str]] = ["organization", "user__username"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["organization", "user"],
                name="environments_membership_once",
                violation_error_message="This person is a member already.",
            ),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="environments_membership_role"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization_id}"


class Environment(HasConnections, HasSettings, TenantOwned):
    """A stage of an organization, such as production."""

    HASHED = ("settings", "execution_environment")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = SlugField()
    display_name = models.CharField(max_length=200, blank=True, default="")
    description = models.CharField(max_length=LONGEST_DESCRIPTION, blank=True)
    tags = TagsField()
    settings = ObjectField(help_text=SETTINGS_HELP)
    execution_environment = ObjectField(validators=[check_execution_environment], help_text=EXECUTION_HELP)
    settings_hash = settings_hash()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["organization", "name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            slug_check("name"),
            models.UniqueConstraint(fields=["organization", "name"], name="environments_environment_name_once"),
            *same_organization(*CONNECTION_POINTERS),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.name}"
