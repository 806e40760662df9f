"""Connections to third parties, with their sealed secrets."""

import hashlib
import uuid
from typing import Any, ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from environments.database.tenancy import TenantOwned
from environments.encryption import VERSION
from environments.endpoints.validators import is_http_url, is_label, is_otlp_endpoint, is_target
from environments.fields import SealedField
from environments.models.fields import SlugField, slug_check

#: What a connection's last verification found.
VERIFICATION = ("verified_at", "verified_revision", "verification_problem", "verification_latency_ms")


class Connection(TenantOwned):
    """A named third-party endpoint of an organization."""

    #: What is loaded from a file is held against the model's rules, as `loaddata` does not do by itself.
    IS_CHECKED_WHEN_LOADED = True

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = SlugField()
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

    #: The pointer by which levels name one, and what it is called where that is plain.
    POINTER: ClassVar[str]
    SECTION: ClassVar[str]
    #: The fields that tell what a worker connects to.
    ENDPOINT: ClassVar[tuple[str, ...]] = ()

    class Meta:
        abstract = True
        ordering: ClassVar[list[str]] = ["organization", "name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            slug_check("name"),
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

    POINTER, SECTION = "temporal_connection", "Temporal"
    ENDPOINT = ("host", "namespace", "is_tls_enabled", "requires_api_key", "api_key_fingerprint")

    host = models.CharField(max_length=260, validators=[is_target], help_text="host:port, without a scheme")
    namespace = models.CharField(max_length=255, validators=[is_label])
    is_tls_enabled = models.BooleanField("TLS", default=True)

    class Meta(CredentialConnection.Meta):
        verbose_name = "Temporal connection"


class LiteLLMConnection(CredentialConnection):
    """Where an organization's LiteLLM gateway is, and the API key for it."""

    POINTER, SECTION = "litellm_connection", "LiteLLM"
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

    POINTER, SECTION = "telemetry_settings", "telemetry"
    ENDPOINT = ("otel_enabled", "otel_exporter_otlp_endpoint")

    otel_enabled = models.BooleanField("enabled", default=True)
    otel_exporter_otlp_endpoint = models.CharField(
        "OTLP endpoint",
        max_length=500,
        blank=True,
        default="",
        validators=[is_otlp_endpoint],
        help_text="Empty exports nothing, even where telemetry is enabled.",
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


#: All kinds, in the order of a start's answer; those with a credential are what no worker can do without.
CREDENTIAL_KINDS: tuple[Any, ...] = (TemporalConnection, LiteLLMConnection)
CONNECTION_KINDS: tuple[Any, ...] = (*CREDENTIAL_KINDS, TelemetrySettings)
CONNECTION_POINTERS = tuple(str(kind.POINTER) for kind in CONNECTION_KINDS)
