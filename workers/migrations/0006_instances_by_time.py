"""Processes by the time at which they started, for the console's list; and of a worker those that may run beside a newer one."""

from django.db import migrations, models

from environments.schema_changes import AddIndexMeanwhile


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
    ]
