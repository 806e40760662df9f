"""When older processes were last heard of, in a column that the heartbeats of current ones leave alone."""

from django.db import migrations, models
from django.db.models import Case, F, When

from environments.fields import ComputedField
from environments.database.schema_changes import SchemaChange


class Migration(SchemaChange):
    dependencies = [
        ("workers", "0009_fill_queue_of_instances"),
    ]

    operations = [
        migrations.AddField(
            model_name="workerinstance",
            name="older_heartbeat_at",
            field=ComputedField(
                db_persist=True,
                expression=Case(When(is_current=False, then=F("last_heartbeat_at"))),
                help_text="The last heartbeat, once a newer process has started.",
                output_field=models.DateTimeField(null=True),
            ),
        ),
    ]
