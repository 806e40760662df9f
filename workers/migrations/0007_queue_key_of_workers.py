"""What the queue of a worker's processes refers to."""

from django.db import migrations, models

from environments.database.schema_changes import SchemaChange


class Migration(SchemaChange):
    dependencies = [
        ("workers", "0006_instances_by_time"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="worker",
            constraint=models.UniqueConstraint(fields=("organization", "id", "queue"), name="workers_worker_queue_key"),
        ),
    ]
