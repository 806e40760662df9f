"""What runs at a place, and which processes are two, is found by indexes."""

from django.db import migrations, models
from django.db.models import Q

from environments.database.schema_changes import AddIndexMeanwhile


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("workers", "0016_identity_of_processes"),
    ]

    operations = [
        AddIndexMeanwhile(
            "workerinstance",
            models.Index(
                fields=["hostname", "queue"],
                condition=Q(("is_current", True), ("stopped_at", None), models.Q(("hostname", ""), _negated=True)),
                name="workers_instance_by_host",
            ),
        ),
        AddIndexMeanwhile(
            "workerinstance",
            models.Index(fields=["doubled_at"], condition=Q(doubled_at__isnull=False), name="workers_instance_doubled"),
        ),
    ]
