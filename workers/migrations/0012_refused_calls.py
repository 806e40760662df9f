"""Refused calls of running workers are noted, too, so a key may have several rows."""

import django.db.models.deletion
from django.db import migrations, models

from environments.database.schema_changes import SchemaChange


class Migration(SchemaChange):
    dependencies = [
        ("workers", "0011_indexes_of_older_heartbeats"),
    ]

    operations = [
        migrations.AddField(
            model_name="refusal",
            name="call",
            field=models.CharField(db_default="start", default="start", max_length=20),
        ),
        migrations.AlterField(
            model_name="refusal",
            name="api_key",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="+", to="workers.apikey"),
        ),
    ]
