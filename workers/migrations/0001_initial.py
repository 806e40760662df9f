"""Queues, workers, processes, keys, and the ledger of starts, which is append-only."""

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
import environments.database.removal
import environments.database.tenancy
import environments.fields
import environments.models.fields
import environments.models.json_fields
import uuid
import workers.models.notifications
import workers.models.states
from django.db import migrations, models

from environments.database.append_only import AppendOnly


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("environments", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Outage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("lost_at", models.DateTimeField(unique=True)),
                ("recovered_at", models.DateTimeField()),
                (
                    "served_before",
                    models.DurationField(help_text="How long it had served since the outage before.", null=True),
                ),
            ],
            options={
                "ordering": ["-lost_at"],
            },
        ),
        migrations.CreateModel(
            name="Pulse",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                ("beat_at", models.DateTimeField()),
            ],
            options={
                "constraints": [models.CheckConstraint(condition=models.Q(("id", 1)), name="workers_pulse_one_row")],
            },
        ),
        migrations.CreateModel(
            name="Worker",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", environments.models.fields.SlugField(max_length=63)),
                ("description", models.CharField(blank=True, max_length=300)),
                (
                    "labels",
                    environments.models.fields.LabelsField(blank=True, db_default="", default="", max_length=500),
                ),
                (
                    "is_ephemeral",
                    models.BooleanField(
                        default=False,
                        editable=False,
                        help_text="Made by a queue start; removed when offline for a day.",
                        verbose_name="ephemeral",
                    ),
                ),
                (
                    "is_draining",
                    models.BooleanField(
                        default=False, help_text="Goes on and finishes; does not start again.", verbose_name="draining"
                    ),
                ),
                (
                    "is_disabled",
                    models.BooleanField(
                        default=False,
                        help_text="Cannot start; when running, its next heartbeat tells it to end.",
                        verbose_name="disabled",
                    ),
                ),
                (
                    "state_reason",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Why it is disabled or draining; told wherever that refuses something.",
                        max_length=200,
                        validators=[workers.models.states.check_one_line],
                        verbose_name="reason",
                    ),
                ),
                (
                    "state_ends_at",
                    models.DateTimeField(
                        blank=True,
                        help_text="When that ends by itself, in UTC; empty for no end.",
                        null=True,
                        verbose_name="until",
                    ),
                ),
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
                "ordering": ["organization", "name", "id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("name__regex", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z")),
                        name="workers_worker_name_is_slug",
                    ),
                    workers.models.states.ToldState(
                        condition=models.Q(
                            models.Q(("state_ends_at", None), ("state_reason", "")),
                            ("is_disabled", True),
                            ("is_draining", True),
                            _connector="OR",
                        ),
                        name="workers_worker_state_is_told",
                        violation_error_message="A reason and an end belong to something that is disabled or draining.",
                    ),
                    environments.database.tenancy.SameOrganization(
                        name="workers_worker_temporal_connection_tenant",
                        organization="organization",
                        pointer="temporal_connection",
                    ),
                    environments.database.tenancy.SameOrganization(
                        name="workers_worker_litellm_connection_tenant",
                        organization="organization",
                        pointer="litellm_connection",
                    ),
                    environments.database.tenancy.SameOrganization(
                        name="workers_worker_telemetry_settings_tenant",
                        organization="organization",
                        pointer="telemetry_settings",
                    ),
                ],
                "indexes": [models.Index(fields=["organization", "name", "id"], name="workers_worker_by_name")],
            },
        ),
        migrations.CreateModel(
            name="WorkerQueue",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", environments.models.fields.SlugField(max_length=63)),
                ("display_name", models.CharField(blank=True, default="", max_length=200)),
                ("description", models.CharField(blank=True, max_length=2000)),
                ("tags", environments.models.json_fields.TagsField(blank=True, default=list)),
                ("settings", environments.models.json_fields.ObjectField(blank=True, default=dict)),
                ("settings_hash", models.CharField(blank=True, default="", editable=False, max_length=12)),
                (
                    "heartbeat_interval",
                    models.PositiveIntegerField(
                        default=60,
                        help_text="Seconds between two heartbeats of a worker.",
                        validators=[
                            django.core.validators.MinValueValidator(5),
                            django.core.validators.MaxValueValidator(3600),
                        ],
                    ),
                ),
                (
                    "max_workers",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Live worker instances at a time; empty for no limit.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(1000000),
                        ],
                    ),
                ),
                (
                    "duplicate_policy",
                    models.CharField(
                        choices=[
                            ("allow", "Allow and flag"),
                            ("reject", "Reject the start"),
                            ("take_over", "Take over: the older process is told to end"),
                        ],
                        default="allow",
                        help_text="What happens to a start while another process of the same worker is online.",
                        max_length=9,
                    ),
                ),
                (
                    "is_draining",
                    models.BooleanField(
                        default=False,
                        help_text="Running workers go on and finish; nothing new starts.",
                        verbose_name="draining",
                    ),
                ),
                (
                    "is_disabled",
                    models.BooleanField(
                        default=False,
                        help_text="A disabled queue's workers cannot start, and running ones are told to end.",
                        verbose_name="disabled",
                    ),
                ),
                (
                    "state_reason",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Why it is disabled or draining; told wherever that refuses something.",
                        max_length=200,
                        validators=[workers.models.states.check_one_line],
                        verbose_name="reason",
                    ),
                ),
                (
                    "state_ends_at",
                    models.DateTimeField(
                        blank=True,
                        help_text="When that ends by itself, in UTC; empty for no end.",
                        null=True,
                        verbose_name="until",
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "environment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="worker_queues",
                        to="environments.environment",
                    ),
                ),
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
                "ordering": ["organization", "environment__name", "name"],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "id"), name="workers_workerqueue_tenant_key"),
                    models.UniqueConstraint(fields=("environment", "name"), name="workers_workerqueue_name_once"),
                    models.CheckConstraint(
                        condition=models.Q(("name__regex", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z")),
                        name="workers_workerqueue_name_is_slug",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("heartbeat_interval__gte", 5), ("heartbeat_interval__lte", 3600)),
                        name="workers_workerqueue_heartbeat_interval_range",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("max_workers", 0), _negated=True),
                        name="workers_workerqueue_max_workers_is_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("duplicate_policy__in", ["allow", "reject", "take_over"])),
                        name="workers_workerqueue_duplicate_policy",
                    ),
                    workers.models.states.ToldState(
                        condition=models.Q(
                            models.Q(("state_ends_at", None), ("state_reason", "")),
                            ("is_disabled", True),
                            ("is_draining", True),
                            _connector="OR",
                        ),
                        name="workers_workerqueue_state_is_told",
                        violation_error_message="A reason and an end belong to something that is disabled or draining.",
                    ),
                    environments.database.tenancy.SameOrganization(
                        name="workers_workerqueue_environment_tenant",
                        organization="organization",
                        pointer="environment",
                    ),
                    environments.database.tenancy.SameOrganization(
                        name="workers_workerqueue_temporal_connection_tenant",
                        organization="organization",
                        pointer="temporal_connection",
                    ),
                    environments.database.tenancy.SameOrganization(
                        name="workers_workerqueue_litellm_connection_tenant",
                        organization="organization",
                        pointer="litellm_connection",
                    ),
                    environments.database.tenancy.SameOrganization(
                        name="workers_workerqueue_telemetry_settings_tenant",
                        organization="organization",
                        pointer="telemetry_settings",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkerInstance",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False, verbose_name="ID")),
                ("is_current", models.BooleanField(default=True)),
                (
                    "is_contested",
                    models.BooleanField(
                        default=False, help_text="It started while another process of the worker was online."
                    ),
                ),
                ("hostname", models.CharField(blank=True, default="", max_length=255, verbose_name="host")),
                ("pid", models.BigIntegerField(null=True, verbose_name="process ID")),
                ("client_address", models.GenericIPAddressField(null=True)),
                (
                    "container_digest",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        help_text="Of what the process told of its container.",
                        max_length=12,
                    ),
                ),
                (
                    "boot_digest",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        help_text="Of what the process told of its machine's boot.",
                        max_length=12,
                    ),
                ),
                (
                    "birth_digest",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        help_text="Of what the process told of its own beginning.",
                        max_length=12,
                    ),
                ),
                (
                    "api_key_id",
                    models.UUIDField(
                        db_index=True, help_text="The one that it used last.", null=True, verbose_name="API key"
                    ),
                ),
                (
                    "configuration_revision",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        help_text="Of what it was given at its start.",
                        max_length=12,
                    ),
                ),
                ("started_at", models.DateTimeField()),
                ("last_heartbeat_at", models.DateTimeField(help_text="The start counts as the first.")),
                (
                    "older_heartbeat_at",
                    environments.fields.ComputedField(
                        db_persist=True,
                        expression=models.Case(models.When(is_current=False, then=models.F("last_heartbeat_at"))),
                        help_text="The last heartbeat, once a newer process has started.",
                        output_field=models.DateTimeField(null=True),
                    ),
                ),
                (
                    "heartbeat_address",
                    models.GenericIPAddressField(help_text="Where the last heartbeat came from.", null=True),
                ),
                (
                    "address_before",
                    models.GenericIPAddressField(
                        help_text="Where those before came from, if from elsewhere.", null=True
                    ),
                ),
                (
                    "doubled_at",
                    models.DateTimeField(
                        help_text="When heartbeats came from two addresses in turn, sooner than one process sends them.",
                        null=True,
                    ),
                ),
                (
                    "activity",
                    models.CharField(
                        choices=[("active", "Active"), ("idle", "Idle"), ("busy", "Busy")],
                        default="active",
                        max_length=50,
                    ),
                ),
                ("tasks_processed", models.BigIntegerField(default=0)),
                (
                    "current_task_id",
                    models.CharField(blank=True, default="", max_length=255, verbose_name="current task"),
                ),
                ("stopped_at", models.DateTimeField(null=True)),
                (
                    "is_superseded",
                    models.BooleanField(
                        db_default=False, default=False, help_text="Another process of the worker took over from it."
                    ),
                ),
                (
                    "is_replaced",
                    models.BooleanField(
                        db_default=False,
                        default=False,
                        help_text="It was taken for dead when a process started in its place.",
                    ),
                ),
                ("stop_reason", models.CharField(blank=True, default="", max_length=200)),
                ("exit_code", models.BigIntegerField(null=True)),
                ("error_message", models.CharField(blank=True, default="", max_length=2000)),
                (
                    "organization",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="instances",
                        to="workers.worker",
                    ),
                ),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="workers.workerqueue",
                    ),
                ),
            ],
            options={
                "ordering": ["-started_at"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("is_current", True)),
                        fields=("worker",),
                        name="workers_workerinstance_one_current",
                    )
                ],
                "indexes": [
                    models.Index(fields=["worker", "-is_current", "-started_at"], name="workers_instance_of_worker"),
                    models.Index(
                        condition=models.Q(("is_current", False), ("stopped_at", None)),
                        fields=["older_heartbeat_at"],
                        name="workers_instance_older",
                    ),
                    models.Index(
                        condition=models.Q(("is_current", False), ("stopped_at", None)),
                        fields=["worker", "older_heartbeat_at"],
                        name="workers_instance_older_of",
                    ),
                    models.Index(fields=["-started_at"], name="workers_instance_by_time"),
                    models.Index(
                        condition=models.Q(
                            ("is_current", True), ("stopped_at", None), models.Q(("hostname", ""), _negated=True)
                        ),
                        fields=["hostname", "queue"],
                        name="workers_instance_by_host",
                    ),
                    models.Index(
                        condition=models.Q(("doubled_at__isnull", False)),
                        fields=["doubled_at"],
                        name="workers_instance_doubled",
                    ),
                    models.Index(
                        condition=models.Q(("stopped_at__isnull", False)),
                        fields=["stopped_at", "id"],
                        name="workers_instance_goodbyes",
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="worker",
            name="queue",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="workers",
                to="workers.workerqueue",
            ),
        ),
        migrations.CreateModel(
            name="UpdateLock",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("holder", models.CharField(help_text="The worker as the caller names it.", max_length=200)),
                ("api_key_id", models.UUIDField(help_text="The key that it was taken with.", null=True)),
                (
                    "process_digest",
                    models.CharField(
                        blank=True,
                        db_default="",
                        default="",
                        help_text="Of what its holder told of its process.",
                        max_length=12,
                    ),
                ),
                ("acquired_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
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
                    "queue",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="update_lock",
                        to="workers.workerqueue",
                    ),
                ),
            ],
            options={
                "constraints": [
                    environments.database.tenancy.SameOrganization(
                        name="workers_updatelock_queue_tenant", organization="organization", pointer="queue"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                (
                    "scope",
                    models.CharField(
                        choices=[
                            ("worker", "Worker"),
                            ("queue", "worker queue"),
                            ("environment", "Environment"),
                            ("organization", "Organization"),
                        ],
                        max_length=12,
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("worker", "Worker: runs workers and reads"),
                            ("manager", "Manager: also manages what is within its scope"),
                        ],
                        default="worker",
                        max_length=7,
                    ),
                ),
                ("token_hash", models.CharField(editable=False, max_length=64, unique=True)),
                ("signing_key_id", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField()),
                ("created_by", models.CharField(max_length=200)),
                ("expires_at", models.DateTimeField(null=True)),
                ("no_expiry_reason", models.CharField(blank=True, default="", max_length=300)),
                ("revoked_at", models.DateTimeField(null=True)),
                ("revoke_reason", models.CharField(blank=True, default="", max_length=300)),
                (
                    "environment",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=environments.database.removal.ENDED_ALONG,
                        related_name="+",
                        to="environments.environment",
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
                    "replaced_by",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="replaces",
                        to="workers.apikey",
                        verbose_name="replaced by",
                    ),
                ),
                (
                    "worker",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=environments.database.removal.ENDED_ALONG,
                        related_name="api_keys",
                        to="workers.worker",
                    ),
                ),
                (
                    "queue",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=environments.database.removal.ENDED_ALONG,
                        related_name="+",
                        to="workers.workerqueue",
                    ),
                ),
            ],
            options={
                "verbose_name": "API key",
                "ordering": ["-created_at"],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "id"), name="workers_apikey_tenant_key"),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("environment", None), ("queue", None), ("scope", "organization"), ("worker", None)
                            ),
                            models.Q(
                                ("environment", None), ("queue", None), ("scope", "worker"), ("worker__isnull", False)
                            ),
                            models.Q(
                                ("environment", None), ("queue__isnull", False), ("scope", "queue"), ("worker", None)
                            ),
                            models.Q(
                                ("environment__isnull", False),
                                ("queue", None),
                                ("scope", "environment"),
                                ("worker", None),
                            ),
                            _connector="OR",
                        ),
                        name="workers_apikey_one_scope",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ["worker", "manager"])), name="workers_apikey_role"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("expires_at__isnull", False),
                            models.Q(("no_expiry_reason", ""), _negated=True),
                            _connector="OR",
                        ),
                        name="workers_apikey_no_expiry_needs_a_reason",
                    ),
                    environments.database.tenancy.SameOrganization(
                        name="workers_apikey_queue_tenant", organization="organization", pointer="queue"
                    ),
                    environments.database.tenancy.SameOrganization(
                        name="workers_apikey_environment_tenant", organization="organization", pointer="environment"
                    ),
                ],
                "indexes": [
                    models.Index(fields=["-created_at"], name="workers_apikey_newest"),
                    models.Index(
                        condition=models.Q(("revoked_at", None)), fields=["expires_at"], name="workers_apikey_expiring"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkerStart",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("started_at", models.DateTimeField()),
                ("worker_name", models.CharField(max_length=63)),
                ("task_queue_name", models.CharField(max_length=200)),
                ("client_address", models.GenericIPAddressField(null=True)),
                ("user_agent", models.CharField(blank=True, max_length=300)),
                ("system_info", models.JSONField(default=dict)),
                ("configuration_revision", models.CharField(max_length=12)),
                (
                    "displaced_instance_id",
                    models.UUIDField(
                        help_text="The process of this worker that was still online at this start.",
                        null=True,
                        verbose_name="displaced instance",
                    ),
                ),
                ("temporal_connection_id", models.UUIDField(verbose_name="Temporal connection")),
                ("temporal_api_key_version", models.PositiveIntegerField(verbose_name="Temporal API key version")),
                ("litellm_connection_id", models.UUIDField(verbose_name="LiteLLM connection")),
                ("litellm_api_key_version", models.PositiveIntegerField(verbose_name="LiteLLM API key version")),
                ("telemetry_settings_id", models.UUIDField(null=True, verbose_name="telemetry settings")),
                (
                    "api_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="starts",
                        to="workers.apikey",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="starts",
                        to="workers.worker",
                    ),
                ),
            ],
            options={
                "ordering": ["-started_at"],
                "indexes": [
                    models.Index(fields=["-started_at"], name="workers_start_newest"),
                    models.Index(fields=["organization", "-started_at"], name="workers_start_of_tenant"),
                    models.Index(fields=["worker", "-started_at"], name="workers_start_of_worker"),
                    models.Index(fields=["api_key", "-started_at"], name="workers_start_of_key"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Refusal",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False, verbose_name="ID")),
                ("call", models.CharField(db_default="start", default="start", max_length=20)),
                ("worker_id", models.UUIDField(db_index=True, null=True)),
                ("occurred_at", models.DateTimeField()),
                ("status", models.PositiveSmallIntegerField(help_text="The HTTP status that was answered.")),
                ("reason", models.CharField(max_length=300)),
                ("client_address", models.GenericIPAddressField(null=True)),
                (
                    "api_key",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="workers.apikey"
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
                    environments.database.tenancy.SameOrganization(
                        name="workers_refusal_api_key_tenant", organization="organization", pointer="api_key"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="RefusedStart",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "worker_id",
                    models.UUIDField(help_text="None for a start in a queue, which makes its worker.", null=True),
                ),
                ("hostname", models.CharField(blank=True, help_text="As whoever started told it.", max_length=255)),
                ("client_address", models.GenericIPAddressField(null=True)),
                ("first_at", models.DateTimeField(help_text="When the first of them was refused.")),
                ("occurred_at", models.DateTimeField()),
                ("times", models.PositiveIntegerField(help_text="At least so often.")),
                ("status", models.PositiveSmallIntegerField(help_text="The HTTP status that was answered.")),
                ("reason", models.CharField(max_length=300)),
                (
                    "api_key",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="workers.apikey"
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
                "indexes": [
                    models.Index(fields=["organization"], name="workers_refused_of_tenant"),
                    models.Index(fields=["-occurred_at"], name="workers_refused_newest"),
                ],
                "constraints": [
                    environments.database.tenancy.SameOrganization(
                        name="workers_refusedstart_api_key_tenant", organization="organization", pointer="api_key"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="InstanceReport",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False, verbose_name="ID")),
                ("reported_at", models.DateTimeField()),
                ("system_info", models.JSONField(default=dict)),
                ("worker_metadata", models.JSONField(default=dict)),
                ("logs", models.JSONField(default=list, help_text="The last lines, the newest at the end.")),
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
                    "instance",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="report", to="workers.workerinstance"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "id"), name="workers_instancereport_tenant_key")
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="worker",
            constraint=models.UniqueConstraint(fields=("organization", "id"), name="workers_worker_tenant_key"),
        ),
        migrations.AddConstraint(
            model_name="workerinstance",
            constraint=models.UniqueConstraint(fields=("organization", "id"), name="workers_workerinstance_tenant_key"),
        ),
        migrations.AddConstraint(
            model_name="updatelock",
            constraint=models.UniqueConstraint(fields=("organization", "id"), name="workers_updatelock_tenant_key"),
        ),
        migrations.AddIndex(
            model_name="refusal",
            index=models.Index(fields=["organization"], name="workers_refusal_of_tenant"),
        ),
        migrations.AddConstraint(
            model_name="worker",
            constraint=models.UniqueConstraint(fields=("queue", "name"), name="workers_worker_name_once"),
        ),
        migrations.AddConstraint(
            model_name="worker",
            constraint=models.UniqueConstraint(fields=("organization", "id", "queue"), name="workers_worker_queue_key"),
        ),
        migrations.AddConstraint(
            model_name="workerinstance",
            constraint=environments.database.tenancy.SameOrganization(
                name="workers_workerinstance_worker_tenant", organization="organization", pointer="worker"
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=environments.database.tenancy.SameOrganization(
                name="workers_apikey_worker_tenant", organization="organization", pointer="worker"
            ),
        ),
        migrations.AddConstraint(
            model_name="instancereport",
            constraint=environments.database.tenancy.SameOrganization(
                name="workers_instancereport_instance_tenant", organization="organization", pointer="instance"
            ),
        ),
        migrations.AddConstraint(
            model_name="workerinstance",
            constraint=environments.database.tenancy.SameAs(
                column="queue",
                name="workers_workerinstance_worker_queue",
                organization="organization",
                pointer="worker",
            ),
        ),
        migrations.AddConstraint(
            model_name="worker",
            constraint=environments.database.tenancy.SameOrganization(
                name="workers_worker_queue_tenant", organization="organization", pointer="queue"
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=environments.database.tenancy.SameOrganization(
                name="workers_apikey_replaced_by_tenant", organization="organization", pointer="replaced_by"
            ),
        ),
        AppendOnly(
            table="workers_workerstart",
        ),
        migrations.CreateModel(
            name="QueueObservation",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "asked_at",
                    models.DateTimeField(help_text="When Temporal was asked last, whether or not it answered."),
                ),
                ("observed_at", models.DateTimeField(help_text="When it answered last.", null=True)),
                (
                    "problem",
                    models.CharField(blank=True, default="", help_text="Why it did not answer.", max_length=300),
                ),
                ("workflow_pollers", models.PositiveIntegerField(default=0)),
                ("activity_pollers", models.PositiveIntegerField(default=0)),
                ("pollers", models.PositiveIntegerField(default=0, help_text="Of either kind, each counted once.")),
                ("strangers", models.PositiveIntegerField(default=0, help_text="Pollers that are no worker's here.")),
                (
                    "stranger_identities",
                    models.JSONField(default=list, help_text="What some of these call themselves."),
                ),
                (
                    "backlog",
                    models.PositiveBigIntegerField(
                        help_text="Tasks that wait; empty where Temporal does not tell.", null=True
                    ),
                ),
                (
                    "oldest_age",
                    models.DurationField(help_text="How long the oldest of them had waited then.", null=True),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
                (
                    "queue",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="observation",
                        to="workers.workerqueue",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ProcessObservation",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False, verbose_name="ID")),
                ("is_polling", models.BooleanField()),
                (
                    "is_full",
                    models.BooleanField(default=False, help_text="It does not poll since all of its slots are taken."),
                ),
                (
                    "is_conspicuous",
                    models.BooleanField(
                        default=False, help_text="When Temporal was asked, polling and heartbeats did not go together."
                    ),
                ),
                ("changed_at", models.DateTimeField(help_text="Since when it polls, or does not.")),
                (
                    "observed_at",
                    models.DateTimeField(
                        help_text="When it was looked for, of a worker with a Temporal connection of its own.",
                        null=True,
                    ),
                ),
                (
                    "instance",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="observation",
                        to="workers.workerinstance",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="processes",
                        to="workers.queueobservation",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Sweep",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                (
                    "holder",
                    models.UUIDField(help_text="A process of the service, by an id that it gave itself.", null=True),
                ),
                ("expires_at", models.DateTimeField(help_text="Then another one may take over.", null=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("queues", models.PositiveIntegerField(default=0)),
                (
                    "unanswered",
                    models.PositiveIntegerField(
                        default=0, help_text="Connections that did not answer, now or when they were asked last."
                    ),
                ),
            ],
            options={
                "constraints": [models.CheckConstraint(condition=models.Q(("id", 1)), name="workers_sweep_one_row")],
            },
        ),
        migrations.AddConstraint(
            model_name="queueobservation",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="workers_queueobservation_tenant_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="queueobservation",
            constraint=environments.database.tenancy.SameOrganization(
                name="workers_queueobservation_queue_tenant", organization="organization", pointer="queue"
            ),
        ),
        migrations.AddIndex(
            model_name="processobservation",
            index=models.Index(
                condition=models.Q(("is_conspicuous", True)),
                fields=["organization"],
                name="workers_processobs_conspicuous",
            ),
        ),
        migrations.AddConstraint(
            model_name="processobservation",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="workers_processobservation_tenant_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="processobservation",
            constraint=environments.database.tenancy.SameOrganization(
                name="workers_processobservation_instance_tenant", organization="organization", pointer="instance"
            ),
        ),
        migrations.AddConstraint(
            model_name="processobservation",
            constraint=environments.database.tenancy.SameOrganization(
                name="workers_processobservation_queue_tenant", organization="organization", pointer="queue"
            ),
        ),
        migrations.CreateModel(
            name="KeptAnswer",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "key_hash",
                    models.CharField(help_text="Of the API key and the Idempotency-Key.", max_length=64, unique=True),
                ),
                ("body_hash", models.CharField(help_text="Of what was asked for.", max_length=64)),
                ("status", models.PositiveSmallIntegerField(default=0)),
                ("answer", models.TextField(default="", help_text="In JSON, without any secret.")),
                ("version", models.CharField(default="", max_length=12)),
                ("expires_at", models.DateTimeField(db_index=True)),
                (
                    "api_key",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="workers.apikey"
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
                    models.UniqueConstraint(fields=("organization", "id"), name="workers_keptanswer_tenant_key"),
                    environments.database.tenancy.SameOrganization(
                        name="workers_keptanswer_api_key_tenant", organization="organization", pointer="api_key"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Lookout",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                (
                    "holder",
                    models.UUIDField(help_text="A process of the service, by an id that it gave itself.", null=True),
                ),
                ("expires_at", models.DateTimeField(help_text="Then another one may take over.", null=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
            ],
            options={
                "abstract": False,
                "constraints": [models.CheckConstraint(condition=models.Q(("id", 1)), name="workers_lookout_one_row")],
            },
        ),
        migrations.CreateModel(
            name="NotificationTarget",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", environments.models.fields.SlugField(max_length=63)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("webhook", "Webhook, signed"),
                            ("slack", "Slack, or what takes its webhooks"),
                            ("email", "Email"),
                        ],
                        max_length=7,
                    ),
                ),
                ("sealed_url", environments.fields.SealedField(blank=True, default="")),
                (
                    "url_host",
                    models.CharField(
                        blank=True,
                        default="",
                        editable=False,
                        help_text="Of its URL, which is sealed.",
                        max_length=260,
                        verbose_name="host",
                    ),
                ),
                (
                    "url_fingerprint",
                    models.CharField(
                        blank=True, default="", editable=False, max_length=12, verbose_name="URL fingerprint"
                    ),
                ),
                ("sealed_secret", environments.fields.SealedField(blank=True, default="")),
                (
                    "secret_fingerprint",
                    models.CharField(
                        blank=True, default="", editable=False, max_length=12, verbose_name="secret fingerprint"
                    ),
                ),
                (
                    "addresses",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Parted by commas.",
                        max_length=2000,
                        validators=[workers.models.notifications.are_addresses],
                    ),
                ),
                (
                    "events",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text="None chosen: it is told all of them.",
                        validators=[workers.models.notifications.are_events],
                    ),
                ),
                (
                    "events_chosen_at",
                    models.DateTimeField(
                        editable=False,
                        help_text="When its events were changed last: the end of what began before is not told.",
                        null=True,
                    ),
                ),
                ("is_enabled", models.BooleanField(default=True, verbose_name="enabled")),
                (
                    "quiet_from",
                    models.TimeField(
                        blank=True,
                        help_text="Nothing is told from then on, each day.",
                        null=True,
                        verbose_name="quiet from",
                    ),
                ),
                (
                    "quiet_until",
                    models.TimeField(
                        blank=True,
                        help_text="What stands then is told then; it may be on the next day.",
                        null=True,
                        verbose_name="quiet until",
                    ),
                ),
                (
                    "time_zone",
                    models.CharField(
                        default="UTC",
                        help_text="Of the quiet hours, such as Europe/Berlin.",
                        max_length=64,
                        validators=[workers.models.notifications.is_time_zone],
                    ),
                ),
                (
                    "mute_ends_at",
                    models.DateTimeField(
                        blank=True, help_text="Nothing is told before.", null=True, verbose_name="muted until"
                    ),
                ),
                (
                    "mute_reason",
                    models.CharField(
                        blank=True,
                        default="",
                        max_length=300,
                        validators=[workers.models.states.check_one_line],
                        verbose_name="why it is muted",
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "told_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now,
                        editable=False,
                        help_text="What began before has been told, or is over.",
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
                "ordering": ["organization", "name"],
            },
        ),
        migrations.CreateModel(
            name="NotificationDelivery",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "event",
                    models.CharField(
                        choices=[
                            ("worker_offline", "Worker offline"),
                            ("worker_failed", "Worker stopped with an error"),
                            ("crash_loop", "Crash loop"),
                            ("duplicate_process", "Duplicate process"),
                            ("queue_unserved", "Tasks wait and nobody polls"),
                            ("queue_full", "Worker queue full"),
                            ("connection_failing", "Connection does not work"),
                            ("secret_expiring", "API key or credential expires"),
                            ("start_refused", "Start refused"),
                            ("configuration_outdated", "Configuration outdated"),
                            ("control_plane_away", "Control plane was away"),
                        ],
                        max_length=22,
                    ),
                ),
                ("payload", models.JSONField(default=dict, help_text="What is sent, as a webhook is sent it.")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="made")),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                (
                    "next_attempt_at",
                    models.DateTimeField(
                        help_text="Empty once it is taken or given up.", null=True, verbose_name="next attempt"
                    ),
                ),
                ("delivered_at", models.DateTimeField(null=True, verbose_name="delivered")),
                ("given_up_at", models.DateTimeField(null=True, verbose_name="given up")),
                (
                    "taken_by",
                    models.TextField(
                        blank=True,
                        default="",
                        help_text="Of a mail that some were refused, the addresses that have it.",
                    ),
                ),
                (
                    "last_error",
                    models.CharField(blank=True, default="", help_text="Why the last attempt failed.", max_length=300),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
                (
                    "target",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="workers.notificationtarget",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "notification deliveries",
                "ordering": ["-created_at", "id"],
            },
        ),
        migrations.CreateModel(
            name="Incident",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "event",
                    models.CharField(
                        choices=[
                            ("worker_offline", "Worker offline"),
                            ("worker_failed", "Worker stopped with an error"),
                            ("crash_loop", "Crash loop"),
                            ("duplicate_process", "Duplicate process"),
                            ("queue_unserved", "Tasks wait and nobody polls"),
                            ("queue_full", "Worker queue full"),
                            ("connection_failing", "Connection does not work"),
                            ("secret_expiring", "API key or credential expires"),
                            ("start_refused", "Start refused"),
                            ("configuration_outdated", "Configuration outdated"),
                            ("control_plane_away", "Control plane was away"),
                        ],
                        max_length=22,
                    ),
                ),
                ("subject_type", models.CharField(max_length=22)),
                ("subject_id", models.CharField(max_length=300)),
                ("subject_name", models.CharField(max_length=300, verbose_name="subject")),
                ("detail", models.CharField(blank=True, default="", max_length=300)),
                (
                    "mark",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="What has changed of it is told anew, such as the days left.",
                        max_length=32,
                    ),
                ),
                ("since_at", models.DateTimeField(help_text="As far as is known.", verbose_name="since")),
                ("opened_at", models.DateTimeField(help_text="When it was seen first.", verbose_name="seen")),
                ("due_at", models.DateTimeField(help_text="When it is told, if it still stands.")),
                ("renewed_at", models.DateTimeField(help_text="When its mark changed last.", null=True)),
                ("gone_at", models.DateTimeField(help_text="Since when it was not seen any more.", null=True)),
                (
                    "ended_at",
                    models.DateTimeField(
                        help_text="It was gone for long enough to be over.", null=True, verbose_name="over"
                    ),
                ),
                (
                    "is_silent",
                    models.BooleanField(
                        default=False,
                        help_text="Its end is not told: its subject was deleted, or only time has passed.",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
            ],
            options={
                "ordering": ["-opened_at", "id"],
                "indexes": [
                    models.Index(fields=["-opened_at", "id"], name="workers_incident_newest"),
                    models.Index(fields=["organization", "ended_at"], name="workers_incident_of_tenant"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "id"), name="workers_incident_tenant_key"),
                    models.UniqueConstraint(
                        condition=models.Q(("ended_at", None)),
                        fields=("organization", "event", "subject_type", "subject_id"),
                        name="workers_incident_one_open",
                    ),
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="notificationtarget",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="workers_notificationtarget_tenant_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="notificationtarget",
            constraint=models.CheckConstraint(
                condition=models.Q(("name__regex", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z")),
                name="workers_notificationtarget_name_is_slug",
            ),
        ),
        migrations.AddConstraint(
            model_name="notificationtarget",
            constraint=models.UniqueConstraint(
                fields=("organization", "name"), name="workers_notificationtarget_name_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="notificationtarget",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("kind", "email"),
                        ("sealed_secret", ""),
                        ("sealed_url", ""),
                        models.Q(("addresses", ""), _negated=True),
                    ),
                    models.Q(
                        ("addresses", ""), ("kind", "slack"), ("sealed_secret", ""), ("sealed_url__startswith", "cp1.")
                    ),
                    models.Q(
                        ("addresses", ""),
                        ("kind", "webhook"),
                        ("sealed_secret__startswith", "cp1."),
                        ("sealed_url__startswith", "cp1."),
                    ),
                    _connector="OR",
                ),
                name="workers_notificationtarget_can_be_told",
                violation_error_message="A webhook has a URL and a secret, a Slack target a URL, an email target addresses, and no more.",
            ),
        ),
        migrations.AddConstraint(
            model_name="notificationtarget",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("quiet_from", None), ("quiet_until", None)),
                    models.Q(
                        ("quiet_from__isnull", False),
                        ("quiet_until__isnull", False),
                        models.Q(("quiet_from", models.F("quiet_until")), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="workers_notificationtarget_quiet_hours",
                violation_error_message="Quiet hours have a begin and an end, which differ.",
            ),
        ),
        migrations.AddConstraint(
            model_name="notificationtarget",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("mute_ends_at", None), ("mute_reason", "")),
                    models.Q(("mute_ends_at__isnull", False), models.Q(("mute_reason", ""), _negated=True)),
                    _connector="OR",
                ),
                name="workers_notificationtarget_mute_needs_a_reason",
                violation_error_message="A mute has an end and a reason, or neither of them.",
            ),
        ),
        migrations.AddIndex(
            model_name="notificationdelivery",
            index=models.Index(fields=["-created_at", "id"], name="workers_delivery_newest"),
        ),
        migrations.AddIndex(
            model_name="notificationdelivery",
            index=models.Index(
                condition=models.Q(("next_attempt_at__isnull", False)),
                fields=["next_attempt_at"],
                name="workers_delivery_due",
            ),
        ),
        migrations.AddIndex(
            model_name="notificationdelivery",
            index=models.Index(
                condition=models.Q(("given_up_at__isnull", False)),
                fields=["organization"],
                name="workers_delivery_given_up",
            ),
        ),
        migrations.AddConstraint(
            model_name="notificationdelivery",
            constraint=models.UniqueConstraint(
                fields=("organization", "id"), name="workers_notificationdelivery_tenant_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="notificationdelivery",
            constraint=environments.database.tenancy.SameOrganization(
                name="workers_notificationdelivery_target_tenant", organization="organization", pointer="target"
            ),
        ),
        migrations.AddConstraint(
            model_name="notificationdelivery",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("delivered_at", None), ("given_up_at", None), ("next_attempt_at__isnull", False)),
                    models.Q(("delivered_at__isnull", False), ("given_up_at", None), ("next_attempt_at", None)),
                    models.Q(("delivered_at", None), ("given_up_at__isnull", False), ("next_attempt_at", None)),
                    _connector="OR",
                ),
                name="workers_notificationdelivery_one_state",
            ),
        ),
    ]
