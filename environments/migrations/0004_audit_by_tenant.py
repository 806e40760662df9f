"""The audit trail of an organization by time; its table grows without end."""

from django.db import migrations, models

from environments.database.schema_changes import AddIndexMeanwhile


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("environments", "0003_console"),
    ]

    operations = [
        AddIndexMeanwhile(
            model_name="auditevent",
            index=models.Index(fields=["organization", "-occurred_at"], name="environments_audit_tenant"),
        ),
    ]
