"""Any word that a process says of what it does is kept."""

from django.db import migrations, models

from environments.schema_changes import SchemaChange


class Migration(SchemaChange):
    dependencies = [
        ("workers", "0012_refused_calls"),
    ]

    operations = [
        migrations.AlterField(
            model_name="workerinstance",
            name="activity",
            field=models.CharField(
                choices=[("active", "Active"), ("idle", "Idle"), ("busy", "Busy")], default="active", max_length=50
            ),
        ),
    ]
