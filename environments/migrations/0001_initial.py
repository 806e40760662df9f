"""Organizations, environments, connections, members, data keys and the audit trail, which is append-only."""

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
import environments.database.removal
import environments.database.tenancy
import environments.endpoints.validators
import environments.fields
import environments.models.fields
import environments.models.json_fields
import uuid
from django.conf import settings
from django.db import migrations, models

from environments.database.append_only import AppendOnly


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "__first__"),
    ]

    operations = [
        migrations.CreateModel(
            name="LiteLLMConnection",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", environments.models.fields.SlugField(max_length=63)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("verified_at", models.DateTimeField(editable=False, null=True)),
                (
                    "verified_revision",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        editable=False,
                        help_text="What was verified; it may have changed since.",
                        max_length=12,
                    ),
                ),
                (
                    "verification_problem",
                    models.CharField(blank=True, db_default="", default="", editable=False, max_length=300),
                ),
                (
                    "verification_latency_ms",
                    models.PositiveIntegerField(editable=False, null=True, verbose_name="latency in ms"),
                ),
                (
                    "requires_api_key",
                    models.BooleanField(
                        default=True,
                        help_text='Off only for a server that takes no key: workers are then given "" for it.',
                        verbose_name="requires an API key",
                    ),
                ),
                ("sealed_api_key", environments.fields.SealedField(blank=True, default="")),
                (
                    "api_key_fingerprint",
                    models.CharField(
                        blank=True, default="", editable=False, max_length=12, verbose_name="API key fingerprint"
                    ),
                ),
                (
                    "api_key_version",
                    models.PositiveIntegerField(default=0, editable=False, verbose_name="API key version"),
                ),
                ("api_key_set_at", models.DateTimeField(editable=False, null=True, verbose_name="API key set at")),
                (
                    "api_key_expires_on",
                    models.DateField(
                        blank=True,
                        help_text="The day on which its issuer lets it expire, to be warned.",
                        null=True,
                        verbose_name="API key expires on",
                    ),
                ),
                (
                    "api_url",
                    models.CharField(
                        max_length=500,
                        validators=[environments.endpoints.validators.is_http_url],
                        verbose_name="API URL",
                    ),
                ),
            ],
            options={
                "verbose_name": "LiteLLM connection",
                "ordering": ["organization", "name"],
                "abstract": False,
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("name__regex", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z")),
                        name="environments_litellmconnection_name_is_slug",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("sealed_api_key__startswith", "cp1."),
                            models.Q(("requires_api_key", False), ("sealed_api_key", "")),
                            _connector="OR",
                        ),
                        name="environments_litellmconnection_key_is_sealed",
                        violation_error_message="An API key is required, or say that this server takes none.",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Organization",
            fields=[
                (
                    "id",
                    environments.models.fields.SlugField(
                        help_text="Chosen once; part of every Temporal task queue name.",
                        max_length=63,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "litellm_connection",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.litellmconnection",
                        verbose_name="LiteLLM connection",
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id__regex", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z")),
                        name="environments_organization_id_is_slug",
                    )
                ],
            },
        ),
        migrations.AddField(
            model_name="litellmconnection",
            name="organization",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="environments.organization",
            ),
        ),
        migrations.CreateModel(
            name="DataKey",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("wrapped_key", environments.fields.SealedField()),
                (
                    "wrapped_by",
                    models.CharField(
                        editable=False, help_text="Id of the key in the ring.", max_length=64, verbose_name="wrapped by"
                    ),
                ),
                ("known_answer", environments.fields.SealedField()),
                ("fingerprint_key", environments.fields.SealedField()),
                ("seal_count", models.PositiveBigIntegerField(default=0, editable=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "active_for",
                    models.OneToOneField(
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="active_data_key",
                        to="environments.organization",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "id"), name="environments_datakey_tenant_key"),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("active_for", None), ("active_for", models.F("organization")), _connector="OR"
                        ),
                        name="environments_datakey_active_for_own_organization",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("wrapped_key__startswith", "cp1.")), name="environments_datakey_is_wrapped"
                    ),
                ],
                "indexes": [models.Index(fields=["wrapped_by"], name="environments_datakey_ring")],
            },
        ),
        migrations.CreateModel(
            name="AuditEvent",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("occurred_at", models.DateTimeField()),
                ("actor", models.CharField(max_length=200)),
                ("client_address", models.GenericIPAddressField(null=True)),
                ("action", models.CharField(max_length=64)),
                ("object_type", models.CharField(max_length=64)),
                ("object_id", models.CharField(max_length=64)),
                ("object_name", models.CharField(max_length=300)),
                (
                    "changes",
                    models.JSONField(
                        default=dict, help_text="Field -> [before, after]; of secrets their fingerprints only."
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
            ],
            options={
                "ordering": ["-occurred_at"],
                "indexes": [
                    models.Index(fields=["-occurred_at"], name="environments_audit_newest"),
                    models.Index(fields=["object_id", "-occurred_at"], name="environments_audit_object"),
                    models.Index(fields=["organization", "-occurred_at"], name="environments_audit_tenant"),
                    models.Index(fields=["actor", "-occurred_at"], name="environments_audit_actor"),
                ],
            },
        ),
        migrations.CreateModel(
            name="TelemetrySettings",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", environments.models.fields.SlugField(max_length=63)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("verified_at", models.DateTimeField(editable=False, null=True)),
                (
                    "verified_revision",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        editable=False,
                        help_text="What was verified; it may have changed since.",
                        max_length=12,
                    ),
                ),
                (
                    "verification_problem",
                    models.CharField(blank=True, db_default="", default="", editable=False, max_length=300),
                ),
                (
                    "verification_latency_ms",
                    models.PositiveIntegerField(editable=False, null=True, verbose_name="latency in ms"),
                ),
                ("otel_enabled", models.BooleanField(default=True, verbose_name="enabled")),
                (
                    "otel_exporter_otlp_endpoint",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Empty exports nothing, even where telemetry is enabled.",
                        max_length=500,
                        validators=[environments.endpoints.validators.is_otlp_endpoint],
                        verbose_name="OTLP endpoint",
                    ),
                ),
                (
                    "otel_service_name",
                    models.CharField(
                        default="agent-control-plane-worker",
                        max_length=255,
                        validators=[environments.endpoints.validators.is_label],
                        verbose_name="service name",
                    ),
                ),
                (
                    "otel_traces_sampler",
                    models.CharField(
                        choices=[
                            ("always_on", "Always On"),
                            ("always_off", "Always Off"),
                            ("traceidratio", "Traceidratio"),
                            ("parentbased_always_on", "Parentbased Always On"),
                            ("parentbased_always_off", "Parentbased Always Off"),
                            ("parentbased_traceidratio", "Parentbased Traceidratio"),
                        ],
                        default="parentbased_always_on",
                        max_length=32,
                        verbose_name="traces sampler",
                    ),
                ),
                (
                    "otel_traces_sampler_arg",
                    models.FloatField(
                        blank=True,
                        help_text="The ratio, 0 to 1, for the traceidratio samplers.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(0),
                            django.core.validators.MaxValueValidator(1),
                        ],
                        verbose_name="traces sampler argument",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "telemetry settings",
                "ordering": ["organization", "name"],
                "abstract": False,
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("name__regex", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z")),
                        name="environments_telemetrysettings_name_is_slug",
                    ),
                    models.UniqueConstraint(
                        fields=("organization", "name"), name="environments_telemetrysettings_name_once"
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="organization",
            name="telemetry_settings",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="environments.telemetrysettings",
            ),
        ),
        migrations.CreateModel(
            name="TemporalConnection",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", environments.models.fields.SlugField(max_length=63)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("verified_at", models.DateTimeField(editable=False, null=True)),
                (
                    "verified_revision",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        editable=False,
                        help_text="What was verified; it may have changed since.",
                        max_length=12,
                    ),
                ),
                (
                    "verification_problem",
                    models.CharField(blank=True, db_default="", default="", editable=False, max_length=300),
                ),
                (
                    "verification_latency_ms",
                    models.PositiveIntegerField(editable=False, null=True, verbose_name="latency in ms"),
                ),
                (
                    "requires_api_key",
                    models.BooleanField(
                        default=True,
                        help_text='Off only for a server that takes no key: workers are then given "" for it.',
                        verbose_name="requires an API key",
                    ),
                ),
                ("sealed_api_key", environments.fields.SealedField(blank=True, default="")),
                (
                    "api_key_fingerprint",
                    models.CharField(
                        blank=True, default="", editable=False, max_length=12, verbose_name="API key fingerprint"
                    ),
                ),
                (
                    "api_key_version",
                    models.PositiveIntegerField(default=0, editable=False, verbose_name="API key version"),
                ),
                ("api_key_set_at", models.DateTimeField(editable=False, null=True, verbose_name="API key set at")),
                (
                    "api_key_expires_on",
                    models.DateField(
                        blank=True,
                        help_text="The day on which its issuer lets it expire, to be warned.",
                        null=True,
                        verbose_name="API key expires on",
                    ),
                ),
                (
                    "host",
                    models.CharField(
                        help_text="host:port, without a scheme",
                        max_length=260,
                        validators=[environments.endpoints.validators.is_target],
                    ),
                ),
                (
                    "namespace",
                    models.CharField(max_length=255, validators=[environments.endpoints.validators.is_label]),
                ),
                ("is_tls_enabled", models.BooleanField(default=True, verbose_name="TLS")),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "Temporal connection",
                "ordering": ["organization", "name"],
                "abstract": False,
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("name__regex", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z")),
                        name="environments_temporalconnection_name_is_slug",
                    ),
                    models.UniqueConstraint(
                        fields=("organization", "name"), name="environments_temporalconnection_name_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("sealed_api_key__startswith", "cp1."),
                            models.Q(("requires_api_key", False), ("sealed_api_key", "")),
                            _connector="OR",
                        ),
                        name="environments_temporalconnection_key_is_sealed",
                        violation_error_message="An API key is required, or say that this server takes none.",
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="organization",
            name="temporal_connection",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="environments.temporalconnection",
                verbose_name="Temporal connection",
            ),
        ),
        migrations.CreateModel(
            name="Environment",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", environments.models.fields.SlugField(max_length=63)),
                ("display_name", models.CharField(blank=True, default="", max_length=200)),
                ("description", models.CharField(blank=True, max_length=2000)),
                ("tags", environments.models.json_fields.TagsField(blank=True, default=list)),
                ("settings", environments.models.json_fields.ObjectField(blank=True, default=dict)),
                ("execution_environment", environments.models.json_fields.ObjectField(blank=True, default=dict)),
                ("settings_hash", models.CharField(blank=True, default="", editable=False, max_length=12)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "litellm_connection",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.litellmconnection",
                        verbose_name="LiteLLM connection",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
                (
                    "telemetry_settings",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.telemetrysettings",
                    ),
                ),
                (
                    "temporal_connection",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.temporalconnection",
                        verbose_name="Temporal connection",
                    ),
                ),
            ],
            options={
                "ordering": ["organization", "name"],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "id"), name="environments_environment_tenant_key"),
                    models.UniqueConstraint(fields=("organization", "name"), name="environments_environment_name_once"),
                    models.CheckConstraint(
                        condition=models.Q(("name__regex", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z")),
                        name="environments_environment_name_is_slug",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("viewer", "Viewer: reads, never secrets"),
                            ("operator", "Operator: worker queues, workers and API keys"),
                            ("administrator", "Administrator: environments, connections and members"),
                        ],
                        default="viewer",
                        max_length=13,
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=environments.database.removal.ENDED_ALONG,
                        related_name="memberships",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="person",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "member",
                "ordering": ["organization", "user__username"],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "id"), name="environments_membership_tenant_key"),
                    models.UniqueConstraint(
                        fields=("organization", "user"),
                        name="environments_membership_once",
                        violation_error_message="This person is a member already.",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ["viewer", "operator", "administrator"])),
                        name="environments_membership_role",
                    ),
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="telemetrysettings",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="environments_telemetrysettings_tenant_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="temporalconnection",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="environments_temporalconnection_tenant_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="litellmconnection",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="environments_litellmconnection_tenant_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="litellmconnection",
            constraint=models.UniqueConstraint(
                fields=("organization", "name"), name="environments_litellmconnection_name_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="environment",
            constraint=environments.database.tenancy.SameOrganization(
                name="environments_environment_temporal_connection_tenant",
                organization="organization",
                pointer="temporal_connection",
            ),
        ),
        migrations.AddConstraint(
            model_name="environment",
            constraint=environments.database.tenancy.SameOrganization(
                name="environments_environment_telemetry_settings_tenant",
                organization="organization",
                pointer="telemetry_settings",
            ),
        ),
        migrations.AddConstraint(
            model_name="organization",
            constraint=environments.database.tenancy.SameOrganization(
                name="environments_organization_temporal_connection_tenant",
                organization="id",
                pointer="temporal_connection",
            ),
        ),
        migrations.AddConstraint(
            model_name="organization",
            constraint=environments.database.tenancy.SameOrganization(
                name="environments_organization_litellm_connection_tenant",
                organization="id",
                pointer="litellm_connection",
            ),
        ),
        migrations.AddConstraint(
            model_name="organization",
            constraint=environments.database.tenancy.SameOrganization(
                name="environments_organization_telemetry_settings_tenant",
                organization="id",
                pointer="telemetry_settings",
            ),
        ),
        migrations.AddConstraint(
            model_name="environment",
            constraint=environments.database.tenancy.SameOrganization(
                name="environments_environment_litellm_connection_tenant",
                organization="organization",
                pointer="litellm_connection",
            ),
        ),
        AppendOnly(
            table="environments_auditevent",
        ),
    ]
