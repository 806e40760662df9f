"""Indexes of tables that grow without end; which of a worker's processes speaks is found by their age."""

import django.db.models.deletion
from django.db import migrations, models

from environments.database.schema_changes import AddIndexMeanwhile, DropIndexMeanwhile


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("environments", "0003_console"),
        ("workers", "0004_console"),
    ]

    operations = [
        AddIndexMeanwhile(
            model_name="apikey",
            index=models.Index(
                condition=models.Q(("revoked_at", None)), fields=["expires_at"], name="workers_apikey_expiring"
            ),
        ),
        AddIndexMeanwhile(
            model_name="workerinstance",
            index=models.Index(
                condition=models.Q(("is_current", False), ("stopped_at", None)),
                fields=["last_heartbeat_at"],
                name="workers_instance_older",
            ),
        ),
        AddIndexMeanwhile(
            model_name="workerinstance",
            index=models.Index(
                condition=models.Q(("stopped_at__isnull", False)),
                fields=["stopped_at", "id"],
                name="workers_instance_goodbyes",
            ),
        ),
        AddIndexMeanwhile(
            model_name="workerstart",
            index=models.Index(fields=["organization", "-started_at"], name="workers_start_of_tenant"),
        ),
        AddIndexMeanwhile(
            model_name="workerinstance",
            index=models.Index(fields=["worker", "-is_current", "-started_at"], name="workers_instance_of_worker"),
        ),
        DropIndexMeanwhile(
            "workers_workerinstance_worker_id_5012ca1e",
            "workers_workerinstance (worker_id)",
            state_operations=[
                migrations.AlterField(
                    model_name="workerinstance",
                    name="worker",
                    field=models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="instances",
                        to="workers.worker",
                    ),
                ),
            ],
        ),
    ]
