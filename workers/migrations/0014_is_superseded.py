"""Whether another process took over is kept apart from what a process says when it ends."""

from django.db import migrations, models

from environments.database.schema_changes import SchemaChange


class Migration(SchemaChange):
    dependencies = [
        ("workers", "0012_refused_calls"),
    ]

    operations = [
        migrations.AddField(
            model_name="workerinstance",
            name="is_superseded",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Another process of the worker took over from it."
            ),
        ),
    ]
