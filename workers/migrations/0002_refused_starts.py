"""Keeps for each worker and some hosts that the latest start was refused, how often and since when."""

import django.db.models.deletion
from django.db import migrations, models

import environments.database.tenancy
from environments.database.schema_changes import SchemaChange


class Migration(SchemaChange):
    dependencies = [
        ("environments", "0001_initial"),
        ("workers", "0001_initial"),
    ]

    operations = [
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
                ("since", models.DateTimeField(help_text="When the first of them was refused.")),
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
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="environments.organization"
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["-occurred_at"], name="workers_refused_newest")],
                "constraints": [
                    models.UniqueConstraint(fields=("organization", "id"), name="workers_refusedstart_tenant_key"),
                    environments.database.tenancy.SameOrganization(
                        name="workers_refusedstart_api_key_tenant", organization="organization", pointer="api_key"
                    ),
                ],
            },
        ),
    ]
