"""A worker's processes by age: which of them speaks is then found at once, however often the worker has started."""

import django.db.models.deletion
from django.db import migrations, models

from environments.schema_changes import SchemaChange


class Migration(SchemaChange):
    dependencies = [
        ("environments", "0003_console"),
        ("workers", "0004_console"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="workerinstance",
            index=models.Index(fields=["worker", "-is_current", "-started_at"], name="workers_instance_of_worker"),
        ),
        # Django would drop `workers_workerinstance_one_current` along with it, which is on the same column.
        migrations.RunSQL(
            "DROP INDEX workers_workerinstance_worker_id_5012ca1e",
            "CREATE INDEX workers_workerinstance_worker_id_5012ca1e ON workers_workerinstance (worker_id)",
            state_operations=[
                migrations.AlterField(
                    model_name="workerinstance",
                    name="worker",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="instances",
                        to="workers.worker",
                    ),
                ),
            ],
        ),
    ]
