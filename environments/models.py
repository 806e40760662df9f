"""Organizations, environments, connections with sealed secrets, data keys, and the audit trail."""

import hashlib
import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from environments.encryption import VERSION
from environments.fields import SealedField
from environments.removal import ENDED_ALONG
from environments.tenancy import TenantOwned, same_organization
from environments.validators import is_http_url, is_label, is_otlp_endpoint, is_target

#: One part of a Temporal task queue name `{organization}.{environment}.{queue}`: a DNS label, so without the dot.
SLUG = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
is_slug = RegexValidator(SLUG, "Use 1 to 63 lower-case letters, digits and '-', no '-' at either end.")
is_tags = RegexValidator(r"^[^\x00-\x1f\x7f]*\Z", "Use words parted by commas.")


class SlugField(models.CharField):  # type: ignore[type-arg]  # Django's fields are not generic when run
    """A name that becomes part of a Temporal task queue name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"max_length": 63, "validators": [is_slug], **kwargs})

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("validators", None)
        return name, path, args, kwargs


class TagsField(models.CharField):  # type: ignore[type-arg]  # as above
    """Words parted by commas, for people and programs to find things by."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fixed = {"max_length": 500, "blank": True, "default": "", "validators": [is_tags]}
        super().__init__(*args, **{"help_text": "Words parted by commas.", **fixed, **kwargs})

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, path, args, kwargs = super().deconstruct()
        for fixed in ("validators", "help_text"):
            kwargs.pop(fixed, None)
        return name, path, args, kwargs


def tag_list(tags: str) -> list[str]:
    """The words of a TagsField."""
    return [word for part in tags.split(",") if (word := part.strip())]


def slug_check(field: str) -> models.CheckConstraint:
    """The database's own refusal of a name that is no slug."""
    return models.CheckConstraint(
        condition=Q(**{f"{field}__regex": SLUG}), name=f"%(app_label)s_%(class)s_{field}_is_slug"
    )


class HasConnections(models.Model):
    """A level that may point to one connection of each kind; the narrowest level that does wins the whole section."""

    temporal_connection = models.ForeignKey(
        "environments.TemporalConnection", on_delete=models.PROTECT, null=True, blank=True, related_name="+"
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


CONNECTION_POINTERS = ("temporal_connection", "litellm_connection", "telemetry_settings")


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


class Environment(HasConnections, TenantOwned):
    """A stage of an organization, such as production."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = SlugField()
    display_name = models.CharField(max_length=200, blank=True, default="")
    description = models.CharField(max_length=300, blank=True)
    tags = TagsField()
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


#: What a connection's last verification found.
VERIFICATION = ("verified_at", "verified_revision", "verification_problem", "verification_latency_ms")


class Connection(TenantOwned):
    """A named third-party endpoint of an organization."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, validators=[is_slug])
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    verified_at = models.DateTimeField(null=True, editable=False)
    verified_revision = models.CharField(
        max_length=12,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="What was verified; it may have changed since.",
    )
    verification_problem = models.CharField(max_length=300, blank=True, default="", db_default="", editable=False)
    verification_latency_ms = models.PositiveIntegerField("latency in ms", null=True, editable=False)

    #: The fields that tell what a worker connects to.
    ENDPOINT: ClassVar[tuple[str, ...]] = ()

    class Meta:
        abstract = True
        ordering: ClassVar[list[str]] = ["organization", "name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["organization", "name"], name="%(app_label)s_%(class)s_name_once"),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.name}"

    @property
    def endpoint_revision(self) -> str:
        """12 hexadecimal digits that change when what is to be verified changes, the secret included."""
        endpoint = [getattr(self, name) for name in self.ENDPOINT]
        return hashlib.sha256(repr(endpoint).encode()).hexdigest()[:12]

    def save(self, *args: Any, update_fields: Any = None, **kwargs: Any) -> None:
        """What was verified before a change says nothing of what is stored now, so it is forgotten."""
        if self.verified_revision and self.verified_revision != self.endpoint_revision:
            self.verified_at = self.verification_latency_ms = None
            self.verified_revision = self.verification_problem = ""
            update_fields = update_fields and {*update_fields, *VERIFICATION}
        super().save(*args, update_fields=update_fields, **kwargs)


class CredentialConnection(Connection):
    """A connection with an API key, which is stored sealed beside its endpoint."""

    requires_api_key = models.BooleanField(
        "requires an API key",
        default=True,
        help_text='Off only for a server that takes no key: workers are then given "" for it.',
    )
    sealed_api_key = SealedField(blank=True, default="")
    api_key_fingerprint = models.CharField("API key fingerprint", max_length=12, blank=True, default="", editable=False)
    api_key_version = models.PositiveIntegerField("API key version", default=0, editable=False)
    api_key_set_at = models.DateTimeField("API key set at", null=True, editable=False)
    api_key_expires_on = models.DateField(
        "API key expires on",
        null=True,
        blank=True,
        help_text="The day on which its issuer lets it expire, to be warned.",
    )

    class Meta(Connection.Meta):
        abstract = True
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *Connection.Meta.constraints,
            models.CheckConstraint(
                condition=Q(sealed_api_key__startswith=f"{VERSION}.") | Q(requires_api_key=False, sealed_api_key=""),
                name="%(app_label)s_%(class)s_key_is_sealed",
                violation_error_message="An API key is required, or say that this server takes none.",
            ),
        ]

    @property
    def shown_fingerprint(self) -> str:
        """The fingerprint of the API key that workers are given; "" where they are given none."""
        return self.api_key_fingerprint if self.requires_api_key else ""


class TemporalConnection(CredentialConnection):
    """Where an organization's Temporal is, and the API key for it."""

    ENDPOINT = ("host", "namespace", "is_tls_enabled", "requires_api_key", "api_key_fingerprint")

    host = models.CharField(max_length=260, validators=[is_target], help_text="host:port, without a scheme")
    namespace = models.CharField(max_length=255, validators=[is_label])
    is_tls_enabled = models.BooleanField("TLS", default=True)


class LiteLLMConnection(CredentialConnection):
    """Where an organization's LiteLLM gateway is, and the API key for it."""

    ENDPOINT = ("api_url", "requires_api_key", "api_key_fingerprint")

    api_url = models.CharField("API URL", max_length=500, validators=[is_http_url])

    class Meta(CredentialConnection.Meta):
        verbose_name = "LiteLLM connection"


class Sampler(models.TextChoices):
    """The trace samplers of OpenTelemetry's OTEL_TRACES_SAMPLER."""

    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    TRACEIDRATIO = "traceidratio"
    PARENTBASED_ALWAYS_ON = "parentbased_always_on"
    PARENTBASED_ALWAYS_OFF = "parentbased_always_off"
    PARENTBASED_TRACEIDRATIO = "parentbased_traceidratio"


class TelemetrySettings(Connection):
    """The five OpenTelemetry fields that workers are given; their defaults are the contract's."""

    ENDPOINT = ("otel_enabled", "otel_exporter_otlp_endpoint")

    otel_enabled = models.BooleanField("enabled", default=True)
    otel_exporter_otlp_endpoint = models.CharField(
        "OTLP endpoint", max_length=500, blank=True, default="", validators=[is_otlp_endpoint]
    )
    otel_service_name = models.CharField(
        "service name", max_length=255, default="agent-control-plane-worker", validators=[is_label]
    )
    otel_traces_sampler = models.CharField(
        "traces sampler", max_length=32, choices=Sampler, default=Sampler.PARENTBASED_ALWAYS_ON
    )
    otel_traces_sampler_arg = models.FloatField(
        "traces sampler argument",
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="The ratio, 0 to 1, for the traceidratio samplers.",
    )

    class Meta(Connection.Meta):
        verbose_name_plural = "telemetry settings"


class DataKey(TenantOwned):
    """The key that seals one organization's secrets, itself wrapped by a key of the key ring.

    The active one is its organization's `active_data_key`; former ones stay to open what is still sealed with them.
    Deleting all data keys of an organization makes its secrets unreadable for good.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    active_for = models.OneToOneField(
        Organization, on_delete=models.PROTECT, null=True, related_name="active_data_key", editable=False
    )
    wrapped_key = SealedField()
    wrapped_by = models.CharField("wrapped by", max_length=64, editable=False, help_text="Id of the key in the ring.")
    known_answer = SealedField()
    fingerprint_key = SealedField()
    seal_count = models.PositiveBigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.CheckConstraint(
                condition=Q(active_for=None) | Q(active_for=models.F("organization")),
                name="environments_datakey_active_for_own_organization",
            ),
            models.CheckConstraint(
                condition=Q(wrapped_key__startswith=f"{VERSION}."), name="environments_datakey_is_wrapped"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["wrapped_by"], name="environments_datakey_ring"),  # readiness, rotate_encryption
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.id}"


class AuditEvent(models.Model):
    """Who did what to which object; written in the transaction of what it tells of, and never changed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, null=True, related_name="+")
    occurred_at = models.DateTimeField()
    actor = models.CharField(max_length=200)  # user:<name>, command:<name> or key:<id>
    client_address = models.GenericIPAddressField(null=True)
    action = models.CharField(max_length=64)  # such as worker.disabled
    object_type = models.CharField(max_length=64)
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=300)
    changes = models.JSONField(default=dict, help_text="Field -> [before, after]; of secrets their fingerprints only.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-occurred_at"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-occurred_at"], name="environments_audit_newest"),  # the console's list
            models.Index(fields=["object_id", "-occurred_at"], name="environments_audit_object"),  # an object's page
            models.Index(fields=["organization", "-occurred_at"], name="environments_audit_tenant"),  # a member's list
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_name}"
