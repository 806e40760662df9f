"""No index has what each heartbeat changes."""

from django.db import migrations, models

from environments.database.schema_changes import AddIndexMeanwhile, DropIndexMeanwhile

OLDER = models.Q(("is_current", False), ("stopped_at", None))
INDEXES = {
    "workers_instance_older": ["older_heartbeat_at"],
    "workers_instance_older_of": ["worker", "older_heartbeat_at"],
}


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("workers", "0010_older_heartbeats"),
    ]

    operations = [
        operation
        for name, fields in INDEXES.items()
        for operation in (
            DropIndexMeanwhile(name, state_operations=[migrations.RemoveIndex("workerinstance", name)]),
            AddIndexMeanwhile("workerinstance", models.Index(fields=fields, condition=OLDER, name=name)),
        )
    ]
