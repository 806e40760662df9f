"""Indexes of the processes: by the time they started, those that may run beside a newer one, and none that is there twice."""

import django.db.models.deletion
from django.db import migrations, models

from environments.database.schema_changes import AddIndexMeanwhile, DropIndexMeanwhile


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("workers", "0005_instances_by_age"),
    ]

    operations = [
        AddIndexMeanwhile(
            model_name="workerinstance",
            index=models.Index(fields=["-started_at"], name="workers_instance_by_time"),
        ),
        AddIndexMeanwhile(
            model_name="workerinstance",
            index=models.Index(
                condition=models.Q(("is_current", False), ("stopped_at", None)),
                fields=["worker", "last_heartbeat_at"],
                name="workers_instance_older_of",
            ),
        ),
        # The tenant's key begins with the organization, too.
        DropIndexMeanwhile("workers_workerinstance_organization_id_af929eeb_like"),
        DropIndexMeanwhile(
            "workers_workerinstance_organization_id_af929eeb",
            "workers_workerinstance (organization_id)",
            state_operations=[
                migrations.AlterField(
                    model_name="workerinstance",
                    name="organization",
                    field=models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="environments.organization",
                    ),
                ),
            ],
        ),
    ]
